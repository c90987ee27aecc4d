"""The lock on a state, on a real PostgreSQL: who gets it, who waits, and what ends it."""

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import integration.runner.quiet_sqlmesh  # noqa: F401 - before anything that imports SQLMesh
import pytest
from integration.runner.test_postgres import server
from patience import wait_until
from postgres_server import PostgresServer, free_port
from sqlmesh.core.config import Config, GatewayConfig
from sqlmesh.core.config.connection import PostgresConnectionConfig

from sqlmesh_runner.errors import (
    InterruptedRunError,
    LockTimeoutError,
    RunnerError,
    UnreachableError,
)
from sqlmesh_runner.sqlmesh_api.lock import state_lock

pytestmark = pytest.mark.postgres
__all__ = ["server"]

FIRST, SECOND = "4b8f2a1e-93f7-4d51-8f60-1c2d3e4f5a6b", "ann@laptop:4711"
HELD = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted ORDER BY pid"


@dataclass
class FakeUser:
    """Somebody who wants the lock."""

    messages: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    lost: list[RunnerError] = field(default_factory=list)
    is_unguarded: bool = False

    def log(self, level: str, text: str) -> None:
        self.messages.append(f"{level} {text}")

    def pause(self, seconds: float) -> None:
        if self.stop.wait(min(seconds, 0.05)):
            raise InterruptedRunError

    def lock_lost(self, error: UnreachableError, *, is_last: bool) -> None:
        self.lost.append(error)
        self.is_unguarded = is_last


Locker = Callable[..., AbstractContextManager[FakeUser]]


@pytest.fixture
def locked(server: PostgresServer) -> Locker:
    """A function that holds the lock for someone."""

    @contextmanager
    def lock(name: str = FIRST, *, user: FakeUser | None = None, **options: Any) -> Iterator[Any]:
        user = user or FakeUser()
        timeout = options.pop("timeout", None)
        context: Any = project(server, **options)
        with state_lock(context, user, name=name, timeout=timeout):
            yield user

    return lock


def project(
    server: PostgresServer, *, schema: str = "sqlmesh", database: str = "postgres", port: int = 0
) -> Any:
    """What the lock asks a SQLMesh context for."""
    connection = PostgresConnectionConfig(
        host="127.0.0.1", port=port or server.port, user="postgres", password="", database=database
    )
    gateway = GatewayConfig(connection=connection, state_schema=schema)
    config = Config(gateways={"server": gateway}, default_gateway="server")
    return SimpleNamespace(config=config, gateway=None, path=Path("shop"), selected_gateway="")


def cut(server: PostgresServer, *, which: int) -> None:
    """Cut one of the sessions that hold the lock, as an administrator would."""
    pid = server.fetch(HELD)[which][0]
    server.fetch(f"SELECT pg_terminate_backend({pid})")


def test_a_second_run_waits_and_learns_who_is_first(locked: Locker) -> None:
    second, entered = FakeUser(), threading.Event()

    def wait() -> None:
        with locked(SECOND, user=second):
            entered.set()

    waiting = threading.Thread(target=wait)
    with locked(FIRST):
        waiting.start()
        wait_until(lambda: second.messages, "the second says that it waits")
        assert not entered.is_set()
    waiting.join()

    assert entered.is_set()
    (message,) = second.messages
    assert message.startswith(f"INFO Waiting for Dagster run {FIRST}, since 20")
    assert message.endswith("to finish with the SQLMesh state in schema 'sqlmesh'.")


def test_lock_timeout_fails_with_the_holder(locked: Locker) -> None:
    with locked(SECOND), pytest.raises(LockTimeoutError) as failure, locked(timeout=0):
        pass

    assert failure.value.exit_code == 5
    assert str(failure.value).startswith(f"{SECOND}, since 20")
    assert "is at work on the SQLMesh state in schema 'sqlmesh'" in str(failure.value)


@pytest.mark.parametrize("other", [{"schema": "another"}, {"database": "template1"}])
def test_another_state_has_another_lock(locked: Locker, other: dict[str, str]) -> None:
    with locked(), locked(timeout=0, **other):
        pass


def test_a_stop_ends_the_wait(locked: Locker) -> None:
    user = FakeUser()
    user.stop.set()

    with locked(), pytest.raises(InterruptedRunError), locked(user=user):
        pass


def test_an_error_in_the_run_releases_the_lock(locked: Locker) -> None:
    with pytest.raises(ZeroDivisionError), locked():
        raise ZeroDivisionError
    with locked(timeout=5):  # PostgreSQL releases it a moment after its session has ended
        pass


@pytest.mark.parametrize("which", [0, 1])
def test_a_cut_session_is_noticed_and_lets_nobody_in(
    server: PostgresServer, locked: Locker, which: int
) -> None:
    with locked() as user:
        cut(server, which=which)
        wait_until(lambda: user.lost, "the loss is noticed")
        with pytest.raises(LockTimeoutError) as failure, locked(SECOND, timeout=1):
            pass

    assert f"Dagster run {FIRST}" in str(failure.value)
    assert not user.is_unguarded
    assert user.lost[0].exit_code == 4
    assert "in schema 'sqlmesh' was lost: " in str(user.lost[0])
    with locked(SECOND, timeout=5):
        pass


def test_cutting_both_sessions_leaves_a_run_unguarded(
    server: PostgresServer, locked: Locker
) -> None:
    """It is noticed when the server closes them, and not only by the next look at the lock."""
    with locked() as user:
        server.fetch(f"SELECT pg_terminate_backend(pid) FROM ({HELD}) AS held")
        wait_until(lambda: len(user.lost) == 2, "both losses are noticed")

    assert user.is_unguarded


def test_a_killed_runner_releases_though_its_forked_child_lives(
    server: PostgresServer, locked: Locker
) -> None:
    """A child as `multiprocessing` in a Python model makes it has copies of all descriptors."""
    reading, writing = os.pipe()
    runner = os.fork()
    if not runner:
        with locked():
            child = os.fork()
            if not child:
                signal.pause()
            os.write(writing, f"{child} {len(server.fetch(HELD))}".encode())
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(runner, 0)
    child, held = map(int, os.read(reading, 100).split())
    try:
        wait_until(lambda: not server.fetch(HELD), "the lock is released")
        assert held == 2
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(reading)
        os.close(writing)


def test_a_database_that_does_not_answer_is_unreachable(locked: Locker) -> None:
    with pytest.raises(UnreachableError, match="Reading the state of shop"), locked(port=1):
        pass


@pytest.fixture(params=["transaction", "session"])
def pooler(request: pytest.FixtureRequest, server: PostgresServer, tmp_path: Path) -> Iterator[int]:
    """A PgBouncer before the server; its port."""
    program = os.environ.get("TEST_PGBOUNCER") or shutil.which("pgbouncer")
    if program is None:
        pytest.skip("there is no PgBouncer here")
    port = free_port()
    config = tmp_path / "pgbouncer.ini"
    config.write_text(f"""
        [databases]
        * = host=127.0.0.1 port={server.port} user=postgres
        [pgbouncer]
        listen_addr = 127.0.0.1
        listen_port = {port}
        unix_socket_dir =
        auth_type = any
        pool_mode = {request.param}
        ignore_startup_parameters = extra_float_digits
        default_pool_size = 4
    """)
    tmp_path.chmod(0o755)
    user = "postgres" if os.getuid() == 0 else None
    command = [program, *(["--user", user] if user else []), str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "process up" in line:
                break
        yield port
        process.kill()


def test_a_connection_pooler_keeps_the_lock_with_its_holder(
    server: PostgresServer, locked: Locker, pooler: int
) -> None:
    """In transaction mode a session, and a lock of its own, is but lent to a client."""
    with locked(port=pooler) as user:
        with pytest.raises(LockTimeoutError), locked(SECOND, port=pooler, timeout=2):
            pass
        assert user.lost == []
        with pytest.raises(LockTimeoutError), locked(SECOND, timeout=0):  # past the pooler
            pass
    wait_until(lambda: not server.fetch(HELD), "nothing is left locked in the pool")
