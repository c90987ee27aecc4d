"""Ticks through Dagster's daemon, run queue and webserver, with runs of a real project."""

import datetime
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from acceptance.local.deployment import PROJECTS, Deployment, Run, preloaded_runner
from acceptance.local.webserver import Webserver, daemon, dagster_dev
from patience import wait_until

DEFINITIONS = """\
from dagster_sqlmesh_pipes import sqlmesh_definitions_factory

defs = sqlmesh_definitions_factory(project_dir={project!r}, schedule_name="ticks")
"""
ONE_RUN_AT_A_TIME = "telemetry: {enabled: false}\nconcurrency: {runs: {max_concurrent_runs: 1}}\n"

DRY_RUN = """
mutation($s: ScheduleSelector!, $at: Float!) {
  scheduleDryRun(selectorData: $s, timestamp: $at) {
    __typename
    ... on DryRunInstigationTick {
      evaluationResult {
        skipReason
        error { message }
        runRequests { runKey jobName tags { key value } assetSelection { path } }
      }
    }
  }
}"""
LAUNCH = """
mutation($selector: JobOrPipelineSelector!, $tags: [ExecutionTag!]!) {
  launchRun(
    executionParams: {selector: $selector, executionMetadata: {tags: $tags}, runConfigData: {}}
  ) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  }
}"""


@dataclass(frozen=True)
class Schedule:
    """The schedule of a code location, asked as the UI asks."""

    server: Webserver

    def tick(self, at: float) -> Mapping[str, Any] | str:
        """Evaluate a tick: its run request, or why it is skipped."""
        schedule = {**self._repository, "scheduleName": "ticks"}
        result = self.server.ask(DRY_RUN, s=schedule, at=at)["scheduleDryRun"]["evaluationResult"]
        assert result["error"] is None, result["error"]
        if result["skipReason"]:
            return str(result["skipReason"])
        (request,) = result["runRequests"]
        assert isinstance(request, dict)
        return request

    def launch(self, request: Mapping[str, Any]) -> str:
        """Launch what a tick asks for."""
        selector = {
            **self._repository,
            "jobName": request["jobName"] or "ticks_job",
            "assetSelection": request["assetSelection"],
            "assetCheckSelection": [],
        }
        launched = self.server.ask(LAUNCH, selector=selector, tags=request["tags"])["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return str(launched["run"]["runId"])

    @property
    def _repository(self) -> Mapping[str, str]:
        (repository,) = self.server.is_up()
        return {
            "repositoryName": repository["name"],
            "repositoryLocationName": repository["location"]["name"],
        }


def deployed(root: Path) -> Deployment:
    """Deploy the project, planned three days ago, with one unplanned model in its files."""
    project = Path(shutil.copytree(PROJECTS / "gated_model", root / "ticks"))
    deployment = Deployment(root=root, project=project, runner=preloaded_runner())
    now = datetime.datetime.now(datetime.UTC)
    three_days_ago, in_half_a_day = (
        now - datetime.timedelta(days=3),
        now + datetime.timedelta(hours=12),
    )
    config = deployment.project / "config.yaml"
    config.write_text(
        config.read_text().replace("@daily", f"0 {in_half_a_day.hour} * * *")
    )  # no tick comes while the test runs
    deployment.sqlmesh(
        "plan", "--auto-apply", "--no-prompts", "--execution-time", f"{three_days_ago:%Y-%m-%d}"
    )
    (deployment.project / "models" / "brand_new.sql").write_text(
        "MODEL (name ticks.brand_new, kind FULL); SELECT 1 AS id"
    )
    deployment.write_definitions(DEFINITIONS.format(project=str(deployment.project)))
    (deployment.home / "dagster.yaml").write_text(ONE_RUN_AT_A_TIME)
    deployment.make_manifest()
    return deployment


def backdate_schedule(deployment: Deployment, *, missed: datetime.timedelta) -> None:
    """Make it look as if the schedule had been on for a while without a daemon.

    No daemon may run meanwhile: it remembers when it has to look at a schedule next.
    """
    with deployment.instance() as instance:  # there is no public name for this
        (state,) = instance.all_instigator_state()
        data: Any = state.instigator_data
        start = data.start_timestamp - missed.total_seconds()
        instance.update_instigator_state(state.with_data(data._replace(start_timestamp=start)))


def runs(deployment: Deployment) -> Sequence[dg.DagsterRun]:
    with deployment.instance() as instance:
        return [record.dagster_run for record in instance.get_run_records()]


def run_keys(deployment: Deployment) -> Sequence[str]:
    """Return the keys of the runs that the daemon has launched."""
    return [
        run.tags["dagster/run_key"] for run in runs(deployment) if "dagster/run_key" in run.tags
    ]


def last_tick(deployment: Deployment) -> Any:
    with deployment.instance() as instance:
        (state,) = instance.all_instigator_state()
        (tick,) = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
        return tick


def leave_unfinished(deployment: Deployment) -> None:
    """Leave the last tick as a daemon does that dies over it."""
    tick = last_tick(deployment)
    with deployment.instance() as instance:
        instance.update_tick(tick.with_status(type(tick.status).STARTED))
        (state,) = (
            instance.all_instigator_state()
        )  # it has not noted that it came past the tick either
        data: Any = state.instigator_data
        instance.update_instigator_state(
            state.with_data(data._replace(last_iteration_timestamp=tick.timestamp))
        )


def ended(deployment: Deployment, run_id: str, expected: dg.DagsterRunStatus) -> Run:
    """Wait for a run's end, and give what its event log says."""
    over = {expected, dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE}
    wait_until(lambda: deployment.status(run_id) in over, f"run {run_id} is over")
    with deployment.instance() as instance:
        run = Run(deployment.status(run_id).value, instance.all_logs(run_id), "")
    assert run.status == expected.value, run.messages
    return run


def check_statuses(deployment: Deployment, asset: str, check: str) -> list[str]:
    """Return what Dagster shows of a check: the last result is first."""
    with deployment.instance() as instance:
        (key,) = (key for key in instance.all_asset_keys() if key.path[-1] == asset)
        history = instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(key, check), limit=5
        )
        return [record.status.value for record in history]


def asked(request: Mapping[str, Any] | str) -> set[str]:
    assert isinstance(request, dict), request
    return {key["path"][-1] for key in request["assetSelection"]}


def test_missed_ticks_are_one_run_then_failed_models(
    tmp_path: Path,
) -> None:
    deployment = deployed(tmp_path)
    gate, broken = (deployment.project / name for name in ("wait_here", "broken"))
    gate.touch()
    broken.touch()
    started = deployment.dagster("schedule", "start", "ticks", "-f", str(deployment.definitions))
    assert started.returncode == 0, started.stderr
    backdate_schedule(deployment, missed=datetime.timedelta(days=2))
    with dagster_dev(deployment) as server:
        schedule = Schedule(server)
        wait_until(lambda: runs(deployment), "the daemon has evaluated a tick")
        (first,) = runs(deployment)
        tick = datetime.datetime.fromisoformat(first.tags["sqlmesh/tick"])
        assert datetime.datetime.now(datetime.UTC) - tick < datetime.timedelta(days=1), (
            "the latest of the ticks that were missed"
        )
        wait_until(
            lambda: deployment.log_has(first.run_id, '"ticks"."gated" is running'),
            "the run is at the gate",
        )

        busy = schedule.tick(tick.timestamp())
        assert f"/runs/{first.run_id}) is STARTED" in str(busy)
        queued = schedule.launch({"jobName": "ticks_job", "assetSelection": None, "tags": []})
        wait_until(
            lambda: deployment.status(queued) == dg.DagsterRunStatus.QUEUED,
            "the second run is queued",
        )
        assert f"/runs/{queued}) is QUEUED" in str(schedule.tick(tick.timestamp()))
        server.terminate(queued)

        gate.unlink()
        run = ended(deployment, first.run_id, dg.DagsterRunStatus.FAILURE)
        assert set(run.materialized) == {"days"}
        assert run.materialized["days"].metadata["sqlmesh/batches"].value == 1
        assert run.verdicts == {("days", "not_null"): (True, "ERROR")}
        assert "the source is broken" in run.error
        assert (
            '"ticks"."ticks"."brand_new" was skipped: the environment does not hold it'
            in run.messages
        )

        again = schedule.tick(tick.timestamp())
        assert asked(again) == {"gated", "report"}
        broken.unlink()
        assert not isinstance(again, str)
        run = ended(deployment, schedule.launch(again), dg.DagsterRunStatus.SUCCESS)
        assert set(run.materialized) == {"gated", "report"}
        assert check_statuses(deployment, "days", "not_null") == ["SUCCEEDED"]
        assert "Nothing is due" in str(schedule.tick(tick.timestamp()))
        assert run_keys(deployment) == [f"ticks:{tick.isoformat()}"]

    leave_unfinished(deployment)
    with daemon(deployment):
        wait_until(
            lambda: last_tick(deployment).status.name != "STARTED",
            "the new daemon has come back to the tick",
        )
    assert run_keys(deployment) == [f"ticks:{tick.isoformat()}"], (
        "a daemon that died over a tick and is started again does not run it twice"
    )
