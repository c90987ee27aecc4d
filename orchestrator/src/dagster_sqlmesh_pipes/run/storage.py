"""Dagster's event log, while a step writes one result after the other to it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from typing import Any

import dagster as dg
from dagster._core.storage.event_log import SqlEventLogStorage
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import NullPool

__all__ = ["connected"]

_RECYCLE = 3600  # seconds
_OVERFLOW = 20  # connections at once, above the one that is kept


@contextmanager
def connected(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Stay connected to the event log, to which Dagster connects anew for each statement.

    It connects three times or more for a result. To a database server that takes longer than the
    statements: the connection is kept, as Dagster's webserver does. SQLite writes its file through
    to the disk whenever the last connection to it is closed: a connection that does nothing keeps
    the files of the run and of all assets open.
    """
    storage = instance.event_log_storage
    with ExitStack() as stack:
        if isinstance(storage, SqlEventLogStorage):
            engine = _engine(storage.index_connection())
            if engine.dialect.name == "sqlite":
                for each in (engine, _engine(storage.run_connection(run_id))):
                    stack.enter_context(_open_file(each))
            elif _connects_each_time(engine):
                _keep_connection(storage)
        yield


def _engine(connecting: AbstractContextManager[Connection]) -> Engine:
    with connecting as connection:
        return connection.engine


def _open_file(engine: Engine) -> closing[Any]:
    connection = engine.raw_connection()
    with closing(connection.cursor()) as cursor:
        cursor.execute("PRAGMA schema_version")  # SQLite opens a file at its first use
    return closing(connection)


def _connects_each_time(engine: Engine) -> bool:
    return isinstance(engine.pool, NullPool)


def _keep_connection(storage: SqlEventLogStorage) -> None:
    """Keep the process's connection. It is tried before each use, for the server may close it."""
    storage.optimize_for_webserver(
        statement_timeout=0,  # without an end, which is the servers' default
        pool_recycle=_RECYCLE,
        max_overflow=_OVERFLOW,
    )
    engine = _engine(storage.index_connection())
    if not _connects_each_time(engine):
        event.listen(engine, "checkout", _try_connection)


def _try_connection(connection: Any, _record: Any, _proxy: Any) -> None:
    try:
        with closing(connection.cursor()) as cursor:
            cursor.execute("SELECT 1")
    except Exception as exc:
        raise DisconnectionError from exc  # the pool connects again
