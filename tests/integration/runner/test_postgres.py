"""Runs with several threads on a real PostgreSQL: statistics, stopping, and a plan that comes in between."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from integration.runner.harness import PROJECTS, RUN_AT, SQLMESH, ProjectCopy, asset_key, extras, sqlmesh

psycopg2 = pytest.importorskip("psycopg2")
pytestmark = [
    pytest.mark.postgres,
    pytest.mark.skipif(shutil.which("postgres") is None or shutil.which("initdb") is None, reason="no PostgreSQL server is installed"),
]

QUICK, AFTER = '"postgres"."marts"."quick"', '"postgres"."marts"."after"'
GATES = ['"postgres"."marts"."gate_a"', '"postgres"."marts"."gate_b"']
EXTRAS = extras([QUICK, AFTER, *GATES], selection="all", standalone_audits={})
RUN = ("run", "--execution-time", RUN_AT)


class Server:
    """A PostgreSQL of this module's own, on a Unix socket."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory
        self._user = "postgres" if os.getuid() == 0 else None  # PostgreSQL refuses to run as root
        if self._user:
            shutil.chown(directory, self._user)
        data = directory / "data"
        self._run("initdb", "--no-sync", "--auth=trust", "--username=postgres", "--pgdata", str(data))
        arguments = ["-D", str(data), "-k", str(directory), "-c", "listen_addresses=", "-c", "fsync=off"]
        with (directory / "log").open("w") as log:
            self._process = subprocess.Popen(["postgres", *arguments], user=self._user, cwd=directory, stdout=log, stderr=log)

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, user=self._user, cwd=self.socket, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def connect(self) -> Any:
        connection = psycopg2.connect(host=str(self.socket), user="postgres", dbname="postgres")
        connection.autocommit = True
        return connection

    def wait(self) -> None:
        while True:
            try:
                self.connect().close()
            except psycopg2.OperationalError:
                assert self._process.poll() is None, (self.socket / "log").read_text()
            else:
                return

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    # Not in pytest's directory: another user must get there, and a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="pg") as directory:
        server = Server(Path(directory))
        try:
            server.wait()
            yield server
        finally:
            server.stop()


@pytest.fixture
def gates(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProjectCopy:
    """The project, planned anew in an empty database, with nobody holding the lock."""
    monkeypatch.setenv("GATES_HOST", str(server.socket))
    with server.connect() as connection, connection.cursor() as cursor:
        for schema in ("sqlmesh", "sqlmesh__marts", "marts"):
            cursor.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
    connection.close()
    project = ProjectCopy(Path(shutil.copytree(PROJECTS / "run_gates", tmp_path / "project")))
    sqlmesh(project.path, "plan", "--auto-apply", "--no-prompts", "--skip-tests", "--execution-time", "2026-01-02 00:00:00")
    return project


@pytest.fixture
def held(server: Server, gates: ProjectCopy) -> Iterator[Any]:
    """A cursor of a session that holds the lock."""
    connection = server.connect()
    cursor = connection.cursor()
    cursor.execute("SELECT PG_ADVISORY_LOCK(42)")
    yield cursor
    connection.close()


def test_models_run_at_the_same_time_and_every_message_is_whole(gates: ProjectCopy) -> None:
    run = gates.run(extras=EXTRAS)

    assert (run.code, run.end["outcome"]) == (0, "success")
    assert run.materialized.keys() == {asset_key(fqn) for fqn in (QUICK, AFTER, *GATES)}
    assert [message["seq"] for message in run.messages] == list(range(len(run.messages)))


@pytest.mark.skipif(SQLMESH < (0, 212), reason="SQLMesh told no statistics then")
def test_the_engines_row_counts_are_told(gates: ProjectCopy) -> None:
    run = gates.run(extras=EXTRAS)

    assert run.materialized[asset_key(QUICK)]["sqlmesh/rows_processed"] == 5
    assert {event["rows"] for event in run.events("batch_finished") if event["model"] == QUICK} == {5}


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
    held.execute("SELECT COUNT(*) FROM pg_stat_activity WHERE query LIKE '%PG_ADVISORY_XACT_LOCK_SHARED%' AND pid <> PG_BACKEND_PID()")
    assert held.fetchone() == (0,), "nothing goes on in the server"


def test_a_plan_during_the_run_starts_it_over_and_no_model_is_reported_twice(gates: ProjectCopy, held: Any) -> None:
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
    assert {event["attempt"] for event in run.events("model_started") if event["model"] == AFTER} == {2}
    assert run.events("model_skipped") == run.events("model_failed") == []


def test_doctor_says_that_the_server_answers(gates: ProjectCopy) -> None:
    doctor = gates.command("doctor")

    assert doctor.code == 0
    assert "postgres, 4 tasks at a time" in doctor.stdout
