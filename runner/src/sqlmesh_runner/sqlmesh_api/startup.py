"""Import SQLMesh: once, late, and with the settings that it reads on import."""

import gc
import logging
import os
import sys
from typing import Final

from sqlmesh_runner.errors import ConfigurationError, describe

__all__ = ["import_sqlmesh"]

# Objects that are made before the garbage collector looks for those that are not used any more;
# Python's default is 700. SQLMesh's expressions are cycles that live as long as a batch: looked at
# that early they count as long-lived, and all that is long-lived is gone through again and again.
_COLLECTION_THRESHOLD: Final = 10_000


def import_sqlmesh() -> None:
    """Import SQLMesh. Modules of this package that import it are imported after this only.

    It takes seconds: to be called where signals are handled already.

    Raises:
        ConfigurationError: it is not installed here, or something in its environment breaks it.
    """
    gc.set_threshold(_COLLECTION_THRESHOLD)
    os.environ.setdefault("MAX_FORK_WORKERS", "1")  # a fork would copy the locks of our threads
    os.environ.setdefault("SQLMESH__DISABLE_ANONYMIZED_ANALYTICS", "true")
    # SQLMesh logs the warnings that its console prints as well. Without a handler, they would be
    # printed twice.
    logging.getLogger("sqlmesh").addHandler(logging.NullHandler())
    try:
        import sqlmesh  # noqa: F401, PLC0415 - see above
    except Exception as exc:
        msg = (
            f"SQLMesh can't be imported by {sys.executable}: {describe(exc)}. Install sqlmesh and "
            "sqlmesh-runner in an environment of their own (dagster-dbt installs a compiled "
            "sqlglot, which breaks SQLMesh)."
        )
        raise ConfigurationError(msg) from exc
