"""The Compose stack as a test sees it: its command line, its GraphQL, its database."""

import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import patience

ROOT = Path(__file__).resolve().parents[3]
NAME = os.environ.get(
    "TEST_STACK_NAME", "dagster-sqlmesh-test"
)  # beside a stack that may be up for other reasons
JOB = "sqlmesh_adaptive_schedule_job"

wait_until = partial(
    patience.wait_until, every=0.5
)  # seconds; each look takes a command or a request

_RUN = """query ($id: ID!) { runOrError(runId: $id) {
  __typename ... on Run { status } ... on PythonError { message } } }"""
_EVENTS = """query ($id: ID!) { logsForRun(runId: $id, limit: 1000) { ... on EventConnection {
  events { __typename ... on MessageEvent { message timestamp eventType }
  ... on MaterializationEvent { assetKey { path } }
  ... on AssetCheckEvaluationEvent { evaluation { checkName success assetKey { path } } }
  ... on ExecutionStepFailureEvent { error { message cause { message } } }
  ... on RunFailureEvent { error { message } } } } } }"""
_LAUNCH = """mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  ... on RunConfigValidationInvalid { errors { message } } } }"""
_PLAN = """query ($job: PipelineSelector!) {
  executionPlanOrError(pipeline: $job, mode: "default") { __typename } }"""
_TERMINATE = """mutation ($id: String!) { terminateRun(runId: $id) {
  __typename ... on TerminateRunFailure { message } } }"""
_WAITING = """SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'
  AND relation = '{table}'::regclass"""

_CODE = {"repositoryName": "__repository__", "repositoryLocationName": "shop"}


class Stack:
    """A stack that is up."""

    def __init__(self, folder: Path) -> None:
        self._env_file = folder / "env"
        self.port = _free_port()
        self._env_file.write_text(
            f"{(ROOT / '.env.example').read_text()}\nWEBSERVER_PORT={self.port}\n"
        )

    def compose(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run docker compose on it."""
        done = subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            **options,
        )
        assert done.returncode == 0, (
            f"docker compose {' '.join(arguments)}:\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
        )
        return done

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of docker compose on it."""
        return [
            "docker",
            "compose",
            "--project-name",
            NAME,
            "--env-file",
            str(self._env_file),
            "--progress",
            "plain",
            *arguments,
        ]

    def graphql(self, query: str, **variables: Any) -> Any:
        """Ask the webserver."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=90) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer["errors"]
        (value,) = answer["data"].values()
        return value

    def launch(self, *, assets: Sequence[str] | None = None, days_ahead: int = 0) -> str:
        """Launch the job as if it were so many days later, and give the run's id. Without days,
        only what is due now runs.
        """
        then = time.strftime("%Y-%m-%dT12:00:00", time.gmtime(time.time() + 86_400 * days_ahead))
        config = (
            {"ops": {"sqlmesh_prod": {"config": {"end": then, "execution_time": then}}}}
            if days_ahead
            else {}
        )
        selection = None if assets is None else [{"path": asset.split("/")} for asset in assets]
        answer = self.graphql(
            _LAUNCH,
            params={
                "selector": {**_CODE, "jobName": JOB, "assetSelection": selection},
                "runConfigData": config,
            },
        )
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])

    def reaches_code_location(self) -> bool:
        """Return whether the webserver gets an answer of the code location: it takes its time to
        notice that there is a new one.
        """
        try:
            return bool(
                self.graphql(_PLAN, job={**_CODE, "pipelineName": JOB})["__typename"]
                == "ExecutionPlan"
            )
        except urllib.error.HTTPError:
            return False

    def terminate(self, run_id: str) -> None:
        """Terminate a run, as the button in the UI does."""
        answer = self.graphql(_TERMINATE, id=run_id)
        assert answer["__typename"] == "TerminateRunSuccess", answer

    def status(self, run_id: str) -> str:
        """Return a run's status."""
        return str(self.graphql(_RUN, id=run_id)["status"])

    def wait_for_end(self, run_id: str) -> str:
        """Wait until a run is over, and give its status."""
        wait_until(
            lambda: self.status(run_id) in {"SUCCESS", "FAILURE", "CANCELED"},
            f"run {run_id} is over",
        )
        return self.status(run_id)

    def events(self, run_id: str) -> list[Mapping[str, Any]]:
        """Return a run's events."""
        events: list[Mapping[str, Any]] = self.graphql(_EVENTS, id=run_id)["events"]
        return events

    def materialized(self, run_id: str) -> set[str]:
        """Return the assets that a run materialized."""
        return {
            "/".join(event["assetKey"]["path"])
            for event in self.events(run_id)
            if event["__typename"] == "MaterializationEvent"
        }

    def checks(self, run_id: str) -> dict[str, bool]:
        """Return the checks that a run made, with their verdicts."""
        evaluations = [
            event["evaluation"]
            for event in self.events(run_id)
            if event["__typename"] == "AssetCheckEvaluationEvent"
        ]
        return {
            f"{'/'.join(each['assetKey']['path'])}:{each['checkName']}": each["success"]
            for each in evaluations
        }

    def failure(self, run_id: str) -> str:
        """Return what a failed run's events say of why."""
        return json.dumps(
            [
                event
                for event in self.events(run_id)
                if "error" in event or "Fail" in event["__typename"]
            ],
            ensure_ascii=False,
        )

    def sql(self, statement: str, *, database: str = "shop") -> list[str]:
        """Run SQL on the stack's PostgreSQL, and give its rows as lines."""
        psql = self.compose(
            "exec", "-T", "postgres", "psql", "-U", "postgres", "-d", database, "-Atc", statement
        )
        return psql.stdout.splitlines()

    def interactive_psql(self) -> list[str]:
        """Return the command line of a psql that reads statements from its standard input."""
        return self.command("exec", "-T", "postgres", "psql", "-U", "postgres", "-d", "shop", "-At")

    @contextlib.contextmanager
    def locked(self, table: str) -> Iterator[Callable[[], bool]]:
        """Lock a table. Yields a function that returns whether somebody waits for it."""
        with subprocess.Popen(
            self.interactive_psql(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        ) as psql:
            assert psql.stdin is not None
            assert psql.stdout is not None
            psql.stdin.write(
                f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE; SELECT 'locked';\n"
            )
            psql.stdin.flush()
            while psql.stdout.readline().strip() != "locked":
                assert psql.poll() is None
            try:
                yield lambda: self.sql(_WAITING.format(table=table)) != ["0"]
            finally:
                psql.stdin.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
