"""What ticks ask for against what SQLMesh does, where a run that succeeds leaves models behind."""

import datetime
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from acceptance.local.deployment import PROJECTS, RUNNER_BIN, Deployment

from dagster_sqlmesh_pipes import SQLMeshResource
from dagster_sqlmesh_pipes.schedule import sqlmesh_adaptive_schedule_factory

EVERYTHING = {"late", "after_late", "restated", "after_restated"}


class Ticks:
    """The schedule of a project planned three days ago."""

    def __init__(self, project: Path, instance: dg.DagsterInstance) -> None:
        self.schedule, job, assets = sqlmesh_adaptive_schedule_factory(sqlmesh_resource=SQLMeshResource(project_dir=str(project)))
        self.job = dg.Definitions(assets=assets, jobs=[job], schedules=[self.schedule]).resolve_job_def(job.name)
        self.instance = instance

    def ask(self, at: datetime.datetime) -> dg.RunRequest | None:
        result = self.schedule.evaluate_tick(dg.build_schedule_context(instance=self.instance, scheduled_execution_time=at))
        return result.run_requests[0] if result.run_requests else None

    def asked(self, at: datetime.datetime) -> set[str]:
        request = self.ask(at)
        return {key.path[-1] for key in request.asset_selection or []} if request else set()

    def run(self, at: datetime.datetime) -> set[str]:
        """Run what a tick asks for, and give what was materialized."""
        request = self.ask(at)
        assert request
        result = self.job.execute_in_process(instance=self.instance, asset_selection=list(request.asset_selection or []), tags=request.tags)
        return {event.asset_key.path[-1] for event in result.get_asset_materialization_events() if event.asset_key}


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    deployment = Deployment(root=tmp_path, project=Path(shutil.copytree(PROJECTS / "held_back", tmp_path / "held_back")))
    three_days_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=3)
    (deployment.project / "ready").touch()
    deployment.sqlmesh("plan", "--auto-apply", "--no-prompts", "--execution-time", f"{three_days_ago:%Y-%m-%d}")
    deployment.make_manifest()
    deployment.home.mkdir()
    for name, value in deployment.environ().items():
        monkeypatch.setenv(name, value)
    return deployment


@pytest.fixture
def ticks(deployment: Deployment) -> Iterator[Ticks]:
    with dg.DagsterInstance.local_temp(str(deployment.home)) as instance:
        yield Ticks(deployment.project, instance)


def test_what_a_signal_held_back_and_all_behind_it_is_asked_for_until_it_has_run(deployment: Deployment, ticks: Ticks) -> None:
    at = datetime.datetime.now(datetime.UTC)
    ready = deployment.project / "ready"
    ready.unlink()
    assert ticks.asked(at) == EVERYTHING
    assert ticks.run(at) == {"restated", "after_restated"}
    assert ticks.asked(at) == {"late", "after_late"}
    ready.touch()
    assert ticks.run(at) == {"late", "after_late"}
    assert ticks.asked(at) == set()


def test_what_is_restated_and_all_behind_it_runs_when_the_restatement_s_cron_ticks(deployment: Deployment, ticks: Ticks) -> None:
    at = datetime.datetime.now(datetime.UTC)
    assert ticks.run(at) == EVERYTHING
    assert ticks.asked(at) == set()
    # As if its cron had ticked since.
    restate = "UPDATE sqlmesh._auto_restatements SET next_auto_restatement_ts = 1"
    code = f"import duckdb; duckdb.connect('held_back.duckdb').execute('{restate}')"
    subprocess.run([str(RUNNER_BIN / "python"), "-c", code], cwd=deployment.project, check=True)
    later = at + datetime.timedelta(hours=2)
    assert ticks.asked(later) >= {"restated", "after_restated"}
    assert ticks.run(later) >= {"restated", "after_restated"}
