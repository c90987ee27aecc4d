"""The queries of running batches: the SQL that a batch failed with, and how to cancel it."""

import functools
import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlmesh.core.engine_adapter import EngineAdapter

__all__ = ["RunningQueries"]

_RUN_COMMENT: Final = re.compile(r"^/\* SQLMESH_\w+: \w+ \*/ ")
_MAX_LENGTH: Final = 10_000  # characters
_FAILED: Final = "__sqlmesh_runner_query__"  # attribute of an error: the SQL that it is about

logger = logging.getLogger(__name__)

_CANCELLERS: Final[tuple[Callable[[Any, Any], Any], ...]] = (
    lambda cursor, _connection: cursor.interrupt,  # DuckDB; its connection's interrupt does nothing
    lambda _cursor, connection: connection.cancel,  # psycopg2, psycopg, pg8000's successor API
    lambda cursor, _connection: cursor.cancel,  # Trino, Databricks, Athena
)


class RunningQueries:
    """The cursors of the threads that run a batch, by thread.

    Only these are cancelled: a query on SQLMesh's state, between batches, goes on.
    """

    def __init__(self, adapter_of: Callable[[str | None], EngineAdapter] | None = None) -> None:
        self._adapter_of = adapter_of
        self._handles: dict[int, tuple[Any, Any]] = {}
        self._lock = threading.Lock()

    def serve(self, adapter_of: Callable[[str | None], EngineAdapter]) -> None:
        """Set how to find a gateway's adapter. Nothing can be cancelled before."""
        self._adapter_of = adapter_of

    def begin(self, gateway: str | None) -> None:
        """Note that this thread starts a batch on a gateway (None: the default one)."""
        if self._adapter_of is not None:
            adapter = self._adapter_of(gateway)
            handle = (adapter.cursor, adapter.connection)
            with self._lock:
                self._handles[threading.get_ident()] = handle

    def end(self, error: BaseException | None) -> str | None:
        """Note that this thread's batch has ended; return the SQL that its error came from."""
        with self._lock:
            self._handles.pop(threading.get_ident(), None)
        while error is not None:
            failed: str | None = getattr(error, _FAILED, None)
            if failed is not None:
                return _readable(failed)
            error = error.__cause__ or error.__context__
        return None

    def cancel(self) -> None:
        """Cancel the queries of running batches, as far as their drivers can. May be repeated."""
        with self._lock:
            handles = list(self._handles.values())
        for cursor, connection in handles:
            for canceller in _CANCELLERS:
                try:
                    cancel = canceller(cursor, connection)
                except AttributeError:
                    continue
                try:
                    cancel()
                except Exception:  # the query may have ended; whoever waits has a deadline
                    logger.debug("A query could not be cancelled", exc_info=True)
                break

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Attach the SQL of a failed query to its error, while the context lasts.

        Drivers' errors lack the query, and not every failed query fails its batch: a Python model
        may catch the error. Every adapter's queries go through `EngineAdapter._execute`, except
        those of BigQuery and Databricks, whose failed queries stay unknown.
        """
        original = EngineAdapter._execute  # noqa: SLF001 - see compatibility.PRIVATE_NAMES

        @functools.wraps(original)
        def watched(adapter: EngineAdapter, sql: str, *args: Any, **kwargs: Any) -> Any:
            try:
                return original(adapter, sql, *args, **kwargs)
            except Exception as exc:
                setattr(exc, _FAILED, sql)
                raise

        EngineAdapter._execute = watched  # noqa: SLF001
        try:
            yield
        finally:
            EngineAdapter._execute = original  # noqa: SLF001


def _readable(sql: str) -> str:
    """Return a query without SQLMesh's comment that names the run, and cut where it is long."""
    text = _RUN_COMMENT.sub("", sql)
    return text if len(text) <= _MAX_LENGTH else f"{text[:_MAX_LENGTH]} … ({len(text)} characters)"
