"""A PostgreSQL server for SQLMesh's project and Dagster's storage."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import docker
import psycopg2  # type: ignore[import-untyped]
import pytest
from docker.errors import DockerException
from patience import wait_until

IMAGE = os.environ.get("TEST_POSTGRES_IMAGE", "postgres:16")
LOOPBACK: Any = {"5432/tcp": ("127.0.0.1", None)}  # at any free port; the SDK's types know no None there
LOCK = 42
"""The advisory lock at which the model of `ticks_postgres` waits."""


@dataclass(frozen=True)
class Database:
    """A database of one test's own."""

    port: int
    name: str

    @property
    def url(self) -> str:
        return f"postgresql://postgres:postgres@127.0.0.1:{self.port}/{self.name}"

    def connect(self) -> Any:
        connection = psycopg2.connect(self.url)
        connection.autocommit = True
        return connection

    def ask(self, query: str) -> tuple[Any, ...]:
        connection = self.connect()
        try:
            with connection.cursor() as cursor:
                cursor.execute(query)
                row: tuple[Any, ...] = cursor.fetchone()
                return row
        finally:
            connection.close()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock at which models wait."""
        connection = self.connect()
        try:
            connection.cursor().execute(f"SELECT PG_ADVISORY_LOCK({LOCK})")
            yield
        finally:
            connection.close()

    def waiting(self) -> int:
        """Count the queries that wait at the lock."""
        query = "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = "
        (count,) = self.ask(f"{query}(SELECT oid FROM pg_database WHERE datname = '{self.name}')")
        return int(count)


@pytest.fixture(scope="session")
def server() -> Iterator[int]:
    """Start a server in a container and give its port, or skip (fail, with REQUIRE_DOCKER=1)."""
    try:
        client = docker.from_env()
        container: Any = client.containers.run(IMAGE, detach=True, environment={"POSTGRES_PASSWORD": "postgres"}, ports=LOOPBACK)
    except DockerException as exc:
        if os.environ.get("REQUIRE_DOCKER") == "1":
            raise
        pytest.skip(f"no PostgreSQL in a container: {exc}")
    try:
        container.reload()
        port = int(container.ports["5432/tcp"][0]["HostPort"])
        wait_until(lambda: _answers(port), "PostgreSQL answers", every=0.2)
        yield port
    finally:
        container.remove(force=True, v=True)
        client.close()


def _answers(port: int) -> bool:
    try:
        psycopg2.connect(host="127.0.0.1", port=port, user="postgres", password="postgres").close()
    except psycopg2.OperationalError:
        return False
    return True


@pytest.fixture
def database(server: int) -> Database:
    made = Database(server, f"test_{secrets.token_hex(4)}")
    connection = Database(server, "postgres").connect()
    connection.cursor().execute(f"CREATE DATABASE {made.name}")
    connection.close()
    return made
