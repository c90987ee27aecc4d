"""Dagster's servers over a deployment, asked as its UI asks them."""

import json
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from acceptance.local.deployment import Deployment, kill_group
from patience import wait_until

WITHOUT_DAEMON = """\
telemetry: {enabled: false}
run_coordinator: {module: dagster._core.run_coordinator, class: DefaultRunCoordinator}
"""
LAUNCH = """
mutation($selector: JobOrPipelineSelector!, $config: RunConfigData) {
  launchRun(executionParams: {selector: $selector, runConfigData: $config}) {
    __typename ... on LaunchRunSuccess { run { runId } }
  }
}"""
TERMINATE = "mutation($run: String!) { terminateRun(runId: $run) { __typename } }"
RELOAD = """
mutation($location: String!) {
  reloadRepositoryLocation(repositoryLocationName: $location) {
    ... on WorkspaceLocationEntry { locationOrLoadError { __typename } }
  }
}"""
ASSETS = "{ assetNodes { assetKey { path } } }"
REPOSITORIES = (
    "{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }"
)


class Webserver:
    """A webserver, asked as its UI asks it."""

    def __init__(self, port: int) -> None:
        self._address = f"http://127.0.0.1:{port}"

    def url(self, path: str) -> str:
        return f"{self._address}{path}"

    def ask(self, query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            self.url("/graphql"), body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)["data"]

    def is_up(self) -> Any:
        try:
            return self.ask(REPOSITORIES)["repositoriesOrError"]["nodes"]
        except urllib.error.URLError:
            return None

    def reload(self) -> set[str]:
        """Reload the code location, and return its asset keys."""
        (repository,) = self.is_up()
        reloaded = self.ask(RELOAD, location=repository["location"]["name"])
        loaded = reloaded["reloadRepositoryLocation"]["locationOrLoadError"]["__typename"]
        assert loaded == "RepositoryLocation"
        return {"/".join(node["assetKey"]["path"]) for node in self.ask(ASSETS)["assetNodes"]}

    def launch(self, **config: Any) -> str:
        (repository,) = self.is_up()
        selector = {
            "repositoryName": repository["name"],
            "repositoryLocationName": repository["location"]["name"],
            "jobName": "__ASSET_JOB",
        }
        launched = self.ask(
            LAUNCH, selector=selector, config={"ops": {"sqlmesh_prod": {"config": config}}}
        )["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return str(launched["run"]["runId"])

    def terminate(self, run_id: str) -> None:
        assert (
            self.ask(TERMINATE, run=run_id)["terminateRun"]["__typename"] == "TerminateRunSuccess"
        )


@contextmanager
def dagster_dev(deployment: Deployment) -> Iterator[Webserver]:
    """Start `dagster dev`: a webserver, a daemon and a code server."""
    with _serving(deployment, "dagster", "dev") as server:
        yield server


@contextmanager
def webserver(deployment: Deployment) -> Iterator[Webserver]:
    """Start a webserver and a code server, which launches runs at once. There is no daemon."""
    settings = deployment.home / "dagster.yaml"
    assert not settings.exists()
    settings.write_text(WITHOUT_DAEMON)
    with _serving(deployment, "dagster-webserver") as server:
        yield server


@contextmanager
def daemon(deployment: Deployment) -> Iterator[None]:
    """Start the daemon and a code server alone."""
    command = ("dagster-daemon", "run", "-f", str(deployment.definitions))
    with (deployment.root / "daemon.log").open("w") as log:
        process = deployment.popen(*command, stdout=log, stderr=log)
        with _stopped(process):
            yield


@contextmanager
def _serving(deployment: Deployment, *program: str) -> Iterator[Webserver]:
    file = str(deployment.definitions)

    def start(port: str, log: IO[str]) -> subprocess.Popen[str]:
        return deployment.popen(*program, "-f", file, "-p", port, stdout=log, stderr=log)

    with served(start, log=deployment.root / "server.log") as server:
        yield server


@contextmanager
def served(
    start: Callable[[str, IO[str]], subprocess.Popen[str]], *, log: Path
) -> Iterator[Webserver]:
    """Start a webserver, given its port and its output's file, in a process group of its own."""
    with _reserved_port() as port, log.open("w") as output:
        process = start(str(port), output)
        with _stopped(process):
            server = Webserver(port)
            wait_until(
                lambda: server.is_up() or process.poll() is not None, "the webserver answers"
            )
            assert process.poll() is None, log.read_text()
            yield server


@contextmanager
def _stopped(process: subprocess.Popen[str]) -> Iterator[None]:
    """Stop a server in the end, and kill what is left of its process group."""
    try:
        yield
    finally:
        with suppress(subprocess.TimeoutExpired):
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)
        kill_group(process)


@contextmanager
def _reserved_port() -> Iterator[int]:
    """Return a free port and keep it bound.

    No other process is given it, and a server that sets SO_REUSEADDR can listen on it.
    """
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]
