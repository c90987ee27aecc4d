"""Runs with several threads on PostgreSQL: statistics, stopping, and a plan meanwhile."""

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from integration.runner.harness import (
    PLANNED_AT,
    PROJECTS,
    RUN_AT,
    SQLMESH,
    ProjectCopy,
    asset_key,
    extras,
    sqlmesh,
)
from postgres_server import PostgresServer, postgres_server

pytestmark = pytest.mark.postgres

QUICK, AFTER = '"postgres"."marts"."quick"', '"postgres"."marts"."after"'
GATES = ['"postgres"."marts"."gate_a"', '"postgres"."marts"."gate_b"']
EXTRAS = extras([QUICK, AFTER, *GATES], selection="all", standalone_audits={})
RUN = ("run", "--execution-time", RUN_AT)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as server, pytest.MonkeyPatch.context() as environment:
        environment.setenv("GATES_HOST", str(server.socket))
        environment.setenv("GATES_PORT", str(server.port))
        yield server


@pytest.fixture(scope="module")
def planned(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, planned in a database that is kept as a template."""
    path = Path(
        shutil.copytree(
            PROJECTS / "locked_models", tmp_path_factory.mktemp("planned") / "locked_models"
        )
    )
    sqlmesh(
        path, "plan", "--auto-apply", "--no-prompts", "--skip-tests", "--execution-time", PLANNED_AT
    )
    server.execute("ALTER DATABASE postgres RENAME TO planned")
    return path


@pytest.fixture
def gates(server: PostgresServer, planned: Path, tmp_path: Path) -> ProjectCopy:
    """The project as it was planned, with nobody holding the lock."""
    server.execute(
        "DROP DATABASE IF EXISTS postgres WITH (FORCE)", "CREATE DATABASE postgres TEMPLATE planned"
    )
    return ProjectCopy(Path(shutil.copytree(planned, tmp_path / "project")))


@pytest.fixture
def session(server: PostgresServer, gates: ProjectCopy) -> Iterator[Any]:
    """A cursor of a session of one's own."""
    connection = server.connect()
    yield connection.cursor()
    connection.close()


@pytest.fixture
def held(session: Any) -> Any:
    """A cursor of a session that holds the lock."""
    session.execute("SELECT PG_ADVISORY_LOCK(42)")
    return session


def test_models_run_at_the_same_time_and_every_message_is_whole(gates: ProjectCopy) -> None:
    run = gates.run(extras=EXTRAS)

    assert (run.code, run.end["outcome"]) == (0, "success")
    assert run.materialized.keys() == {asset_key(fqn) for fqn in (QUICK, AFTER, *GATES)}
    assert [message["seq"] for message in run.messages] == list(range(len(run.messages)))


@pytest.mark.skipif(SQLMESH < (0, 212), reason="SQLMesh reported no statistics then")
def test_the_engines_row_counts_are_reported(gates: ProjectCopy) -> None:
    run = gates.run(extras=EXTRAS)

    assert run.materialized[asset_key(QUICK)]["sqlmesh/rows_processed"] == 5
    assert {event["rows"] for event in run.events("batch_finished") if event["model"] == QUICK} == {
        5
    }


def test_a_stop_cancels_the_queries_of_all_threads(gates: ProjectCopy, held: Any) -> None:
    with gates.start(*RUN, extras=EXTRAS) as runner:
        for gate in GATES:
            runner.wait_for("model_started", gate)
        runner.wait_for("batch_finished", QUICK)
        runner.signal(signal.SIGINT)
        run = runner.finish()

    assert (run.code, run.end["outcome"]) == (130, "interrupted")
    assert run.materialized.keys() == {asset_key(QUICK)}
    assert {run.skipped(fqn)["reason"] for fqn in (AFTER, *GATES)} == {"interrupted"}
    assert run.events("model_failed") == []
    held.execute(
        "SELECT COUNT(*) FROM pg_stat_activity "
        "WHERE query LIKE '%PG_ADVISORY_XACT_LOCK_SHARED%' AND pid <> PG_BACKEND_PID()"
    )
    assert held.fetchone() == (0,), "nothing goes on in the server"


def test_plan_during_run_reports_no_model_twice(gates: ProjectCopy, held: Any) -> None:
    with gates.start(*RUN, extras=EXTRAS) as runner:
        for gate in GATES:
            runner.wait_for("model_started", gate)
        runner.wait_for("batch_finished", QUICK)
        held.execute("UPDATE sqlmesh._environments SET plan_id = 'another'")
        held.execute("SELECT PG_ADVISORY_UNLOCK(42)")
        run = runner.finish()

    (restarted,) = run.events("run_restarted")
    assert restarted["attempt"] == 2
    assert (run.code, run.end["outcome"]) == (0, "success")
    assert run.materialized.keys() == {asset_key(fqn) for fqn in (QUICK, AFTER, *GATES)}
    assert {
        event["attempt"] for event in run.events("model_started") if event["model"] == AFTER
    } == {2}
    assert run.events("model_skipped") == run.events("model_failed") == []


def test_a_run_goes_on_once_the_plan_that_it_waits_for_is_done(
    gates: ProjectCopy, session: Any
) -> None:
    with (gates.path / "config.yaml").open("a") as config:
        config.write("run: {environment_check_interval: 1, environment_check_max_wait: 3600}\n")
    session.execute("UPDATE sqlmesh._environments SET finalized_ts = NULL")

    with gates.start(*RUN, extras=EXTRAS) as runner:
        runner.wait_for_log("Environment 'prod' is being changed by plan")
        session.execute("UPDATE sqlmesh._environments SET plan_id = 'another', finalized_ts = 1")
        run = runner.finish()

    assert (run.code, run.end["outcome"]) == (0, "success")
    assert run.events("run_started")[0]["plan_id"] == "another"


@pytest.mark.skipif(SQLMESH < (0, 220), reason="SQLMesh asked for more than --skip-backfill then")
def test_plan_during_run_switches_to_new_environment(gates: ProjectCopy, held: Any) -> None:
    """The plan removes a model that has not run, and adds one that Dagster knows and another."""
    plan = (
        "plan",
        "dev",
        "--include-unmodified",
        "--auto-apply",
        "--no-prompts",
        "--skip-tests",
        "--execution-time",
        "2026-01-02 00:00:00",
    )
    sqlmesh(gates.path, *plan)
    added, stranger = (AFTER.replace("after", name) for name in ("added", "stranger"))
    asked = extras(
        [QUICK, AFTER, added, *GATES], selection="all", standalone_audits={}, unplanned="skip"
    )
    with gates.start(*RUN, "--environment", "dev", "--row-counts", extras=asked) as runner:
        for gate in GATES:
            runner.wait_for("model_started", gate)
        runner.wait_for("batch_finished", QUICK)
        (gates.path / "models" / "after.sql").unlink()
        for name in ("added", "stranger"):
            (gates.path / "models" / f"{name}.sql").write_text(
                f"MODEL (name marts.{name}, kind FULL); SELECT 1 AS id"
            )
        sqlmesh(gates.path, *plan, "--skip-backfill")
        held.execute("SELECT PG_ADVISORY_UNLOCK(42)")
        run = runner.finish()

    assert (run.code, run.end["outcome"], len(run.events("run_restarted"))) == (0, "success", 1)
    assert run.materialized.keys() == {asset_key(fqn) for fqn in (QUICK, added, *GATES)}
    (started,) = run.events("run_started")
    held.execute("SELECT plan_id FROM sqlmesh._environments WHERE name = 'dev'")
    ((planned,),) = held.fetchall()
    assert run.materialized[asset_key(QUICK)]["sqlmesh/plan_id"] == started["plan_id"] != planned
    assert run.materialized[asset_key(added)]["sqlmesh/plan_id"] == planned
    assert run.materialized[asset_key(added)]["dagster/row_count"] == 1
    assert {event["model"]: event["reason"] for event in run.events("model_skipped")} == {
        AFTER: "not_planned"
    }
    assert run.end["unknown_models"] == [stranger]


def test_doctor_says_that_the_server_answers(gates: ProjectCopy) -> None:
    doctor = gates.command("doctor")

    assert doctor.code == 0
    assert "postgres, 4 concurrent tasks" in doctor.stdout


def test_state_lists_what_is_recorded(gates: ProjectCopy) -> None:
    document = json.loads(gates.command("state").stdout)

    recorded = {model["model"]: model["complete"] for model in document["models"]}
    assert recorded == dict.fromkeys([*GATES, QUICK, AFTER], True)
    again = json.loads(gates.command("state", "--since", document["cursor"]).stdout)
    assert (again["changed"], again["models"]) == (False, [])
