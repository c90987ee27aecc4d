"""SQLMesh is imported once, here: warnings are errors in our tests, and its own deprecated calls are not ours to mend."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import sqlmesh.core.context
    import sqlmesh.core.engine_adapter  # noqa: F401
