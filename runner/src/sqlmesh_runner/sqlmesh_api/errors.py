"""What SQLMesh raises, as the runner's errors."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlmesh.utils.errors import ConfigError

from sqlmesh_runner.errors import (
    ConfigurationError,
    RunError,
    RunnerError,
    UnreachableError,
    describe,
    is_connection_error,
)

__all__ = ["sqlmesh_errors"]


@contextmanager
def sqlmesh_errors(doing: str, *, otherwise: type[RunnerError] = RunError) -> Iterator[None]:
    """Translate SQLMesh's errors into the runner's.

    Args:
        doing: what fails, for the message.
        otherwise: the class for errors that are neither of the configuration nor of a connection.
    """
    try:
        yield
    except RunnerError:
        raise
    except Exception as exc:
        msg = f"{doing} failed: {describe(exc)}"
        if "Could not set lock on file" in str(exc):  # DuckDB's words
            msg += " Another process has the DuckDB file open; DuckDB allows one at a time."
        if is_connection_error(exc):
            raise UnreachableError(msg) from exc
        raise (ConfigurationError if isinstance(exc, ConfigError) else otherwise)(msg) from exc
