"""A PostgreSQL server for SQLMesh's project and Dagster's storage, and a project on DuckDB."""

import datetime
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2  # type: ignore[import-untyped]
import pytest
from acceptance.local.deployment import PROJECTS, Deployment, copy_of, preloaded_runner
from postgres_server import PostgresServer, postgres_server

LOCK = 42
"""The advisory lock at which the model of `locked_incremental` waits."""


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
        query = (
            "SELECT COUNT(*) FROM pg_locks"
            " WHERE locktype = 'advisory' AND NOT granted AND database = "
        )
        (count,) = self.ask(f"{query}(SELECT oid FROM pg_database WHERE datname = '{self.name}')")
        return int(count)


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def database(server: PostgresServer) -> Database:
    made = Database(server.port, f"test_{secrets.token_hex(4)}")
    server.execute(f"CREATE DATABASE {made.name}")
    return made


def planned_three_days_ago(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plan a project and make its manifest, once a session."""
    planned = tmp_path_factory.getbasetemp() / "three_days_ago" / name
    if not planned.exists():
        root = tmp_path_factory.mktemp(name)
        deployment = Deployment(
            root=root, project=Path(shutil.copytree(PROJECTS / name, root / name))
        )
        (deployment.project / "ready").touch()
        three_days_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=3)
        at = f"{three_days_ago:%Y-%m-%d}"
        deployment.sqlmesh("plan", "--auto-apply", "--no-prompts", "--execution-time", at)
        deployment.make_manifest()
        planned.parent.mkdir(exist_ok=True)
        deployment.project.rename(planned)  # a plan that fails leaves nothing there
    return planned


def deploy_planned(
    name: str,
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Deployment:
    """Deploy a copy of a project that was planned three days ago, also for this process."""
    project = copy_of(planned_three_days_ago(name, tmp_path_factory), tmp_path / name)
    deployment = Deployment(root=tmp_path, project=project, runner=preloaded_runner())
    deployment.make_home()
    for variable, value in deployment.environ().items():
        monkeypatch.setenv(variable, value)
    return deployment


@pytest.fixture
def deployment(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Deployment:
    """Deploy a model behind a signal, one that a cron restates, and one below each."""
    return deploy_planned("signals_and_restatements", tmp_path_factory, tmp_path, monkeypatch)
