"""Terminating a run, and killing its processes: what was recorded is reported, and nothing goes on."""

import json
import os
import signal
from pathlib import Path

import dagster as dg
from acceptance.local.conftest import Deploy, wait_until
from acceptance.local.deployment import Deployment, processes_with
from acceptance.local.webserver import webserver


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def runners(deployment: Deployment) -> list[int]:
    return list(processes_with(f"sqlmesh-runner run --project-dir {deployment.project}"))


def test_a_terminated_run_reports_what_was_recorded_and_leaves_no_process(deploy: Deploy, in_three_days: str) -> None:
    deployment = deploy("late", launcher='pass_env=["SECONDS_TO_SLEEP"], stop_grace=2, kill_grace=5', env={"SECONDS_TO_SLEEP": "600"})
    with webserver(deployment) as server:
        run_id = server.launch(execution_time=in_three_days)
        wait_until(lambda: deployment.log_has(run_id, '"late"."late"."slow" starts'), timeout=120)
        server.terminate(run_id)
        wait_until(lambda: deployment.status(run_id) == dg.DagsterRunStatus.CANCELED)
    run = deployment.last_run()
    assert set(run.materialized) == {"early", "middle"}
    assert "Asking process" in run.messages
    wait_until(lambda: not runners(deployment))
    deployment.env["SECONDS_TO_SLEEP"] = "0"
    rest = deployment.materialize("*", config={"execution_time": in_three_days})
    assert rest.success, rest.output
    assert set(rest.materialized) == {"slow"}


def test_no_runner_outlives_a_killed_step_process(deploy: Deploy, in_three_days: str) -> None:
    deployment = deploy("late", launcher='pass_env=["SECONDS_TO_SLEEP"]', env={"SECONDS_TO_SLEEP": "600"})
    config = json.dumps({"ops": {"sqlmesh_prod": {"config": {"execution_time": in_three_days}}}})
    command = ["asset", "materialize", "-f", str(deployment.definitions), "--select", "*", "--config-json", config]
    with (deployment.root / "step.log").open("w") as log:
        step = deployment.popen("dagster", *command, stdout=log, stderr=log)
    wait_until(lambda: 'slow" starts' in (deployment.root / "step.log").read_text(), timeout=120)
    (runner,) = runners(deployment)
    for pid in (step.pid, parent_of(runner)):
        os.kill(pid, signal.SIGKILL)
    step.wait()
    wait_until(lambda: not runners(deployment))
