"""A database that restarts or is full under a run; state and warehouse on two servers."""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from integration.runner.harness import (
    PLANNED_AT,
    PROJECTS,
    RUN_AT,
    ProjectCopy,
    asset_key,
    extras,
    sqlmesh,
)
from integration.runner.locked_project import APPENDED, DAYS, DUE, State
from patience import wait_until
from postgres_server import PostgresServer, postgres_server

pytestmark = pytest.mark.postgres

LARGE = DAYS.replace("days", "large")
LARGE_MODEL = """\
MODEL (
  name sales.large,
  kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 1, batch_concurrency 1)
);

SELECT
  t.day::DATE AS day,
  (SELECT STRING_AGG(MD5(s.i::TEXT || t.day::TEXT), '')
    FROM GENERATE_SERIES(1, 30000) AS s(i)) AS text
FROM GENERATE_SERIES(@start_date::DATE, @end_date::DATE, INTERVAL '1 day') AS t(day)
"""
RUN = ("run", "--execution-time", RUN_AT)
STATE_CONNECTION = """\
    state_connection: {{type: postgres, host: 127.0.0.1, port: {port}, user: postgres,
                       password: postgres, database: state}}
"""


@pytest.fixture(scope="module")
def servers(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """The servers of the warehouse and of the state."""
    with (
        postgres_server() as warehouse,
        postgres_server() as state,
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("LOCK_PORT", str(warehouse.port))
        environment.setenv("LOCK_DATABASE", "shop")
        environment.setenv("LOCK_GATE", str(tmp_path_factory.mktemp("gate") / "gate"))
        yield warehouse, state


@pytest.fixture(scope="module")
def planned(
    servers: tuple[PostgresServer, PostgresServer], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    warehouse, state = servers
    path = tmp_path_factory.mktemp("planned") / "locked_incremental"
    shutil.copytree(PROJECTS / "locked_incremental", path)
    config = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(
        config.replace("model_def", STATE_CONNECTION.format(port=state.port) + "model_def")
    )
    (path / "models" / "large.sql").write_text(LARGE_MODEL)
    warehouse.execute("CREATE DATABASE shop")
    state.execute("CREATE DATABASE state")
    plan = ("plan", "--auto-apply", "--no-prompts", "--skip-tests", "--execution-time", PLANNED_AT)
    sqlmesh(path, *plan)
    warehouse.execute("ALTER DATABASE shop RENAME TO planned")
    state.execute("ALTER DATABASE state RENAME TO planned")
    return path


@pytest.fixture
def state(servers: tuple[PostgresServer, PostgresServer], planned: Path, tmp_path: Path) -> State:
    for server, database in zip(servers, ("shop", "state"), strict=True):
        server.execute(
            f"DROP DATABASE IF EXISTS {database} WITH (FORCE)",
            f"CREATE DATABASE {database} TEMPLATE planned",
        )
    project = ProjectCopy(Path(shutil.copytree(planned, tmp_path / "one" / "project")))
    gate = Path(os.environ["LOCK_GATE"])
    for file in gate.parent.iterdir():
        file.unlink()
    return State(servers[0], project, gate)


def test_runs_wait_with_state_and_warehouse_on_two_servers(state: State) -> None:
    asked = extras([DAYS])
    with state.project.start(*RUN, extras=asked) as first, ExitStack() as stack:
        with state.held_back():
            wait_until(state.waiting_models, "the first is in its statement")
            second = stack.enter_context(state.copy().start(*RUN, extras=asked))
            second.wait_for_log("Waiting for run")
            assert state.waiting_models() == 1
        runs = first.finish(), second.finish()

    assert [run.code for run in runs] == [0, 0]
    assert state.rows("days") == (1 + DUE, 1 + DUE)


def test_restarted_state_database_ends_even_a_python_model(
    servers: tuple[PostgresServer, PostgresServer], state: State
) -> None:
    """It forgets who has the lock, and the next run may begin as soon as it is back."""
    asked = extras([APPENDED])
    state.gate.touch()
    with state.project.start(*RUN, "--cancel-grace", "3600", extras=asked) as first:
        wait_until(state.python_models, "the first is in its model")
        servers[1].restart()
        stopped = first.finish()
    state.gate.unlink()
    run = state.project.run(extras=asked)

    assert (stopped.code, stopped.end["outcome"]) == (4, "interrupted")
    assert "The lock on the SQLMesh state in schema 'sqlmesh' was lost" in stopped.end["error"]
    assert "nothing keeps other runs out" in stopped.end["error"]
    assert (run.code, state.rows("appended")) == (0, (1 + DUE, 1 + DUE))


def test_restarted_warehouse_fails_model_until_the_next_run(
    servers: tuple[PostgresServer, PostgresServer], state: State
) -> None:
    asked = extras([DAYS])
    with state.project.start(*RUN, extras=asked) as first:
        with state.held_back():
            wait_until(state.waiting_models, "the first is in its statement")
            servers[0].restart()
        failed = first.finish()
    run = state.project.run(extras=asked)

    assert (failed.code, failed.end["outcome"], failed.materialized) == (1, "failed", {})
    assert failed.failed(DAYS)["error"]
    assert (run.code, state.rows("days")) == (0, (1 + DUE, 1 + DUE))


def test_full_disk_of_the_warehouse_keeps_what_was_recorded(
    servers: tuple[PostgresServer, PostgresServer], state: State
) -> None:
    """Two of the model's three batches fit. The next run does the third."""
    warehouse, _ = servers
    with warehouse.small_disk() as folder:
        shell(warehouse, f"mkdir -p {folder}/data")
        warehouse.execute(
            "DROP TABLESPACE IF EXISTS small",  # of a failed try
            f"CREATE TABLESPACE small LOCATION '{folder}/data'",
        )
        ((table,),) = state.ask(
            "SELECT schemaname || '.' || tablename FROM pg_tables WHERE tablename ~ '^sales__large'"
        )
        state.ask(f"ALTER TABLE {table} SET TABLESPACE small; SELECT 1")
        failed = state.project.run(extras=extras([DAYS, LARGE]))
        filled = state.rows("large")
        state.ask(f"ALTER TABLE {table} SET TABLESPACE pg_default; SELECT 1")
        run = state.project.run(extras=extras([DAYS, LARGE]))
        warehouse.execute("DROP TABLESPACE small")

    assert (failed.code, failed.end["outcome"]) == (1, "failed")
    assert "No space left on device" in failed.failed(LARGE)["error"]
    recorded = failed.materialized[asset_key(LARGE)]
    assert (recorded["sqlmesh/batches"], recorded["sqlmesh/complete"]) == (2, False)
    assert failed.materialized[asset_key(DAYS)]["sqlmesh/complete"]
    assert filled == (DUE, DUE)
    assert run.materialized.keys() == {asset_key(LARGE)}
    assert (run.code, state.rows("large")) == (0, (1 + DUE, 1 + DUE))


def shell(server: PostgresServer, command: str) -> None:
    """Run a command where the server runs, as the server's user."""
    server.execute(f"COPY (SELECT 1) TO PROGRAM '{command}'")
