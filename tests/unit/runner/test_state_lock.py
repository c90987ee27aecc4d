"""The lock on a state without a database: who holds it in words, and engines that have none."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from sqlmesh.core.config import Config, DuckDBConnectionConfig, GatewayConfig
from sqlmesh.core.config.connection import RedshiftConnectionConfig

from sqlmesh_runner.errors import UnreachableError
from sqlmesh_runner.sqlmesh_api.advisory_locks import (
    AdvisoryLock,
    Holder,
    MySQLLock,
    PostgresLock,
    SQLServerLock,
)
from sqlmesh_runner.sqlmesh_api.lock import _StateLock, state_lock

SINCE = datetime(2026, 11, 30, 8, 1, 5, tzinfo=UTC)
RUN_ID = "4b8f2a1e-93f7-4d51-8f60-1c2d3e4f5a6b"


class FakeUser:
    def __init__(self) -> None:
        self.messages: list[str] = []

    def log(self, level: str, text: str) -> None:
        self.messages.append(f"{level} {text}")

    def pause(self, seconds: float) -> None:
        raise AssertionError

    def lock_lost(self, error: UnreachableError, *, is_last: bool) -> None:
        raise AssertionError


class FakeConnection:
    """A session that gives the same answer to everything."""

    def __init__(self, answer: Any) -> None:
        self.statements: list[str] = []
        self._answer = answer

    def cursor(self) -> "FakeConnection":
        return self

    def execute(self, statement: str) -> None:
        self.statements.append(statement)

    def fetchone(self) -> tuple[Any, ...]:
        return (self._answer,)

    def commit(self) -> None: ...

    def rollback(self) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (RUN_ID, f"Dagster run {RUN_ID}, since 2026-11-30 08:01:05 UTC"),
        ("ann@laptop:4711", "ann@laptop:4711, since 2026-11-30 08:01:05 UTC"),
    ],
)
def test_a_holders_text_is_parsed_as_it_was_written(name: str, shown: str) -> None:
    holder = Holder(name, SINCE)
    assert Holder.from_text(holder.to_text()) == holder
    assert str(holder) == shown


def test_a_holders_text_fits_and_needs_no_quoting() -> None:
    text = Holder("o'brien@" + "x" * 100 + ".example.com:4711", SINCE).to_text()
    assert len(text) <= 63
    assert "'" not in text
    assert Holder.from_text(text).name.endswith(".example.com:4711")


def test_a_foreign_text_is_a_holders_name() -> None:
    assert str(Holder.from_text("psql")) == "psql"
    assert str(Holder.from_text("sqlmesh ann yesterday")) == "sqlmesh ann yesterday"


@pytest.mark.parametrize("lock", [PostgresLock, MySQLLock, SQLServerLock])
def test_a_lock_is_named_by_its_state(lock: type[AdvisoryLock]) -> None:
    named = []
    for name in ("sqlmesh/1", "sqlmesh/1", "sqlmesh/2"):
        connection = FakeConnection(1)
        assert lock(connection, name).try_acquire(Holder("ann", SINCE))
        named.append(connection.statements)
    one, same, other = named
    assert one == same != other


@pytest.mark.parametrize(
    ("lock", "answer"), [(PostgresLock, False), (MySQLLock, 0), (SQLServerLock, -1)]
)
def test_a_lock_that_another_has_is_not_acquired(lock: type[AdvisoryLock], answer: Any) -> None:
    assert not lock(FakeConnection(answer), "sqlmesh/1").try_acquire(Holder("ann", SINCE))


@pytest.mark.parametrize(
    ("connection", "warns"),
    [
        (RedshiftConnectionConfig.model_construct(type_="redshift"), True),
        (DuckDBConnectionConfig(), False),
    ],
)
def test_engines_without_locks_are_warned_of_once(connection: Any, *, warns: bool) -> None:
    gateway = GatewayConfig.model_construct(connection=connection, state_connection=connection)
    config = Config.model_construct(gateways={"": gateway}, default_gateway="")
    context: Any = SimpleNamespace(config=config, gateway=None)
    user = FakeUser()
    with state_lock(context, user, name="ann"):
        pass
    assert len(user.messages) == warns
    assert not warns or user.messages[0].startswith("WARNING State in redshift has no locks")


def test_a_server_that_only_pretends_to_lock_is_warned_of() -> None:
    """CockroachDB has PostgreSQL's functions, and they do nothing."""
    connections = [FakeConnection(0), FakeConnection(0)]

    class Pretended(PostgresLock):
        def try_acquire(self, holder: Holder) -> bool:
            return True

    user = FakeUser()
    lock = _StateLock(lambda number: Pretended(connections[number - 1], "x"), user, "the state")
    lock.acquire("ann", None)
    lock.release()
    assert user.messages[0].startswith("WARNING The state's database has no locks")
