"""Stopping a run, asked for by signals or by the end of standard input."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from dagster_pipes import encode_param
from integration.runner.harness import (
    AFTER,
    ANNOUNCED,
    HEAVY,
    ORDERS,
    RUN_AT,
    RUNNER,
    ProjectCopy,
    asset_key,
    extras,
    pipes_context,
)
from patience import wait_until

RUN = ("run", "--execution-time", RUN_AT)


@pytest.fixture
def endless(orders: ProjectCopy) -> ProjectCopy:
    """A project in which marts.heavy would take days."""
    orders.sql("UPDATE raw.knobs SET rows_to_make = 300000")
    return orders


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_cancels_query_and_reports_the_rest(
    endless: ProjectCopy, number: signal.Signals, code: int
) -> None:
    with endless.start(*RUN, extras=extras(selection="all")) as runner:
        runner.wait_for("model_started", HEAVY)
        runner.signal(number)
        run = runner.finish()

    assert (run.code, run.end["outcome"], run.end["exit_code"]) == (code, "interrupted", code)
    assert run.end["error"] == f"{number.name} received"
    assert run.materialized.keys() == {asset_key(ANNOUNCED)}
    assert {run.skipped(fqn)["reason"] for fqn in (HEAVY, ORDERS, AFTER)} == {"interrupted"}
    assert run.events("model_failed") == [], "a cancelled query is no failure of its model"
    assert run.messages[-1]["method"] == "closed"
    assert not endless.path.joinpath("orders.duckdb.wal").exists()


def test_after_a_stop_the_next_run_does_the_rest(endless: ProjectCopy) -> None:
    with endless.start(*RUN, extras=extras(selection="all")) as runner:
        runner.wait_for("model_started", HEAVY)
        runner.signal(signal.SIGINT)
        runner.finish()
    endless.sql("UPDATE raw.knobs SET rows_to_make = 10")

    run = endless.run(extras=extras(selection="all"))

    assert run.code == 0
    assert asset_key(ANNOUNCED) not in run.materialized
    assert asset_key(HEAVY) in run.materialized


def test_the_end_of_standard_input_stops_the_run(endless: ProjectCopy) -> None:
    with endless.start(*RUN, "--stop-when-stdin-closes", extras=extras(selection="all")) as runner:
        runner.wait_for("model_started", HEAVY)
        runner.close_stdin()
        run = runner.finish()

    assert (run.code, run.end["outcome"]) == (130, "interrupted")
    assert "standard input was closed" in run.end["error"]


def test_end_of_stdin_is_ignored_without_the_option(orders: ProjectCopy) -> None:
    with orders.start(*RUN, extras=extras([ORDERS])) as runner:
        runner.close_stdin()
        assert runner.finish().code == 0


def test_stop_before_sqlmesh_is_imported_is_honoured(orders: ProjectCopy) -> None:
    with orders.start(*RUN, "--stop-when-stdin-closes", extras=extras(selection="all")) as runner:
        runner.close_stdin()
        run = runner.finish()

    assert (run.code, run.end["outcome"], run.events("model_started")) == (130, "interrupted", [])


@pytest.mark.parametrize("child", ["no child", "a child that holds standard input"])
def test_a_runner_does_not_outlive_a_killed_parent(
    endless: ProjectCopy, tmp_path: Path, child: str
) -> None:
    """The parent starts a runner as the subprocess launcher does, and is killed at once."""
    context = tmp_path / "context.json"
    context.write_text(json.dumps(pipes_context(extras(selection="all"))))
    reading, writing = os.pipe()
    env = {
        **os.environ,
        "DAGSTER_PIPES_CONTEXT": encode_param({"path": str(context)}),
        "DAGSTER_PIPES_MESSAGES": encode_param({"path": f"/dev/fd/{writing}"}),
    }
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, child, str(writing), *RUNNER, *RUN,
         "--stop-when-stdin-closes"],
        cwd=endless.path, env=env, pass_fds=(writing,), stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(writing)
    with os.fdopen(reading) as pipe:
        for line in pipe:
            if '"model_started"' in line and "heavy" in line:
                parent.kill()
                break
        # The pipe ends when its last writer, the runner, is gone.
        messages = [json.loads(line) for line in pipe]
    parent.communicate()  # which ends its child, too

    assert messages[-1]["method"] == "closed"
    assert messages[-2]["params"]["payload"]["outcome"] == "interrupted"


_PARENT = """
import os, subprocess, sys
child, writing, *command = sys.argv[1:]
runner = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(int(writing),))
if child != "no child" and not os.fork():
    os.close(int(writing))
    sys.stdin.read()
    os._exit(0)
runner.wait()
"""


@pytest.fixture
def deaf(orders: ProjectCopy) -> ProjectCopy:
    """A project with a signal that never returns: nothing can cancel it."""
    (orders.path / "never_returns").touch()
    return orders


def _wait_until_checked(project: ProjectCopy) -> None:
    wait_until((project.path / "checked").exists, "the signal was asked")


def test_uncancellable_work_is_left_after_the_grace(deaf: ProjectCopy) -> None:
    with deaf.start(*RUN, "--cancel-grace", "0.3", extras=extras(selection="all")) as runner:
        _wait_until_checked(deaf)
        runner.signal(signal.SIGTERM)
        run = runner.finish()

    assert (run.code, run.end["outcome"]) == (143, "interrupted")
    assert run.end["error"] == "SIGTERM received; SQLMesh did not end within 0.3 s"
    assert run.messages[-1]["method"] == "closed"


def test_a_second_signal_does_not_wait_for_the_grace(deaf: ProjectCopy) -> None:
    with deaf.start(*RUN, "--cancel-grace", "3600", extras=extras(selection="all")) as runner:
        _wait_until_checked(deaf)
        runner.signal(signal.SIGINT)
        runner.signal(signal.SIGTERM)
        run = runner.finish()

    assert run.end["error"].endswith("a second signal arrived")
    assert run.code in {130, 143}, "two pending signals may be delivered in any order"
