"""Locks that a database holds for a session and releases when that session ends, however it ends.

The statements have no parameters, because drivers disagree on how to write them: names of locks are
hexadecimal digits, and a holder's name is kept to signs that need no quoting.
"""

import abc
import hashlib
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

__all__ = ["AdvisoryLock", "Holder", "MySQLLock", "PostgresLock", "SQLServerLock"]

_LONGEST_NAME: Final = 38  # characters; PostgreSQL cuts an application's name after 63
_CLIENT_TIMEOUT: Final = 20_000  # milliseconds; less than a server takes to find a client gone
_RUN_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIME: Final = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class Holder:
    """Who has a lock: a Dagster run, by its id, or a process of a person's (`ann@laptop:4711`)."""

    name: str
    since: datetime | None = None

    def __str__(self) -> str:
        known_run = _RUN_ID.fullmatch(self.name) is not None
        who = f"Dagster run {self.name}" if known_run else self.name
        return who if self.since is None else f"{who}, since {self.since:%Y-%m-%d %H:%M:%S} UTC"

    def to_text(self) -> str:
        """Return what others read, in at most 63 ASCII characters that need no quoting."""
        name = re.sub(r"[^\w@.:-]", "_", self.name, flags=re.ASCII)[-_LONGEST_NAME:]
        since = (self.since or datetime.now(UTC)).strftime(_TIME)
        return f"sqlmesh {name} {since}"

    @classmethod
    def from_text(cls, text: str) -> "Holder":
        """Parse what another holder left to read; any other text is its name."""
        match text.split(" "):
            case ["sqlmesh", name, since]:
                with suppress(ValueError):
                    return cls(name, datetime.strptime(since, _TIME).replace(tzinfo=UTC))
        return cls(text)


class AdvisoryLock(abc.ABC):
    """One database session and the lock that it may hold. One thread at a time may use it."""

    def __init__(self, connection: Any, name: str) -> None:
        self._connection = connection
        self._digest = hashlib.sha256(f"sqlmesh-runner/{name}".encode()).hexdigest()
        self.descriptor = _socket_of(connection)
        """The session's socket, where the driver shows it: readable when the server closes it."""
        self._prepare()

    @abc.abstractmethod
    def _prepare(self) -> None:
        """Set up the session."""

    @abc.abstractmethod
    def try_acquire(self, holder: Holder) -> bool:
        """Acquire the lock if it is free, and record its holder. Return whether it was acquired."""

    @abc.abstractmethod
    def is_held(self) -> bool:
        """Ask the database whether this session holds the lock."""

    @abc.abstractmethod
    def holder(self) -> Holder | None:
        """Return who has the lock; None for nobody, or if the database does not tell."""

    def close(self) -> None:
        """End the session, and with it the lock."""
        self._forget_socket()
        with suppress(Exception):  # it may have been cut
            self._connection.close()

    def _ask(self, query: str) -> Any:
        """Return the first value of the first row, None without rows."""
        with self._execute(query) as cursor:
            row = cursor.fetchone()
        return row[0] if row else None

    def _run(self, statement: str) -> None:
        with self._execute(statement):
            pass

    @contextmanager
    def _execute(self, statement: str) -> Iterator[Any]:
        cursor = self._connection.cursor()
        try:
            cursor.execute(statement)
            yield cursor
        except Exception:
            self._forget_socket()  # a driver that finds its session gone closes it
            raise
        finally:
            cursor.close()

    def _forget_socket(self) -> None:
        if self.descriptor is not None:
            _SOCKETS.discard(self.descriptor)
            self.descriptor = None


class PostgresLock(AdvisoryLock):
    """PostgreSQL's advisory locks: of one database, and named by 64 bits.

    A connection pooler (PgBouncer) may give each transaction another session, so that a session's
    lock would be held by nobody in particular. It is known by the process id that it makes up for
    its clients. There one transaction stays open, which every pool keeps on one session.
    """

    # A server notices in a minute, not in hours, that a client's machine is gone.
    _KEEPALIVE: ClassVar = (
        "SELECT set_config('tcp_keepalives_idle', '30', false), "
        "set_config('tcp_keepalives_interval', '10', false), "
        "set_config('tcp_keepalives_count', '3', false)"
    )

    def _prepare(self) -> None:
        announced = getattr(getattr(self._connection, "info", None), "backend_pid", None)
        actual = self._ask("SELECT pg_backend_pid()")
        self._pooled = announced is not None and announced != actual
        self._key = int.from_bytes(bytes.fromhex(self._digest[:16]), "big", signed=True)
        if not self._pooled:
            self._run(self._KEEPALIVE)
        self._connection.commit()

    def try_acquire(self, holder: Holder) -> bool:
        """Acquire the lock if it is free, and return whether it was."""
        function = "pg_try_advisory_xact_lock" if self._pooled else "pg_try_advisory_lock"
        acquired = bool(self._ask(f"SELECT {function}({self._key})"))
        if acquired:
            local = "LOCAL " if self._pooled else ""
            self._run(f"SET {local}application_name = '{holder.to_text()}'")
        if not self._pooled:
            self._connection.commit()  # a session's lock stays; idle transactions alarm people
        elif not acquired:
            self._connection.rollback()
        return acquired

    def is_held(self) -> bool:
        """Return whether this session still holds the lock."""
        held = self._ask(f"SELECT COUNT(*) {self._granted()} AND l.pid = pg_backend_pid()")
        if not self._pooled:
            self._connection.commit()
        return bool(held)

    def holder(self) -> Holder | None:
        """Return who holds the lock, as far as the server says."""
        text = self._ask(
            f"SELECT (SELECT a.application_name FROM pg_stat_activity AS a WHERE a.pid = l.pid) "
            f"{self._granted()}"
        )
        self._connection.rollback()
        return Holder.from_text(text) if text else None

    def _granted(self) -> str:
        # A key of 64 bits is shown as two numbers, with 1 in the third.
        high, low = (self._key >> 32) & 0xFFFFFFFF, self._key & 0xFFFFFFFF
        return (
            "FROM pg_locks AS l WHERE l.locktype = 'advisory' AND l.granted AND l.database = "
            "(SELECT oid FROM pg_database WHERE datname = current_database()) "
            f"AND l.classid = {high} AND l.objid = {low} AND l.objsubid = 1"
        )


class MySQLLock(AdvisoryLock):
    """MySQL's and MariaDB's user-level locks: of one server (of one node, in a cluster)."""

    def _prepare(self) -> None:
        self._name = f"sqlmesh-runner/{self._digest[:40]}"
        # Without this, a server keeps the session of a machine that is gone for eight hours.
        self._run("SET SESSION wait_timeout = 60")

    def try_acquire(self, holder: Holder) -> bool:  # noqa: ARG002 - sessions have no name there
        """Acquire the lock if it is free, and return whether it was."""
        return bool(self._ask(f"SELECT GET_LOCK('{self._name}', 0)"))

    def is_held(self) -> bool:
        """Return whether this session still holds the lock."""
        return bool(self._ask(f"SELECT IS_USED_LOCK('{self._name}') = CONNECTION_ID()"))

    def holder(self) -> Holder | None:
        """Return who holds the lock, as far as the server says."""
        text = self._ask(
            "SELECT CONCAT(user, '@', host, ', connection ', id) "
            f"FROM information_schema.processlist WHERE id = IS_USED_LOCK('{self._name}')"
        )
        return Holder(text) if text else None


class SQLServerLock(AdvisoryLock):
    """SQL Server's application locks: of one database."""

    def _prepare(self) -> None:
        self._connection.commit()

    def try_acquire(self, holder: Holder) -> bool:  # noqa: ARG002 - sessions have no name there
        """Acquire the lock if it is free, and return whether it was."""
        result = self._ask(
            "SET NOCOUNT ON; DECLARE @result INT; EXEC @result = sp_getapplock "
            f"@Resource = '{self._digest}', @LockMode = 'Exclusive', @LockOwner = 'Session', "
            "@LockTimeout = 0; SELECT @result"
        )
        self._connection.commit()
        return result is not None and int(result) >= 0

    def is_held(self) -> bool:
        """Return whether this session still holds the lock."""
        mode = self._ask(f"SELECT APPLOCK_MODE('public', '{self._digest}', 'Session')")
        self._connection.commit()
        return bool(mode == "Exclusive")

    def holder(self) -> Holder | None:
        """Return who holds the lock, as far as the server says."""
        try:
            text = self._ask(
                "SELECT CONCAT(s.login_name, '@', s.host_name, ':', s.host_process_id) "
                "FROM sys.dm_tran_locks AS l JOIN sys.dm_exec_sessions AS s "
                "ON s.session_id = l.request_session_id WHERE l.resource_type = 'APPLICATION' "
                "AND l.request_status = 'GRANT' "
                f"AND l.resource_description LIKE '%{self._digest[:32]}%'"
            )
        except Exception:  # noqa: BLE001 - it takes a permission, VIEW SERVER STATE
            text = None
        self._connection.rollback()
        return Holder(text) if text else None


def _socket_of(connection: Any) -> int | None:
    """Return a connection's descriptor, where the driver has one, after setting it up."""
    try:
        descriptor: int = connection.fileno()
    except Exception:  # noqa: BLE001 - drivers without one say so in many ways
        return None
    _SOCKETS.add(descriptor)
    with (
        suppress(OSError, AttributeError),  # a Unix socket, or another system
        socket.socket(fileno=os.dup(descriptor)) as duplicate,
    ):
        duplicate.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _CLIENT_TIMEOUT)
    return descriptor


_SOCKETS: Final[set[int]] = set()


def _forget_sockets() -> None:
    """Let a forked child (`multiprocessing` in a Python model) neither keep nor end a session."""
    if _SOCKETS:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in _SOCKETS:
            os.dup2(nowhere, descriptor)
        os.close(nowhere)


os.register_at_fork(after_in_child=_forget_sockets)
