"""Imports SQLMesh without its own deprecation warnings: warnings are errors in tests."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import sqlmesh.core.config
    import sqlmesh.core.context  # noqa: F401
