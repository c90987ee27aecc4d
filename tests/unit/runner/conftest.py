"""Imports SQLMesh once, without its own deprecation warnings: warnings are errors in tests."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import sqlmesh.core.context
    import sqlmesh.core.engine_adapter  # noqa: F401
