"""The environment variables that a project reads. Imports no SQLMesh, runs no project code."""
