"""What plans and shells recorded, in Dagster by the state sensor, and the ticks after it."""

import datetime
import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from acceptance.local.deployment import RUNNER_BIN, Deployment
from acceptance.local.webserver import daemon
from acceptance.schedule.location import CodeLocation, instance_of
from patience import PATIENCE, wait_until
from pydantic import PrivateAttr

from dagster_sqlmesh_pipes import SubprocessLauncher

EVERYTHING = {"late", "after_late", "restated", "after_restated"}
DEFINITIONS = """\
import dagster as dg
from dagster_sqlmesh_pipes import (
    SQLMeshResource,
    sqlmesh_adaptive_schedule_factory,
    sqlmesh_state_sensor_factory,
)

resource = SQLMeshResource(project_dir={project!r})
schedule, job, assets = sqlmesh_adaptive_schedule_factory(sqlmesh_resource=resource)
sensor = sqlmesh_state_sensor_factory(
    sqlmesh_resource=resource,
    enable_sensor=True,
    minimum_interval_seconds=2,
)
defs = dg.Definitions(assets=assets, jobs=[job], schedules=[schedule], sensors=[sensor])
"""


@pytest.fixture
def location(deployment: Deployment) -> Iterator[CodeLocation]:
    with instance_of(deployment) as instance:
        yield CodeLocation(deployment.project, instance)


def plan(deployment: Deployment, *arguments: str) -> None:
    deployment.sqlmesh("plan", "--auto-apply", "--no-prompts", *arguments)


def materializations(*models: str) -> set[tuple[str, str]]:
    return {(model, "Materialization") for model in models}


def test_plan_and_shell_run_are_reported_and_leave_nothing_due(
    deployment: Deployment, location: CodeLocation
) -> None:
    at = datetime.datetime.now(datetime.UTC)  # an hourly restatement is due at the next hour
    assert location.report() == materializations(*EVERYTHING)
    assert location.due(at) == EVERYTHING  # it was planned three days ago
    deployment.sqlmesh("run")
    assert location.report() == materializations(*EVERYTHING)
    assert location.due(at) == set()
    assert location.report() == set()


def test_restatement_and_new_version_by_cli_leave_nothing_due(
    deployment: Deployment, location: CodeLocation
) -> None:
    at = datetime.datetime.now(datetime.UTC)
    deployment.sqlmesh("run")
    location.report()
    plan(deployment, "--restate-model", "signals.late")
    assert location.report() == materializations("late", "after_late")
    assert location.due(at) == set()
    model = deployment.project / "models" / "after_restated.sql"
    model.write_text(model.read_text().replace("SELECT day", "SELECT day, 1 AS one"))
    plan(deployment)
    assert location.report() == materializations("after_restated")
    assert location.due(at) == set()


def test_restatement_of_prod_makes_model_due_in_dev(
    deployment: Deployment, location: CodeLocation
) -> None:
    """SQLMesh removes the intervals of other environments' versions, and fills prod's again."""
    model = deployment.project / "models" / "late.sql"
    promoted = model.read_text()
    model.write_text(promoted.replace("AS day", "AS day, 1 AS one"))
    deployment.sqlmesh("run")
    plan(deployment, "dev")
    model.write_text(promoted)
    dev = CodeLocation(deployment.project, location.instance, environment="dev")
    # Also what is read from prod although it is not deployable: `restated` and what is downstream.
    assert dev.report() == materializations(*EVERYTHING)
    assert dev.due() == set()
    a_week_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=7)
    days = ["--start", f"{a_week_ago:%Y-%m-%d}", "--end", f"{a_week_ago:%Y-%m-%d}"]
    plan(deployment, "--restate-model", "signals.late", *days)
    assert ("late", "Observation") in dev.report()
    assert "late" in dev.due()


class Documents(SubprocessLauncher):
    """Gives out documents in place of a runner."""

    _documents: list[dict[str, Any]] = PrivateAttr()

    def __init__(self, documents: list[dict[str, Any]]) -> None:
        super().__init__()
        self._documents = documents

    def run_to_end(self, arguments: Sequence[str], *, timeout: float | None = None) -> str:
        return json.dumps(self._documents.pop(0))


def test_sensor_reports_each_of_200_changes_once(deployment: Deployment) -> None:
    script = Path(__file__).with_name("change_state.py")
    command = [str(RUNNER_BIN / "python"), str(script), str(deployment.project)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE)
    rounds = [json.loads(line) for line in done.stdout.splitlines()]
    launcher = Documents([each["document"] for each in rounds])
    with dg.DagsterInstance.ephemeral() as instance:
        replayed = CodeLocation(deployment.project, instance, launcher=launcher)
        for each in rounds:
            expected = {(model, kind) for model, kind in each["done"].items() if kind}
            assert replayed.report() == expected, each
        assert len(rounds[1:]) * len(EVERYTHING) == 200
        assert CodeLocation(deployment.project, instance).report() == set()  # by a real runner


def test_daemon_reports_plan_and_shell_run(deployment: Deployment) -> None:
    deployment.write_definitions(DEFINITIONS.format(project=str(deployment.project)))
    (deployment.home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with daemon(deployment):
        wait_until(lambda: recorded_at(deployment).keys() == EVERYTHING, "the plan is reported")
        planned = recorded_at(deployment)
        run_beside(deployment)
        wait_until(
            lambda: all(recorded_at(deployment)[name] > planned[name] for name in EVERYTHING),
            "the run in a shell is reported",
        )
        with deployment.instance() as instance:
            assert instance.get_run_records() == []


def recorded_at(deployment: Deployment) -> dict[str, float]:
    """Return SQLMesh's time of recording of each model that Dagster shows as materialized."""
    found = {}
    with deployment.instance() as instance:
        for record in instance.get_asset_records():
            event = record.asset_entry.last_materialization
            if event is not None and event.asset_materialization is not None:
                metadata = event.asset_materialization.metadata
                assert metadata["sqlmesh/recorded_by"].value == "outside"
                name = record.asset_entry.asset_key.path[-1]
                found[name] = float(str(metadata["sqlmesh/recorded_at"].value))
    return found


def run_beside(deployment: Deployment) -> None:
    """Run SQLMesh in a shell, as soon as the sensor's runner has left the DuckDB file alone."""

    def run() -> bool:
        try:
            deployment.sqlmesh("run")
        except AssertionError as exc:
            if "lock" not in str(exc):
                raise
            return False
        return True

    wait_until(run, "the state is free", every=0.5)
