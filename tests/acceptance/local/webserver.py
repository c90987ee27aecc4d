"""`dagster dev` over a deployment, asked as its UI asks it."""

import json
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from acceptance.local.conftest import wait_until
from acceptance.local.deployment import Deployment

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
