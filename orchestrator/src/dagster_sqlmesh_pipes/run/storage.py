"""Dagster's event log, while a step writes one result after the other to it."""

from contextlib import closing
from typing import Any

import dagster as dg
from dagster._core.storage.event_log import SqlEventLogStorage
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import NullPool

__all__ = ["keep_connections"]

_RECYCLE = 3600  # seconds
_OVERFLOW = 20  # connections at once, above the one that is kept


def keep_connections(instance: dg.DagsterInstance) -> None:
    """Let this process keep its connection to the event log, as Dagster's webserver does.

    Any other process of Dagster connects anew for each statement, three times or more for a result.
    To a database server that takes longer than the statements. The connection is tried before each
    use: one that the server has closed meanwhile is replaced. SQLite has no server, and stays as it
    is.
    """
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage) or not _connects_each_time(_engine(storage)):
        return
    storage.optimize_for_webserver(
        statement_timeout=0,  # without an end, which is the servers' default
        pool_recycle=_RECYCLE,
        max_overflow=_OVERFLOW,
    )
    engine = _engine(storage)
    if not _connects_each_time(engine):
        event.listen(engine, "checkout", _try_connection)


def _engine(storage: SqlEventLogStorage) -> Engine:
    with storage.index_connection() as connection:
        return connection.engine


def _connects_each_time(engine: Engine) -> bool:
    return isinstance(engine.pool, NullPool)


def _try_connection(connection: Any, _record: Any, _proxy: Any) -> None:
    try:
        with closing(connection.cursor()) as cursor:
            cursor.execute("SELECT 1")
    except Exception as exc:
        raise DisconnectionError from exc  # the pool connects again
