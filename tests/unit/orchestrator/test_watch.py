"""Runs that end in Dagster while their step is at work."""

import threading
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from patience import PATIENCE, wait_until
from unit.orchestrator.shop import Make

from dagster_sqlmesh_pipes import sqlmesh_assets_factory
from dagster_sqlmesh_pipes.errors import RunFailedError
from dagster_sqlmesh_pipes.run import watch
from dagster_sqlmesh_pipes.run.watch import RunWatch
from dagster_sqlmesh_pipes.testing import FakeLauncher, finished


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_INTERVAL", 0.01)


def test_a_run_that_dagster_has_ended_has_its_runner_stopped(
    make_resource: Make, instance: dg.DagsterInstance
) -> None:
    launcher = FakeLauncher(messages=[], wait_for_stop=True, after_stop=[finished("interrupted")])
    assets = sqlmesh_assets_factory(sqlmesh_resource=make_resource(launcher))
    errors: list[BaseException] = []

    def execute() -> None:
        try:
            dg.materialize(assets, instance=instance)
        except dg.Failure as exc:
            errors.append(exc)

    step = threading.Thread(target=execute, daemon=True)
    step.start()
    wait_until(lambda: launcher.requests, "the runner is at work")
    (run,) = instance.get_runs()
    instance.report_run_canceled(run)  # as a termination with force does
    step.join(PATIENCE)

    (error,) = errors
    assert f"Run {run.run_id} was ended in Dagster (CANCELED)" in str(error)


def test_instance_without_answer_is_asked_again() -> None:
    answers = iter([ConnectionError(), None, SimpleNamespace(is_finished=False)])
    ended = SimpleNamespace(is_finished=True, status=dg.DagsterRunStatus.FAILURE)

    def get_run_by_id(run_id: str) -> Any:
        assert run_id == "run"
        answer = next(answers, ended)
        if isinstance(answer, Exception):
            raise answer
        return answer

    context: Any = SimpleNamespace(
        instance=SimpleNamespace(get_run_by_id=get_run_by_id), run=SimpleNamespace(run_id="run")
    )
    errors: list[RunFailedError] = []
    with RunWatch(context, errors.append):
        wait_until(lambda: errors, "it finds the run ended")
    assert list(answers) == []
    assert "Run run was ended in Dagster (FAILURE)" in str(errors[0])
