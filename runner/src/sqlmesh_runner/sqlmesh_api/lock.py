"""One run at a time on a SQLMesh state, wherever it is started.

SQLMesh has no lock on a run, and two runs at once double rows, also in different environments: what
is the same in both is one table. All runs on one state have its database in common, so a run takes
a lock there before it reads the state. The database releases it when the runner ends, however it
ends.

The lock is two locks on two sessions, taken in order. A session may be cut while its run is at
work; the other one keeps others out until that run has stopped. A database that restarts cuts both
at once: the run ends then without waiting for its models.
"""

import getpass
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from dagster_pipes import PipesContext
from sqlmesh import Context
from sqlmesh.core import constants

from sqlmesh_runner.errors import (
    InterruptedRunError,
    LockTimeoutError,
    UnreachableError,
    describe,
)
from sqlmesh_runner.job import Job
from sqlmesh_runner.options import JobOptions
from sqlmesh_runner.recording.events import LogLevel
from sqlmesh_runner.sqlmesh_api.advisory_locks import (
    AdvisoryLock,
    Holder,
    MySQLLock,
    PostgresLock,
    SQLServerLock,
)
from sqlmesh_runner.sqlmesh_api.errors import sqlmesh_errors

__all__ = ["LockUser", "job_lock", "process_name", "state_lock"]

_LOCKS: Final[Mapping[str, type[AdvisoryLock]]] = {
    "postgres": PostgresLock,
    "gcp_postgres": PostgresLock,
    "mysql": MySQLLock,
    "mssql": SQLServerLock,
    "azuresql": SQLServerLock,
}
"""By SQLMesh's types of connections."""
_POLL_EVERY: Final = 1.0  # seconds between looks at a lock that another has
_REMIND_EVERY: Final = 60.0  # seconds between messages about it
_BEAT_EVERY: Final = 2.0  # seconds between looks at one's own
_JOIN: Final = 5.0  # seconds; a database that has stopped answering must not keep a run from ending


class LockUser(Protocol):
    """The user of a lock: it gets log messages, and decides how to wait."""

    def log(self, level: LogLevel, text: str) -> None:
        """Log a message."""

    def pause(self, seconds: float) -> None:
        """Wait so long, or raise an InterruptedRunError because the run is to stop."""

    def lock_lost(self, error: UnreachableError, *, is_last: bool) -> None:
        """Stop the run. Called in another thread for each session that is cut.

        Args:
            error: what happened.
            is_last: nothing keeps others out any more.
        """


@contextmanager
def state_lock(
    context: Context, user: LockUser, *, name: str, timeout: float | None = None
) -> Iterator[None]:
    """Keep other runs out of the project's state, in all its environments, while the context lasts.

    A DuckDB file is a lock by itself: who opens it second gets an error. PostgreSQL, MySQL and SQL
    Server have locks; for any other database this logs a warning and keeps nobody out.

    Args:
        context: the project, of which no state was read yet.
        user: who asks.
        name: what others are shown: a Dagster run's id, or `user@host:process`.
        timeout: seconds to wait for another run at most; 0: not at all; None: without an end.

    Raises:
        LockTimeoutError: another run is at work, and the timeout is over.
        UnreachableError: the state's database does not answer.
    """
    connection = context.config.get_state_connection(context.gateway) or (
        context.config.get_connection(context.gateway)
    )
    if connection.type_ not in _LOCKS:
        if connection.type_ != "duckdb":
            user.log("WARNING", _NO_LOCKS.format(f"State in {connection.type_}"))
        yield
        return
    schema = context.config.get_state_schema(context.gateway) or constants.SQLMESH

    def open_lock(number: int) -> AdvisoryLock:
        lock = _LOCKS[connection.type_]
        return lock(connection.create_engine_adapter().connection, f"{schema}/{number}")

    lock = _StateLock(open_lock, user, f"the SQLMesh state in schema {schema!r}")
    reading_state = f"Reading the state of {context.path} (gateway {context.selected_gateway})"
    with ExitStack() as stack:
        with sqlmesh_errors(reading_state, otherwise=UnreachableError):
            stack.callback(lock.release)
            lock.acquire(name, timeout)
        yield


@contextmanager
def job_lock(job: Job[JobOptions], context: Context) -> Iterator[None]:
    """Hold the lock for a job, in its Dagster run's name where there is one.

    Raises:
        InterruptedRunError: the job was asked to stop while it waited.
        LockTimeoutError: another run is at work, and `--lock-timeout` is over.
        UnreachableError: the state's database does not answer.
    """
    if job.options.no_lock:
        yield
        return
    in_dagster = PipesContext.is_initialized()
    name = PipesContext.get().run_id if in_dagster else process_name()
    with state_lock(context, _JobUser(job), name=name, timeout=job.options.lock_timeout):
        yield


class _JobUser:
    """A job as the user of a lock."""

    def __init__(self, job: Job[JobOptions]) -> None:
        self._job = job

    def log(self, level: LogLevel, text: str) -> None:
        self._job.recorder.log_runner(level, text)

    def pause(self, seconds: float) -> None:
        stop = self._job.stop
        stop.pause(seconds)
        if stop.requested:
            raise InterruptedRunError(stop.reason)

    def lock_lost(self, error: UnreachableError, *, is_last: bool) -> None:
        self._job.stop.request(str(error), error.exit_code)
        if is_last:
            self._job.stop.hurry("nothing keeps other runs out, so it was not waited for SQLMesh")


def process_name() -> str:
    """Return how others know this process: `user@host:process`."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # in a container, a user may be but a number
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}:{os.getpid()}"


_NO_LOCKS: Final = (
    "{} has no locks that end with their session: only Dagster's own lock keeps runs apart, in one "
    "instance. Start none from elsewhere meanwhile: two at once double rows."
)


@dataclass
class _Wait:
    """How long a run has waited, and when it last said so."""

    began: float
    reminded: float | None = None


class _StateLock:
    """Two advisory locks, and a thread that sees to it that they are still held."""

    def __init__(self, open_lock: Callable[[int], AdvisoryLock], user: LockUser, what: str) -> None:
        self._open = open_lock
        self._user = user
        self._what = what
        self._locks: list[AdvisoryLock] = []
        self._released = threading.Event()
        self._wake, self._waker = os.pipe()
        self._heartbeat = threading.Thread(target=self._beat, name="sqlmesh-lock", daemon=True)

    def acquire(self, name: str, timeout: float | None) -> None:
        wait = _Wait(time.monotonic())
        for number in (1, 2):
            lock = self._open(number)
            self._locks.append(lock)
            while not lock.try_acquire(Holder(name, datetime.now(UTC))):
                self._wait(lock, wait, timeout)
        if not all(lock.is_held() for lock in self._locks):
            self._user.log("WARNING", _NO_LOCKS.format("The state's database"))
            return
        self._heartbeat.start()

    def _wait(self, lock: AdvisoryLock, wait: _Wait, timeout: float | None) -> None:
        waited = time.monotonic() - wait.began
        remind = wait.reminded is None or waited - wait.reminded >= _REMIND_EVERY
        over = timeout is not None and waited >= timeout
        if remind or over:
            who = lock.holder() or "another run"
            if over:
                raise LockTimeoutError(str(who), self._what, waited)
            wait.reminded = waited
            self._user.log("INFO", f"Waiting for {who} to finish with {self._what}.")
        left = _POLL_EVERY if timeout is None else min(_POLL_EVERY, timeout - waited)
        self._user.pause(left)

    def release(self) -> None:
        """End the sessions. What this process does not get to, the database does."""
        self._released.set()
        os.close(self._waker)  # ends a pause
        if self._heartbeat.is_alive():
            self._heartbeat.join(_JOIN)
        for lock in reversed(self._locks):
            lock.close()

    def _beat(self) -> None:
        held = list(self._locks)
        while held:
            self._pause(held)
            for lock in [*held]:
                loss = _loss(lock)
                if self._released.is_set():
                    return
                if loss is not None:
                    held.remove(lock)
                    self._user.lock_lost(self._lost(loss), is_last=not held)

    def _pause(self, held: Sequence[AdvisoryLock]) -> None:
        """Wait for the next look at the locks: at once if the database closes a session."""
        poll = select.poll()
        poll.register(self._wake, select.POLLHUP)
        for lock in held:
            if lock.descriptor is not None:
                poll.register(lock.descriptor, select.POLLIN)
        poll.poll(_BEAT_EVERY * 1000)

    def _lost(self, why: str) -> UnreachableError:
        return UnreachableError(
            f"The lock on {self._what} was lost: {why}. Without it another run may begin, so this "
            "one was stopped. What it recorded stays; start it again for the rest."
        )


def _loss(lock: AdvisoryLock) -> str | None:
    """Return why a lock is not held any more; None if it is."""
    try:
        return None if lock.is_held() else "it is not held"
    except Exception as exc:  # noqa: BLE001 - whatever a driver raises for a session that is gone
        return " ".join(describe(exc).split()).rstrip(".")
