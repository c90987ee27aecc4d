"""Terminating a run, and killing its processes: what was recorded is reported, and nothing goes on."""

import json
import os
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from acceptance.local.conftest import Deploy, wait_until
from acceptance.local.deployment import Deployment, processes_with

LAUNCH = """
mutation($selector: JobOrPipelineSelector!, $config: RunConfigData) {
  launchRun(executionParams: {selector: $selector, runConfigData: $config}) { __typename ... on LaunchRunSuccess { run { runId } } }
}"""
TERMINATE = "mutation($run: String!) { terminateRun(runId: $run) { __typename } }"
REPOSITORIES = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }"


class Webserver:
    """`dagster dev` over a deployment, asked as its UI asks it."""

    def __init__(self, deployment: Deployment, port: int) -> None:
        self.deployment = deployment
        self._url = f"http://127.0.0.1:{port}/graphql"

    def ask(self, query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(self._url, body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)["data"]

    def is_up(self) -> Any:
        try:
            return self.ask(REPOSITORIES)["repositoriesOrError"]["nodes"]
        except urllib.error.URLError:
            return None

    def launch(self, **config: Any) -> str:
        (repository,) = self.is_up()
        selector = {
            "repositoryName": repository["name"],
            "repositoryLocationName": repository["location"]["name"],
            "jobName": "__ASSET_JOB",
        }
        launched = self.ask(LAUNCH, selector=selector, config={"ops": {"sqlmesh_prod": {"config": config}}})["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return str(launched["run"]["runId"])

    def terminate(self, run_id: str) -> None:
        assert self.ask(TERMINATE, run=run_id)["terminateRun"]["__typename"] == "TerminateRunSuccess"


@contextmanager
def webserver(deployment: Deployment) -> Iterator[Webserver]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (deployment.root / "dev.log").open("w") as log:
        process = deployment.popen("dagster", "dev", "-f", str(deployment.definitions), "-p", str(port), stdout=log, stderr=log)
    try:
        server = Webserver(deployment, port)
        wait_until(server.is_up, timeout=120)
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)


def log_has(deployment: Deployment, run_id: str, text: str) -> bool:
    with deployment.instance() as instance:
        return any(text in entry.user_message for entry in instance.all_logs(run_id))


def status(deployment: Deployment, run_id: str) -> dg.DagsterRunStatus:
    with deployment.instance() as instance:
        run = instance.get_run_by_id(run_id)
        assert run is not None
        return run.status


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def runners(deployment: Deployment) -> list[int]:
    return list(processes_with(f"sqlmesh-runner run --project-dir {deployment.project}"))


def test_a_terminated_run_reports_what_was_recorded_and_leaves_no_process(deploy: Deploy, in_three_days: str) -> None:
    deployment = deploy("late", launcher='pass_env=["SECONDS_TO_SLEEP"], stop_grace=2, kill_grace=5', env={"SECONDS_TO_SLEEP": "600"})
    with webserver(deployment) as server:
        run_id = server.launch(execution_time=in_three_days)
        wait_until(lambda: log_has(deployment, run_id, '"late"."late"."slow" starts'), timeout=120)
        server.terminate(run_id)
        wait_until(lambda: status(deployment, run_id) == dg.DagsterRunStatus.CANCELED)
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
