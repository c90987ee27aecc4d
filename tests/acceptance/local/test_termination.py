"""Terminating a run or killing its processes reports what was recorded and leaves no process."""

import os
import signal
from pathlib import Path

import dagster as dg
import pytest
from acceptance.local.conftest import Deploy
from acceptance.local.deployment import RUNNER, Deployment, processes_with
from acceptance.local.planned import RUN_AT
from acceptance.local.webserver import webserver
from patience import PATIENCE, wait_until


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def runners(deployment: Deployment) -> list[int]:
    return list(processes_with(f"sqlmesh-runner run --project-dir {deployment.project}"))


@pytest.fixture
def deployment(deploy: Deploy) -> Deployment:
    """Deploy the slow model. Its runner has two seconds to stop."""
    return deploy("slow_model", runner=RUNNER, launcher="stop_grace=2, kill_grace=5")


def test_terminated_run_reports_what_was_recorded(deployment: Deployment) -> None:
    held = deployment.project / "wait_here"
    held.touch()
    with webserver(deployment) as server:
        run_id = server.launch(execution_time=RUN_AT)
        wait_until(
            lambda: deployment.log_has(run_id, '"late"."late"."slow" is running'),
            "the slow model is at work",
        )
        server.terminate(run_id)
        wait_until(
            lambda: deployment.status(run_id) == dg.DagsterRunStatus.CANCELED,
            "the run is cancelled",
        )
    run = deployment.last_run()
    assert set(run.materialized) == {"early", "middle"}
    assert "Asking process" in run.messages
    wait_until(lambda: not runners(deployment), "the runner is gone")
    held.unlink()
    rest = deployment.materialize("*", config={"execution_time": RUN_AT})
    assert rest.success, rest.output
    assert set(rest.materialized) == {"slow"}


INTERRUPT_ON_STORING = """
import os, signal, time
from pathlib import Path
from dagster._core.storage.event_log import SqliteEventLogStorage

store_event = SqliteEventLogStorage.store_event

def store_and_interrupt(self, event):
    store_event(self, event)
    stored = event.asset_materialization
    if stored is not None and stored.asset_key.path[-1] == "early":
        while not Path({at_work!r}).exists():
            time.sleep(0.05)
        os.killpg(0, signal.SIGINT)

SqliteEventLogStorage.store_event = store_and_interrupt
"""
"""Interrupt the process group, as Ctrl-C does, while the first result is stored.

It waits until the last model runs.
"""


@pytest.mark.parametrize("executor", ["in_process_executor", "multiprocess_executor"])
def test_ctrl_c_while_storing_loses_no_result(deployment: Deployment, executor: str) -> None:
    definitions = deployment.definitions.read_text()
    interrupted = definitions.replace("dg.Definitions(", f"dg.Definitions(executor=dg.{executor}, ")
    deployment.write_definitions(
        INTERRUPT_ON_STORING.format(at_work=str(deployment.project / "at_work")) + interrupted
    )
    held = deployment.project / "wait_here"
    held.touch()
    (deployment.project / "at_work").unlink()  # from its plan
    with deployment.executing(config={"execution_time": RUN_AT}) as (worker, _):
        worker.wait(PATIENCE)
    assert not runners(deployment)
    run = deployment.last_run()
    assert run.status == "FAILURE"
    assert set(run.materialized) == {"early", "middle"}
    assert run.verdicts.keys() == {
        ("early", "not_null"),
        ("early", "number_of_rows"),
        ("middle", "unique_values"),
    }
    held.unlink()
    deployment.write_definitions(definitions)
    assert set(deployment.materialize("*", config={"execution_time": RUN_AT}).materialized) == {
        "slow"
    }


def test_no_runner_outlives_a_killed_step_process(deployment: Deployment) -> None:
    (deployment.project / "wait_here").touch()
    with deployment.executing(config={"execution_time": RUN_AT}) as (worker, log):
        wait_until(lambda: 'slow" is running' in log.read_text(), "the slow model is at work")
        (runner,) = runners(deployment)
        for pid in (worker.pid, parent_of(runner)):
            os.kill(pid, signal.SIGKILL)
        worker.wait(PATIENCE)
        wait_until(lambda: not runners(deployment), "the runner is gone")


def test_no_runner_outlives_a_killed_run_worker(deployment: Deployment) -> None:
    """Its step process goes on, and finds that Dagster has ended the run."""
    (deployment.project / "wait_here").touch()
    with webserver(deployment) as server:
        run_id = server.launch(execution_time=RUN_AT)
        wait_until(
            lambda: deployment.log_has(run_id, '"late"."late"."slow" is running'),
            "the slow model is at work",
        )
        (runner,) = runners(deployment)
        os.kill(parent_of(parent_of(runner)), signal.SIGKILL)
        wait_until(lambda: not runners(deployment), "the runner is gone")
        assert deployment.status(run_id) == dg.DagsterRunStatus.FAILURE
