"""`dagster dev` over a deployment, asked as its UI asks it."""

import json
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from acceptance.local.deployment import Deployment, kill_group
from patience import wait_until

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
    with _reserved_port() as port, (deployment.root / "dev.log").open("w") as log:
        process = deployment.popen("dagster", "dev", "-f", str(deployment.definitions), "-p", str(port), stdout=log, stderr=log)
        try:
            server = Webserver(deployment, port)
            wait_until(lambda: server.is_up() or process.poll() is not None, "the webserver answers")
            assert process.poll() is None, (deployment.root / "dev.log").read_text()
            yield server
        finally:
            with suppress(subprocess.TimeoutExpired):
                process.send_signal(signal.SIGINT)
                process.wait(timeout=60)
            kill_group(process)


@contextmanager
def _reserved_port() -> Iterator[int]:
    """Give a free port, which stays bound here: nobody gets it by chance, and a server that sets SO_REUSEADDR may listen on it."""
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]
