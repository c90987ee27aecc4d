"""Dagster as in production: a daemon and a code server of their own, monitoring and retries."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import dagster as dg
import pytest
from acceptance.local.deployment import Deployment, kill_group
from acceptance.local.test_termination import parent_of, runners
from acceptance.schedule.conftest import Database
from acceptance.schedule.test_lock_on_postgres import ROWS, deployed
from acceptance.schedule.test_lock_on_state import APPENDED
from patience import wait_until
from postgres_server import free_port

pytestmark = pytest.mark.postgres

FAILURE, SUCCESS = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS

INSTANCE = """\
telemetry: {enabled: false}
run_monitoring: {enabled: true, poll_interval_seconds: 1, start_timeout_seconds: 600}
run_retries: {enabled: true, max_retries: 1}
"""
WORKSPACE = "load_from: [{{grpc_server: {{host: 127.0.0.1, port: {port}, location_name: shop}}}}]\n"


class Production:
    """A deployment whose daemon and code server can be killed and started again."""

    def __init__(self, deployment: Deployment, stack: ExitStack) -> None:
        self.deployment = deployment
        self._stack = stack
        self._port = free_port()
        self.workspace = deployment.root / "workspace.yaml"
        self.workspace.write_text(WORKSPACE.format(port=self._port))
        (deployment.home / "dagster.yaml").write_text(INSTANCE)

    def start_code_server(self) -> subprocess.Popen[str]:
        address = ("--host", "127.0.0.1", "--port", str(self._port))
        process = self._start("dagster", "api", "grpc", "-f", "definitions.py", *address)
        wait_until(self._is_served, "the code server listens")
        return process

    def _is_served(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def start_daemon(self) -> subprocess.Popen[str]:
        return self._start("dagster-daemon", "run", "-w", str(self.workspace))

    def _start(self, *command: str) -> subprocess.Popen[str]:
        log = self._stack.enter_context((self.deployment.root / f"{command[0]}.log").open("a"))
        process = self.deployment.popen(*command, stdout=log, stderr=log)
        self._stack.callback(kill_group, process)
        return process

    def launch(self) -> str:
        """Put a run into the queue."""
        done = self.deployment.dagster(
            "job", "launch", "-w", str(self.workspace), "-j", "__ASSET_JOB"
        )
        assert done.returncode == 0, done.stderr
        (run_id,) = self.runs()
        return run_id

    def runs(self) -> list[str]:
        """Return the ids of all runs, the latest first."""
        with self.deployment.instance() as instance:
            return [record.dagster_run.run_id for record in instance.get_run_records()]


@pytest.fixture
def production(tmp_path: Path, database: Database) -> Iterator[Production]:
    with ExitStack() as stack:
        yield Production(deployed(tmp_path, database, storage="sqlite"), stack)


def test_killed_daemon_and_run_worker_leave_one_complete_retry(
    production: Production, database: Database
) -> None:
    """The next daemon retries the run, which waits for the first one's runner."""
    deployment = production.deployment
    production.start_code_server()
    daemon = production.start_daemon()
    with ExitStack() as held:
        held.enter_context(database.held())
        first = production.launch()
        wait_until(database.waiting, "the model waits")
        (runner,) = runners(deployment)
        for pid in (daemon.pid, parent_of(parent_of(runner))):
            os.kill(pid, signal.SIGKILL)
        production.start_daemon()
        wait_until(lambda: deployment.status(first) == FAILURE, "Dagster ends the run")
        wait_until(lambda: len(production.runs()) == 2, "Dagster retries it")
        wait_until(lambda: runner not in runners(deployment), "the first runner is gone")
        wait_until(lambda: runners(deployment) and database.waiting(), "the retry's model waits")
    second = production.runs()[0]
    wait_until(lambda: deployment.status(second) == SUCCESS, "the retry is done")
    for query in (ROWS, APPENDED):
        rows, days = database.ask(query)
        assert rows == days
    with deployment.instance() as instance:
        shown = {key.path[-1] for key in instance.all_asset_keys()}
    assert shown == {"days", "appended"}
    assert len(production.runs()) == 2
