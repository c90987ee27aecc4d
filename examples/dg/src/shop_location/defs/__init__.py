"""The example shop as a project of `dg`."""
