"""Importing SQLMesh: once, late, and with the settings that it reads while it is imported."""

import os
import sys

from sqlmesh_runner.errors import ConfigurationError, describe

__all__ = ["import_sqlmesh"]


def import_sqlmesh() -> None:
    """Import SQLMesh. Modules of this package that import it at their top are imported after this only.

    It takes seconds. Call it where a request to stop can already be heard.

    Raises:
        ConfigurationError: it is not installed here, or something in its environment breaks it.
    """
    os.environ.setdefault("MAX_FORK_WORKERS", "1")  # a fork would copy the locks of our threads
    os.environ.setdefault("SQLMESH__DISABLE_ANONYMIZED_ANALYTICS", "true")
    try:
        import sqlmesh  # noqa: F401, PLC0415 - see above
    except Exception as exc:
        msg = (
            f"SQLMesh can't be imported by {sys.executable}: {describe(exc)}. Install sqlmesh and sqlmesh-runner in an environment of their "
            "own (a compiled sqlglot, which dagster-dbt brings along, breaks SQLMesh)."
        )
        raise ConfigurationError(msg) from exc
