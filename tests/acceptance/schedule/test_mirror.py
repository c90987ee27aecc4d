"""Dagster shows what SQLMesh recorded, whatever was lost on the way."""

import datetime
import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from acceptance.local.deployment import RUNNER, Deployment, processes_with
from acceptance.schedule.conftest import deploy_planned
from acceptance.schedule.location import CodeLocation, instance_of
from patience import PATIENCE, wait_until

from dagster_sqlmesh_pipes import SubprocessLauncher
from dagster_sqlmesh_pipes.launchers.base import ExitStatus, Invocation, LaunchRequest

DAILY = {"first", "second", "third"}
THIRDS = ("third", "number_of_rows")
DEFINITIONS = """\
from dagster_sqlmesh_pipes import sqlmesh_definitions_factory

defs = sqlmesh_definitions_factory(project_dir={project!r})
"""


@pytest.fixture
def deployment(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Deployment:
    return deploy_planned("mirrored", tmp_path_factory, tmp_path, monkeypatch)


@pytest.fixture
def instance(deployment: Deployment) -> Iterator[dg.DagsterInstance]:
    with instance_of(deployment) as instance:
        yield instance


def key_of(model: str) -> dg.AssetKey:
    return dg.AssetKey(["mirrored", "mirror", model])


def test_eager_fires_below_a_seed_once_a_run_has_reported_it(
    deployment: Deployment, instance: dg.DagsterInstance
) -> None:
    @dg.asset(deps=[key_of("names")], automation_condition=dg.AutomationCondition.eager())
    def labels() -> None: ...

    location = CodeLocation(deployment.project, instance, labels)
    evaluate = partial(
        dg.evaluate_automation_conditions,
        location.definitions,
        instance,
        asset_selection=dg.AssetSelection.assets(labels),
    )
    before = evaluate()
    assert before.total_requested == 0
    run = location.run_due()
    assert run.success, run.error
    assert run.adopted.keys() == {"names", "rarely"}
    assert evaluate(cursor=before.cursor).total_requested == 1


def test_results_of_a_killed_runner_come_with_the_next_run(
    deployment: Deployment, instance: dg.DagsterInstance
) -> None:
    location = CodeLocation(deployment.project, instance)
    kill = deployment.project / "kill_runner"
    kill.touch()
    killed = location.run()
    assert not killed.success
    assert "SIGKILL" in killed.error
    assert killed.materialized.keys() == {"first"}
    kill.unlink()
    run = location.run()
    assert run.success, run.error
    assert run.adopted.keys() == {"second"}
    assert run.materialized.keys() == {"third"}


def test_results_of_a_killed_step_come_with_the_next_run(
    deployment: Deployment, instance: dg.DagsterInstance
) -> None:
    deployment.write_definitions(DEFINITIONS.format(project=str(deployment.project)))
    deployment.runner = RUNNER  # the step is its parent
    kill = deployment.project / "kill_step"
    kill.touch()
    with deployment.executing() as (worker, _):  # the step is a process of its own
        worker.wait(PATIENCE)
    killed = deployment.last_run()
    assert not killed.success
    assert "second" not in killed.materialized
    runner = f"sqlmesh-runner run --project-dir {deployment.project}"
    wait_until(lambda: not [*processes_with(runner)], "the runner has found its parent gone")
    kill.unlink()
    run = CodeLocation(deployment.project, instance).run()
    assert run.success, run.error
    assert "second" in run.adopted
    assert all(last_materialization(instance, key_of(name)) for name in DAILY)


def test_results_that_a_full_disk_refused_come_with_the_next_run(
    deployment: Deployment, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = type(instance.event_log_storage)
    store_event = storage.store_event

    def store_unless_full(storage: Any, event: dg.EventLogEntry) -> None:
        made = event.asset_materialization
        if made is not None and made.asset_key.path[-1] == "second":
            message = "database or disk is full"
            raise sqlite3.OperationalError(message)
        store_event(storage, event)

    location = CodeLocation(deployment.project, instance)
    with monkeypatch.context() as full:
        full.setattr(storage, "store_event", store_unless_full)
        failed = location.run()
    assert not failed.success
    assert "second" not in failed.materialized
    run = location.run()
    assert run.success, run.error
    assert "second" in {**run.adopted, **run.materialized}
    assert all(last_materialization(instance, key_of(name)) for name in DAILY)


class Lossy(SubprocessLauncher):
    """Loses the materialization of `second`."""

    def launch(self, request: LaunchRequest) -> Invocation:
        return LossyInvocation(super().launch(request))


class LossyInvocation(Invocation):
    def __init__(self, whole: Invocation) -> None:
        self._whole = whole
        self.name = whole.name

    def read(self) -> bytes | None:
        line = self._whole.read()
        if line and b'"report_asset_materialization"' in line and b"mirror/second" in line:
            return self._whole.read()
        return line

    def stop(self) -> None:
        self._whole.stop()

    def wait(self) -> ExitStatus:
        return self._whole.wait()

    def log_tail(self) -> str:
        return self._whole.log_tail()

    def __exit__(self, *_: object) -> None:
        self._whole.__exit__(None, None, None)


def test_results_lost_in_a_gap_come_with_the_next_run(
    deployment: Deployment, instance: dg.DagsterInstance
) -> None:
    lossy = CodeLocation(deployment.project, instance, launcher=Lossy()).run()
    assert not lossy.success
    assert "never arrived" in lossy.error
    assert lossy.materialized.keys() == DAILY
    assert lossy.materialized["second"].metadata["sqlmesh/complete"].value is False
    run = CodeLocation(deployment.project, instance).run()
    assert run.success, run.error
    assert run.adopted.keys() == {"second"}
    assert run.materialized == {}


def test_failed_run_leaves_what_is_up_to_date_as_it_was(
    deployment: Deployment, instance: dg.DagsterInstance
) -> None:
    location = CodeLocation(deployment.project, instance)
    assert location.run(ignore_cron=True).success
    (deployment.project / "broken").touch()
    tomorrow = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    assert location.due(tomorrow) == DAILY
    failed = location.run_due(tomorrow, execution_time=tomorrow.isoformat())
    assert not failed.success
    assert failed.materialized.keys() == {"first", "second"}
    assert red(instance) == {"third"}
    assert verdicts(instance) == {
        ("first", "not_null"): "SUCCEEDED",
        ("second", "not_null"): "SUCCEEDED",
        THIRDS: "SUCCEEDED",
        ("rarely", "not_null"): "SUCCEEDED",
    }


def red(instance: dg.DagsterInstance) -> set[str]:
    """Return the assets that Dagster's UI shows as failed.

    Those are the ones that the last run of theirs planned, failed and did not materialize.
    """
    found = set()
    for record in instance.get_asset_records():
        entry = record.asset_entry
        run = instance.get_run_by_id(entry.last_run_id or "")
        last = entry.last_materialization
        if (
            run
            and run.status == dg.DagsterRunStatus.FAILURE
            and (last is None or last.run_id != run.run_id)
        ):
            found.add(entry.asset_key.path[-1])
    return found


def verdicts(instance: dg.DagsterInstance) -> dict[tuple[str, str], str]:
    """Return what Dagster's UI shows of each check of the last materializations."""
    checks = {("first", "not_null"), ("second", "not_null"), ("rarely", "not_null"), THIRDS}
    keys = [dg.AssetCheckKey(key_of(asset), check) for asset, check in checks]
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    return {
        (key.asset_key.path[-1], key.name): record.status.value
        for key, record in found.items()
        if target_of(record) == last_materialization(instance, key.asset_key)
    }


def target_of(record: Any) -> int | None:
    """Return the id of the materialization that a check's execution is about."""
    event = record.event.dagster_event if record.event else None
    data = event.event_specific_data if event else None
    target = getattr(data, "target_materialization_data", None)
    return target.storage_id if target else None


def last_materialization(instance: dg.DagsterInstance, key: dg.AssetKey) -> int | None:
    (record,) = instance.get_asset_records([key])
    last = record.asset_entry.last_materialization_record
    return last.storage_id if last else None
