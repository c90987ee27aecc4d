"""Runs at once on one state on PostgreSQL: no row doubles, and each run is complete.

Without the lock on the state they do double: a test that keeps it off shows that.
"""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from integration.runner.harness import (
    PLANNED_AT,
    PROJECTS,
    RUN_AT,
    RUNNER,
    ProjectCopy,
    extras,
    sqlmesh,
)
from integration.runner.locked_project import APPENDED, DAYS, DUE, State
from patience import PATIENCE, wait_until
from postgres_server import PostgresServer, postgres_server

pytestmark = pytest.mark.postgres

RUN = ("run", "--execution-time", RUN_AT)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with postgres_server() as server, pytest.MonkeyPatch.context() as environment:
        environment.setenv("LOCK_PORT", str(server.port))
        environment.setenv("LOCK_DATABASE", "shop")
        environment.setenv("LOCK_GATE", str(tmp_path_factory.mktemp("gate") / "gate"))
        yield server


@pytest.fixture(scope="module")
def planned(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("planned") / "locked_incremental"
    shutil.copytree(PROJECTS / "locked_incremental", path)
    server.execute("CREATE DATABASE shop")
    plan = ("plan", "--auto-apply", "--no-prompts", "--skip-tests", "--execution-time", PLANNED_AT)
    sqlmesh(path, *plan)
    server.execute("ALTER DATABASE shop RENAME TO planned")
    return path


@pytest.fixture
def state(server: PostgresServer, planned: Path, tmp_path: Path) -> State:
    server.execute(
        "DROP DATABASE IF EXISTS shop WITH (FORCE)", "CREATE DATABASE shop TEMPLATE planned"
    )
    project = ProjectCopy(Path(shutil.copytree(planned, tmp_path / "one" / "project")))
    gate = Path(os.environ["LOCK_GATE"])
    for file in gate.parent.iterdir():
        file.unlink()
    return State(server, project, gate)


@contextmanager
def shell(
    project: ProjectCopy, *arguments: str, command: Sequence[str] = RUN
) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Start a runner as a person does, without Dagster; give it and the file of its output."""
    output = project.path.parent / f"output-{len(list(project.path.parent.iterdir()))}.txt"
    with output.open("w") as file:
        process = subprocess.Popen(
            [*RUNNER, *command, *arguments],
            cwd=project.path,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""},
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        yield process, output
    finally:
        process.kill()
        process.wait()


def test_a_shell_waits_for_a_dagster_run_and_names_it(state: State) -> None:
    with state.project.start(*RUN, extras=extras([DAYS])) as dagster, ExitStack() as stack:
        with state.held_back():
            wait_until(state.waiting_models, "the first is in its statement")
            other, output = stack.enter_context(shell(state.copy(), "--select", DAYS))
            wait_until(lambda: "Waiting for" in output.read_text(), "the second says it waits")
            assert "Waiting for run, since " in output.read_text()
            assert state.waiting_models() == 1
        first = dagster.finish()
        assert other.wait(PATIENCE) == 0

    assert (first.code, state.rows("days")) == (0, (1 + DUE, 1 + DUE))


def test_without_the_lock_rows_double(state: State) -> None:
    """What the lock is for: each of two runs deletes before either has inserted."""
    arguments = ("--no-lock", "--select", DAYS)
    with (
        shell(state.project, *arguments) as (one, _),
        shell(state.copy(), *arguments) as (other, _),
    ):
        with state.held_back():
            wait_until(lambda: state.waiting_models() == 2, "both are in their statements")
        assert (one.wait(PATIENCE), other.wait(PATIENCE)) == (0, 0)

    assert state.rows("days") == (1 + 2 * DUE, 1 + DUE)


def test_of_ten_starts_at_once_each_ends_well_and_no_row_doubles(state: State) -> None:
    with ExitStack() as stack:
        with state.held_back():
            started = [
                stack.enter_context(shell(state.project, "--select", DAYS)) for _ in range(10)
            ]
            wait_until(state.waiting_models, "one is in its statement")
            wait_until(
                lambda: (
                    sum("Waiting for" in output.read_text() for _, output in started) == 9
                    or state.waiting_models() > 1
                ),
                "all but one say that they wait",
            )
            assert state.waiting_models() == 1
        assert [process.wait(PATIENCE) for process, _ in started] == [0] * 10

    assert state.rows("days") == (1 + DUE, 1 + DUE)


def test_state_and_doctor_see_a_run_at_work(state: State) -> None:
    with state.project.start(*RUN, extras=extras([DAYS])) as dagster, ExitStack() as stack:
        with state.held_back():
            wait_until(state.waiting_models, "the run is in its statement")
            other = state.copy()
            doctor = other.command("doctor")
            refused = other.command("state", "--wait", "--lock-timeout", "0")
            reader, output = stack.enter_context(shell(other, command=("state", "--wait")))
            wait_until(lambda: "Waiting for run, since " in output.read_text(), "it waits")
        assert dagster.finish().code == 0
        assert reader.wait(PATIENCE) == 0

    document = json.loads(output.read_text().splitlines()[-1])
    (days,) = [model for model in document["models"] if model["model"] == DAYS]
    assert days["interval_end"] == "2026-01-05T00:00:00+00:00"
    assert (refused.code, refused.stdout) == (5, "")
    assert (doctor.code, "warning  lock: run, since " in doctor.stdout) == (0, True)


def test_lock_timeout_ends_a_run_with_an_exit_code_of_its_own(state: State) -> None:
    with (
        state.held_back(),
        state.project.start(*RUN, extras=extras([DAYS])) as first,
    ):
        wait_until(state.waiting_models, "the first is in its statement")
        second = state.copy().run("--lock-timeout", "0", extras=extras([DAYS]))
        assert first.process.poll() is None

    assert (second.code, second.end["outcome"], second.end["exit_code"]) == (5, "error", 5)
    assert "is at work on the SQLMesh state in schema 'sqlmesh'" in second.end["error"]
    assert second.events("run_started") == []


def test_after_a_killed_runner_the_next_run_does_its_work_once(state: State) -> None:
    """The server goes on with a killed runner's statement, and takes it back at its end."""
    asked = extras([DAYS])
    with state.held_back() as let_go, state.project.start(*RUN, extras=asked) as first:
        wait_until(state.waiting_models, "the first is in its statement")
        first.signal(signal.SIGKILL)
        with state.copy().start(*RUN, extras=asked) as second:
            wait_until(lambda: state.waiting_models() == 2, "the next is in its statement")
            let_go()
            run = second.finish()

    assert (run.code, state.rows("days")) == (0, (1 + DUE, 1 + DUE))


@pytest.mark.parametrize("which", [0, 1])
def test_run_with_cut_lock_stops_and_next_does_its_work(state: State, which: int) -> None:
    asked = extras([DAYS])
    with state.held_back() as let_go, state.project.start(*RUN, extras=asked) as first:
        wait_until(state.waiting_models, "the first is in its statement")
        with state.copy().start(*RUN, extras=asked) as second:
            second.wait_for_log("Waiting for run")
            state.cut_lock(which)
            stopped = first.finish()
            wait_until(state.waiting_models, "the next is in its statement")
            let_go()
            run = second.finish()

    assert (stopped.code, stopped.end["outcome"]) == (4, "interrupted")
    assert "The lock on the SQLMesh state in schema 'sqlmesh' was lost" in stopped.end["error"]
    assert (run.code, state.rows("days")) == (0, (1 + DUE, 1 + DUE))


def test_run_with_cut_lock_stops_before_the_next_begins(state: State) -> None:
    """Nothing cancels its model, so it ends when the grace for that is over."""
    asked = extras([APPENDED])
    state.gate.touch()
    with state.project.start(*RUN, "--cancel-grace", "3", extras=asked) as first:
        wait_until(state.python_models, "the first is in its model")
        with state.copy().start(*RUN, extras=asked) as second:
            second.wait_for_log("Waiting for run")
            state.cut_lock(0)

            def has_stopped() -> bool:
                at_work = len(state.python_models())
                stopped = first.process.poll() is not None
                assert stopped or at_work == 1
                return stopped

            wait_until(has_stopped, "the first has stopped")
            state.gate.unlink()
            run = second.finish()

    assert (first.process.returncode, run.code) == (4, 0)
    assert state.rows("appended") == (1 + DUE, 1 + DUE)
