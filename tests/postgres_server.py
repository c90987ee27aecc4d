"""A PostgreSQL server of the tests' own: that of this machine, or one in a container."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2  # type: ignore[import-untyped,unused-ignore]  # one environment has its types
import pytest
from patience import wait_until

_SMALL_DISK = "size=3584k,mode=1777"
IMAGE = os.environ.get("TEST_POSTGRES_IMAGE", "postgres:16")


class NoServerError(Exception):
    """There is neither a PostgreSQL here nor an engine for containers."""


class PostgresServer:
    """A server on a Unix socket in `directory`, and on `port` of the loopback interface."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory
        self.port = free_port()
        directory.chmod(0o777)  # it runs as a user of its own
        self.is_container = not (shutil.which("postgres") and shutil.which("initdb"))
        if self.is_container and (shutil.which("docker") is None or _fails("docker", "info")):
            raise NoServerError
        data = "/tmp/data" if self.is_container else f"{directory}/data"
        addresses = "*" if self.is_container else "127.0.0.1"
        script = f"""\
            test -e {data} ||
            (initdb --no-sync --auth=trust --username=postgres --pgdata={data} &&
            echo 'host all all all trust' >> {data}/pg_hba.conf) &&
            exec postgres -D {data} -k {directory} -p {self.port} -c fsync=off \
                -c 'listen_addresses={addresses}'"""
        self._command = [*self._container(), "sh", "-c", script]
        self._process = self._start(self._command)

    def _container(self) -> list[str]:
        if not self.is_container:
            return []
        port = f"--publish=127.0.0.1:{self.port}:{self.port}"
        volume = f"--volume={self.socket}:{self.socket}"
        return [
            "docker", "run", f"--name={self.socket.name}", "--user=postgres", "--memory=1g", port,
            volume, f"--tmpfs=/var/tmp:{_SMALL_DISK}", "--entrypoint=", IMAGE,
        ]  # fmt: skip

    def _start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        # It refuses to run as root.
        user = "postgres" if os.getuid() == 0 and not self.is_container else None
        with (self.socket / "log").open("a") as log:
            return subprocess.Popen(command, user=user, cwd=self.socket, stdout=log, stderr=log)

    def connect(self, database: str = "postgres") -> Any:
        connection = psycopg2.connect(
            host=str(self.socket), port=self.port, user="postgres", dbname=database
        )
        connection.autocommit = True
        return connection

    def execute(self, *statements: str) -> None:
        """Run statements that need databases without sessions."""
        connection = self.connect("template1")
        for statement in statements:
            connection.cursor().execute(statement)
        connection.close()

    def fetch(self, query: str, *, database: str = "postgres") -> list[Any]:
        """Run a query, and return its rows."""
        connection = self.connect(database)
        try:
            cursor = connection.cursor()
            cursor.execute(query)
            rows: list[Any] = cursor.fetchall()
            return rows
        finally:
            connection.close()

    def answers(self) -> bool:
        assert self._process.poll() is None, (self.socket / "log").read_text()
        try:
            self.connect().close()
        except psycopg2.OperationalError:
            return False
        return True

    @contextmanager
    def small_disk(self) -> Iterator[str]:
        """Return a folder of the server's on a disk of 3.5 MB, or skip the test."""
        if self.is_container:
            yield "/var/tmp"
            return
        if os.getuid() != 0:
            pytest.skip("mounting a small disk takes root")
        folder = self.socket / "small"
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", _SMALL_DISK, "tmpfs", folder], check=True)
        try:
            yield str(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)
            folder.rmdir()

    def restart(self) -> None:
        """Cut all sessions, and be there again with the same data."""
        self._interrupt()
        again = ["docker", "start", "--attach", self.socket.name]
        self._process = self._start(again if self.is_container else self._command)
        wait_until(self.answers, "PostgreSQL answers again")

    def stop(self) -> None:
        self._interrupt()
        if self.is_container:
            _fails("docker", "rm", "--force", "--volumes", self.socket.name)

    def _interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait()


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Start a server, or skip the test (fail it, with REQUIRE_DOCKER=1)."""
    # Not in pytest's directory: another user must get there, and a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="pg") as directory:
        try:
            server = PostgresServer(Path(directory))
        except NoServerError as exc:
            if os.environ.get("REQUIRE_DOCKER") == "1":
                raise
            pytest.skip(str(exc.__doc__))
        try:
            wait_until(server.answers, "PostgreSQL answers")
            yield server
        finally:
            server.stop()


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _fails(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode != 0
