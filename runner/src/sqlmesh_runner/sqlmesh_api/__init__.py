"""What is asked of SQLMesh. With `manifest`, the only package that imports it."""
