"""The queries of running batches: which SQL a batch failed with, and how to cancel what is running."""

import functools
import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlmesh.core.engine_adapter import EngineAdapter

__all__ = ["RunningQueries"]

_RUN_MARK: Final = re.compile(r"^/\* SQLMESH_\w+: \w+ \*/ ")
_LONGEST: Final = 10_000  # characters
_FAILED: Final = "__sqlmesh_runner_query__"  # attribute of an error: the SQL that it is about

logger = logging.getLogger(__name__)

_CANCELLERS: Final[tuple[Callable[[Any, Any], Any], ...]] = (
    lambda cursor, _connection: cursor.interrupt,  # DuckDB; its connection's interrupt does nothing
    lambda _cursor, connection: connection.cancel,  # psycopg2, psycopg, pg8000's successor API
    lambda cursor, _connection: cursor.cancel,  # Trino, Databricks, Athena
)


class RunningQueries:
    """The cursors of the threads that work on a batch, by thread.

    Only these are ever cancelled: a query of SQLMesh's state between batches goes on.
    """

    def __init__(self, adapter_of: Callable[[str | None], EngineAdapter] | None = None) -> None:
        self._adapter_of = adapter_of
        self._handles: dict[int, tuple[Any, Any]] = {}
        self._lock = threading.Lock()

    def serve(self, adapter_of: Callable[[str | None], EngineAdapter]) -> None:
        """Say where a gateway's adapter is found. Nothing can be cancelled before."""
        self._adapter_of = adapter_of

    def begin(self, gateway: str | None) -> None:
        """Note that the calling thread begins a batch on a gateway (None: the default one)."""
        if self._adapter_of is not None:
            adapter = self._adapter_of(gateway)
            handle = (adapter.cursor, adapter.connection)
            with self._lock:
                self._handles[threading.get_ident()] = handle

    def end(self, error: BaseException | None) -> str | None:
        """Note that the calling thread's batch is over, and give the SQL that it failed with, if that is what its error came from."""
        with self._lock:
            self._handles.pop(threading.get_ident(), None)
        while error is not None:
            failed: str | None = getattr(error, _FAILED, None)
            if failed is not None:
                return _shown(failed)
            error = error.__cause__ or error.__context__
        return None

    def cancel(self) -> None:
        """Cancel what the batches are running, as far as the engine's driver can. May be called again and again."""
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
                except Exception:  # the query may have ended meanwhile; whoever waits has a deadline
                    logger.debug("A query could not be cancelled", exc_info=True)
                break

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Put the SQL that fails into its error, while the context lasts.

        Drivers' errors don't carry the query, and a query that fails need not be why its batch does: a Python model may catch the error. `EngineAdapter._execute` is where every query of every adapter but BigQuery's and Databricks'
        goes through; there the query stays unknown.
        """
        original = EngineAdapter._execute  # noqa: SLF001 - the one place that has the final SQL

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


def _shown(sql: str) -> str:
    """Give a query as a person wants to read it: without SQLMesh's mark of the run, and not with ten thousand rows of VALUES."""
    text = _RUN_MARK.sub("", sql)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} … ({len(text)} characters in all)"
