"""What ticks ask for against what SQLMesh does, where a run that succeeds leaves models behind."""

import datetime
import subprocess
from collections.abc import Iterator

import pytest
from acceptance.local.deployment import RUNNER_BIN, Deployment
from acceptance.schedule.location import CodeLocation, instance_of

EVERYTHING = {"late", "after_late", "restated", "after_restated"}


@pytest.fixture
def location(deployment: Deployment) -> Iterator[CodeLocation]:
    with instance_of(deployment) as instance:
        yield CodeLocation(deployment.project, instance)


def test_models_behind_a_signal_are_requested_until_run(
    deployment: Deployment, location: CodeLocation
) -> None:
    at = datetime.datetime.now(datetime.UTC)
    ready = deployment.project / "ready"
    ready.unlink()
    assert location.due(at) == EVERYTHING
    assert set(location.run_due(at).materialized) == {"restated", "after_restated"}
    assert location.due(at) == {"late", "after_late"}
    ready.touch()
    assert set(location.run_due(at).materialized) == {"late", "after_late"}
    assert location.due(at) == set()


def test_restatement_cron_reruns_model_and_downstream(
    deployment: Deployment, location: CodeLocation
) -> None:
    at = datetime.datetime.now(datetime.UTC)
    assert set(location.run_due(at).materialized) == EVERYTHING
    assert location.due(at) == set()
    # As if its cron had ticked since.
    restate = "UPDATE sqlmesh._auto_restatements SET next_auto_restatement_ts = 1"
    code = f"import duckdb; duckdb.connect('signals.duckdb').execute('{restate}')"
    subprocess.run([str(RUNNER_BIN / "python"), "-c", code], cwd=deployment.project, check=True)
    later = at + datetime.timedelta(hours=2)
    assert location.due(later) >= {"restated", "after_restated"}
    assert set(location.run_due(later).materialized) >= {"restated", "after_restated"}
