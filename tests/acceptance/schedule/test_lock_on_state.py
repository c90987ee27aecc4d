"""The runner's lock, where Dagster's can't help: dead workers, other instances, shells."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dagster as dg
import pytest
from acceptance.local.deployment import RUNNER_BIN, Deployment
from acceptance.local.test_termination import parent_of, runners
from acceptance.local.webserver import webserver
from acceptance.schedule.conftest import Database
from acceptance.schedule.test_lock_on_postgres import ROWS, deployed
from patience import PATIENCE, wait_until

pytestmark = pytest.mark.postgres

APPENDED = ROWS.replace("sales.days", "sales.appended")
LOCK_SESSIONS = (
    "SELECT ARRAY_AGG(pid) FROM pg_locks AS l JOIN pg_stat_activity USING (pid) "
    "WHERE l.locktype = 'advisory' AND l.granted AND application_name LIKE 'sqlmesh %'"
)


def run_id_of(deployment: Deployment) -> str:
    with deployment.instance() as instance:
        (record,) = instance.get_run_records(limit=1)
        return record.dagster_run.run_id


def is_materialized(deployment: Deployment, model: str) -> bool:
    with deployment.instance() as instance:
        entries = [record.asset_entry for record in instance.get_asset_records()]
        return any(
            entry.last_materialization for entry in entries if entry.asset_key.path[-1] == model
        )


def wait_until_stored(deployment: Deployment, run_id: str) -> None:
    """Wait until a step whose model waits at the lock has stored all that came before.

    Who stops it, or cuts its connections, would else do so while it writes.
    """
    wait_until(lambda: is_materialized(deployment, "appended"), "the first model is stored")
    wait_until(lambda: deployment.log_has(run_id, " is running: "), "the model's start is stored")


@contextmanager
def shell(deployment: Deployment) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Run the project as a person does, without Dagster; give the process and its output's file."""
    output = deployment.root / "shell.log"
    with output.open("w") as log:
        process = subprocess.Popen(
            [str(RUNNER_BIN / "sqlmesh-runner"), "run"],
            cwd=deployment.project,
            env=deployment.environ(),
            stdout=log,
            stderr=log,
            text=True,
        )
    try:
        yield process, output
    finally:
        process.kill()
        process.wait()


def test_a_shell_waits_for_a_dagster_run(tmp_path: Path, database: Database) -> None:
    deployment = deployed(tmp_path, database, storage="sqlite")
    with ExitStack() as stack:
        held = stack.enter_context(ExitStack())
        held.enter_context(database.held())
        worker, log = stack.enter_context(deployment.executing())
        wait_until(database.waiting, "the Dagster run's model waits")
        person, output = stack.enter_context(shell(deployment))
        waiting = f"Waiting for Dagster run {run_id_of(deployment)}, since "
        wait_until(lambda: waiting in output.read_text(), "the shell says that it waits")
        assert database.waiting() == 1
        held.close()
        assert worker.wait(PATIENCE) == 0, log.read_text()
        assert person.wait(PATIENCE) == 0, output.read_text()
    rows, days = database.ask(ROWS)
    assert rows == days


def test_after_a_frozen_step_of_a_dead_worker_the_next_run_waits(
    tmp_path: Path, database: Database
) -> None:
    """Dagster's word for a run ends its own lock. Its runner may be at work for long after."""
    deployment = deployed(tmp_path, database, storage="sqlite")
    with webserver(deployment) as server, ExitStack() as held:
        held.enter_context(database.held())
        first = server.launch()
        wait_until(database.waiting, "the model waits")
        wait_until_stored(deployment, first)  # it would keep SQLite's lock
        (runner,) = runners(deployment)
        step = parent_of(runner)
        os.kill(step, signal.SIGSTOP)
        os.kill(parent_of(step), signal.SIGKILL)
        wait_until(
            lambda: deployment.status(first) == dg.DagsterRunStatus.FAILURE, "Dagster ends the run"
        )
        second = server.launch()
        wait_until(
            lambda: deployment.log_has(second, f"Waiting for Dagster run {first}, since "),
            "the next run says that it waits",
        )
        assert database.waiting() == 1
        os.kill(step, signal.SIGKILL)  # its runner stops by itself
        wait_until(database.waiting, "the next run's model waits")
        held.close()
        wait_until(
            lambda: deployment.status(second) == dg.DagsterRunStatus.SUCCESS, "the next run is done"
        )
    rows, days = database.ask(ROWS)
    assert rows == days


def test_another_instance_waits_for_a_killed_steps_python_model(
    tmp_path: Path, database: Database
) -> None:
    """Nothing cancels Python. The model only appends, so its rows double where two runs meet."""
    deployment = deployed(tmp_path, database, storage="sqlite")
    planned, _ = database.ask(APPENDED)
    (tmp_path / "other").mkdir()
    other = Deployment(root=tmp_path / "other", project=deployment.project, env=deployment.env)
    other.write()
    for marker in tmp_path.glob("gate.*"):
        marker.unlink()  # of the plan
    gate = tmp_path / "gate"
    gate.touch()
    with deployment.executing() as (worker, _):
        wait_until(lambda: list(tmp_path.glob("gate.*")), "the model is at work")
        first = run_id_of(deployment)
        (runner,) = runners(deployment)
        with other.executing() as (another, log):
            waiting = f"Waiting for Dagster run {first}, since "
            wait_until(lambda: waiting in log.read_text(), "the other instance waits")
            for pid in (worker.pid, parent_of(runner)):
                os.kill(pid, signal.SIGKILL)
            gate.unlink()
            assert another.wait(PATIENCE) == 0, log.read_text()
    rows, days = database.ask(APPENDED)
    assert rows == days > planned


def test_a_run_whose_lock_is_cut_fails_and_says_so(tmp_path: Path, database: Database) -> None:
    deployment = deployed(tmp_path, database, storage="sqlite")
    with database.held(), deployment.executing() as (worker, _):
        wait_until(database.waiting, "the model waits")
        (sessions,) = database.ask(LOCK_SESSIONS)
        assert len(sessions) == 2
        database.ask(f"SELECT pg_terminate_backend({sessions[0]})")
        worker.wait(PATIENCE)
    run = deployment.last_run()
    assert run.status == "FAILURE"
    assert "The lock on the SQLMesh state in schema 'sqlmesh' was lost: " in run.error
    assert deployment.execute().success
    rows, days = database.ask(ROWS)
    assert rows == days
