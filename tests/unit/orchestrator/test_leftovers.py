"""What a launch stops and removes of earlier steps that died."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import dagster as dg
import pytest

from dagster_sqlmesh_pipes.launchers.base import RunnerInfo
from dagster_sqlmesh_pipes.launchers.labels import LOCK_LABEL, RUN_ID_LABEL, STEP_LABEL
from dagster_sqlmesh_pipes.launchers.leftovers import stop_leftovers
from dagster_sqlmesh_pipes.testing import FakeLauncher

LABELS = {LOCK_LABEL: "shop/pg", RUN_ID_LABEL: "this", STEP_LABEL: "shop"}


class Engine(FakeLauncher):
    """An engine with the runners of a test."""

    def hold(self, *runners: RunnerInfo) -> None:
        self._runners = list(runners)
        self._removed: list[str] = []

    def list_runners(self, labels: Mapping[str, str]) -> Sequence[RunnerInfo]:
        return [each for each in self._runners if labels.items() <= each.labels.items()]

    def remove_runner(self, runner: RunnerInfo) -> None:
        self._removed.append(runner.name)

    @property
    def removed(self) -> list[str]:
        return self._removed


def runner(
    name: str, run_id: str, *, is_running: bool, keep: str = "never", lock: str = "shop/pg"
) -> RunnerInfo:
    return RunnerInfo(
        name=name,
        labels={LOCK_LABEL: lock, RUN_ID_LABEL: run_id, STEP_LABEL: "shop"},
        created=datetime(2026, 1, 1, tzinfo=UTC),
        status="running" if is_running else "exited",
        is_running=is_running,
        keep=keep,
    )


def test_runners_of_finished_runs_go_whether_they_run_or_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @dg.job
    def job() -> None: ...

    with dg.DagsterInstance.ephemeral() as instance:
        over = instance.create_run_for_job(job, status=dg.DagsterRunStatus.FAILURE).run_id
        going = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED).run_id
        engine = Engine()
        engine.hold(
            runner("at work", over, is_running=True),
            runner("ended", over, is_running=False),
            runner("kept", over, is_running=False, keep="failed"),
            runner("of another key", over, is_running=True, lock="other/pg"),
            runner("first attempt", "this", is_running=False),
            runner("going", going, is_running=True),
            runner("going, ended", going, is_running=False),
            runner("unknown", "elsewhere", is_running=True),
            runner("unknown, ended", "elsewhere", is_running=False),
        )
        stop_leftovers(engine, LABELS, instance)

    assert engine.removed == ["at work", "ended", "first attempt"]
    warned = [record.args for record in caplog.records]
    assert [args[0] for args in warned if isinstance(args, tuple)] == [
        "at work",
        "going",
        "unknown",
    ]
