"""The sensor's evaluations: what it reports, skips and remembers."""

import datetime
import json
import random
from collections.abc import Sequence
from typing import Any

import dagster as dg
import pytest
from patience import wait_until
from unit.orchestrator.schedule.evaluation import asked, evaluate, run_of
from unit.orchestrator.shop import Make, fqn, model
from unit.orchestrator.state.states import Evaluations, StateLauncher, recorded

from dagster_sqlmesh_pipes import SQLMeshResource, sqlmesh_definitions_factory
from dagster_sqlmesh_pipes.errors import LaunchError
from dagster_sqlmesh_pipes.run.recorded import data_version_of
from dagster_sqlmesh_pipes.run.removals import RemovalRegister
from dagster_sqlmesh_pipes.state import sqlmesh_state_sensor_factory

NIGHT = datetime.datetime(2026, 5, 5, 1, 0, tzinfo=datetime.UTC)
ALL = ("raw.seed", "staging.events", "marts.orders")
RUNNABLE = {"staging/events", "marts/orders"}


def test_plan_becomes_materializations_in_order_once(
    launcher: StateLauncher, sensor: Evaluations
) -> None:
    launcher.set(*map(recorded, ALL))
    result = sensor.evaluate()
    assert [event.asset_key.path[-1] for event in result.asset_events] == [
        "seed",
        "events",
        "orders",
    ]
    assert result.cursor == "plan:0:1"
    (orders,) = (e for e in result.asset_events if e.asset_key.path[-1] == "orders")
    assert orders.metadata["sqlmesh/recorded_by"].value == "outside"
    assert "has not changed" in sensor.evaluate().skip_message
    launcher.set(*map(recorded, ALL))  # the state was compacted: another cursor, the same state
    assert "Dagster knows all" in sensor.evaluate().skip_message
    assert sensor.cursor == "plan:0:2"


def test_only_what_was_recorded_since_is_reported(
    launcher: StateLauncher, sensor: Evaluations
) -> None:
    launcher.set(*map(recorded, ALL))
    sensor.evaluate()
    launcher.set(
        recorded("raw.seed"),
        recorded("staging.events", "2026-05-06T00:00", "2026-05-06T00:01"),
        recorded("marts.orders", version="154"),
    )
    assert sensor.events() == [("events", "Materialization"), ("orders", "Materialization")]


def test_removed_intervals_become_one_observation(
    launcher: StateLauncher, sensor: Evaluations
) -> None:
    launcher.set(*map(recorded, ALL))
    sensor.evaluate()
    for removed in (
        recorded("marts.orders", "2026-05-01T00:00", "2026-05-01T00:10"),
        recorded("marts.orders", "2026-05-01T00:00", "2026-05-01T00:10", gaps=1),
        recorded("marts.orders", start="2026-01-02T00:00"),
        recorded("marts.orders", None),
    ):
        launcher.set(removed)
        assert sensor.events() == [("orders", "Observation")]
        launcher.set(removed)
        assert sensor.events() == []


def test_pending_restatement_becomes_an_observation(
    launcher: StateLauncher, sensor: Evaluations
) -> None:
    launcher.set(recorded("marts.orders"))
    sensor.evaluate()
    launcher.set(recorded("marts.orders", pending=True))
    assert sensor.events() == [("orders", "Observation")]
    launcher.set(recorded("marts.orders", recorded_at="2026-05-06T00:00"))
    assert sensor.events() == [("orders", "Materialization")]


def test_nothing_recorded_and_never_known_is_not_reported(
    launcher: StateLauncher, sensor: Evaluations
) -> None:
    launcher.set(recorded("marts.orders", None), recorded("marts.unknown_to_dagster"))
    assert sensor.events() == []


def test_only_models_of_the_selected_assets_are_reported(
    launcher: StateLauncher, resource: SQLMeshResource, instance: dg.DagsterInstance
) -> None:
    definitions = sqlmesh_definitions_factory(
        manifest_path=resource.project.manifest_path, launcher=launcher, select="marts.*"
    )
    (sensor,) = definitions.sensors or ()
    launcher.set(*map(recorded, ALL))
    assert Evaluations(sensor, instance).events() == [("orders", "Materialization")]


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING])
def test_run_in_progress_skips_and_keeps_cursor(
    launcher: StateLauncher, sensor: Evaluations, status: dg.DagsterRunStatus
) -> None:
    launcher.set(recorded("marts.orders"))
    sensor.evaluate()
    run = run_of(sensor.instance, status)
    launcher.set(recorded("marts.orders", "2026-05-06T00:00", "2026-05-06T00:01"))
    assert f"/runs/{run.run_id}" in sensor.evaluate().skip_message
    assert sensor.cursor == "plan:0:1"
    sensor.instance.report_run_canceled(run)
    # It is skipped as well while the run has just ended.
    assert wait_until(sensor.events, "the evaluation after the run") == [
        ("orders", "Materialization")
    ]


def test_run_that_ends_while_state_is_read_skips(
    launcher: StateLauncher, sensor: Evaluations
) -> None:
    """The state as it was read lacks what the run recorded: it must not look like a removal."""
    launcher.set(recorded("marts.orders"))
    sensor.evaluate()

    def run() -> None:
        newer = recorded("marts.orders", "2026-05-06T00:00", "2026-05-06T00:01")
        sensor.instance.report_runless_asset_event(
            dg.AssetMaterialization(
                ["shop", "marts", "orders"], tags={"dagster/data_version": newer["data_version"]}
            )
        )
        run_of(sensor.instance, dg.DagsterRunStatus.SUCCESS)

    launcher.set(recorded("marts.orders"))
    launcher.meanwhile(run)
    result = sensor.evaluate()
    assert "in progress" in result.skip_message
    assert result.asset_events == []
    assert sensor.cursor == "plan:0:1"


def test_more_than_500_events_come_with_several_evaluations(
    make_resource: Make, launcher: StateLauncher, instance: dg.DagsterInstance
) -> None:
    names = [f"marts.model_{number:03}" for number in range(700)]
    resource = make_resource(launcher, [model(name) for name in names])
    sensor = Evaluations(sqlmesh_state_sensor_factory(sqlmesh_resource=resource), instance)
    launcher.set(*map(recorded, names))
    first = sensor.evaluate()
    assert (len(first.asset_events), sensor.cursor) == (500, None)
    second = sensor.evaluate()
    assert (len(second.asset_events), sensor.cursor) == (200, "plan:0:1")
    reported = [event.asset_key for event in [*first.asset_events, *second.asset_events]]
    assert len(set(reported)) == len(names)


@pytest.mark.parametrize(
    ("state_engine", "option", "status"),
    [
        ("postgres", None, dg.DefaultSensorStatus.RUNNING),
        ("duckdb", None, dg.DefaultSensorStatus.STOPPED),
        (None, None, dg.DefaultSensorStatus.STOPPED),
        ("postgres", False, dg.DefaultSensorStatus.STOPPED),
        ("duckdb", True, dg.DefaultSensorStatus.RUNNING),
    ],
)
def test_sensor_runs_by_default_unless_state_is_duckdb(
    make_resource: Make,
    launcher: StateLauncher,
    state_engine: str | None,
    option: bool | None,  # noqa: FBT001 - pytest's
    status: dg.DefaultSensorStatus,
) -> None:
    other = {"project": {"gateway": "local", "state_engine": state_engine}}
    resource = make_resource(launcher, [model("marts.orders")], other=other)
    sensor = sqlmesh_state_sensor_factory(sqlmesh_resource=resource, enable_sensor=option)
    assert sensor.default_status == status


def test_runner_has_45_seconds(launcher: StateLauncher, sensor: Evaluations) -> None:
    sensor.evaluate()
    assert launcher._timeouts == [45.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Traceback …", "can't be read"),
        (json.dumps({"schema_version": 2}), "schema version 2, and this package reads 1"),
        (json.dumps({"schema_version": 1}), "cursor"),
    ],
)
def test_unreadable_state_raises_and_keeps_cursor(
    launcher: StateLauncher, sensor: Evaluations, monkeypatch: Any, text: str, message: str
) -> None:
    monkeypatch.setattr(StateLauncher, "run_to_end", lambda *_, **__: text)
    with pytest.raises(LaunchError, match=message):
        sensor.evaluate()
    assert sensor.cursor is None


def test_tick_after_shell_run_requests_nothing(
    launcher: StateLauncher, sensor: Evaluations, resource: SQLMeshResource
) -> None:
    assert asked(evaluate(resource, sensor.instance, NIGHT)) == {"raw/seed", *RUNNABLE}
    launcher.set(*map(recorded, ALL))
    sensor.evaluate()
    assert "Nothing is due" in str(evaluate(resource, sensor.instance, NIGHT))


def test_removed_interval_is_requested_until_recorded(
    launcher: StateLauncher, sensor: Evaluations, resource: SQLMeshResource
) -> None:
    today = datetime.datetime.now(datetime.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    earlier, midnight, tomorrow = (
        f"{today + datetime.timedelta(days=days):%Y-%m-%dT00:00}" for days in (-3, 0, 1)
    )
    launcher.set(*(recorded(name, tomorrow, midnight) for name in ALL))
    sensor.evaluate()
    now = datetime.datetime.now(datetime.UTC)
    assert "Nothing is due" in str(evaluate(resource, sensor.instance, now))
    launcher.set(
        recorded("staging.events", tomorrow, midnight), recorded("marts.orders", earlier, earlier)
    )
    sensor.evaluate()
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=1)
    assert asked(evaluate(resource, sensor.instance, later)) == {"marts/orders"}
    refilled = later + datetime.timedelta(minutes=1)
    launcher.set(recorded("marts.orders", tomorrow, f"{refilled:%Y-%m-%dT%H:%M}"))
    sensor.evaluate()
    at_last = refilled + datetime.timedelta(minutes=1)
    assert "Nothing is due" in str(evaluate(resource, sensor.instance, at_last))
    assert (
        sensor.instance.get_dynamic_partitions("sqlmesh/removed_intervals/sqlmesh/duckdb/prod")
        == []
    )


def test_removal_is_later_than_a_tick_in_the_same_second(
    launcher: StateLauncher, sensor: Evaluations
) -> None:
    launcher.set(recorded("marts.orders"))
    sensor.evaluate()
    tick = datetime.datetime.now(datetime.UTC)
    launcher.set(recorded("marts.orders", None))
    sensor.evaluate()
    removals = RemovalRegister("sqlmesh/duckdb/prod").read(sensor.instance)
    assert removals[fqn("marts.orders")].at > tick


def test_200_changes_of_the_state_end_with_dagster_knowing_it(
    launcher: StateLauncher, sensor: Evaluations
) -> None:
    """Runs, plans, removals and compactions in any order, with failures between evaluations."""
    chance = random.Random(7)
    minute = datetime.datetime(2026, 5, 5, tzinfo=datetime.UTC)
    state = {name: recorded(name, None) for name in ALL}
    changes = reported = 0
    for _ in range(200):
        minute += datetime.timedelta(minutes=1)
        name, text = chance.choice(ALL), f"{minute:%Y-%m-%dT%H:%M}"
        match chance.randrange(5):
            case 0 | 1:
                state[name] = recorded(name, text, text)
            case 2:
                state[name] = recorded(name, text, text, version=str(chance.randrange(200)))
            case 3 if state[name]["data_version"]:
                state[name] = _with_removed_day(name, state[name])
        launcher.set(*state.values())
        changes += 1
        if chance.random() < 0.6:
            reported += len(sensor.evaluate().asset_events)
            assert sensor.cursor == f"plan:0:{changes}"
    reported += len(sensor.evaluate().asset_events)
    assert "has not changed" in sensor.evaluate().skip_message
    assert 30 < reported <= changes
    _assert_known(sensor.instance, list(state.values()))


def _with_removed_day(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    version, end, at = entry["data_version"].split(":")
    day, hour = datetime.timedelta(days=1), datetime.timedelta(hours=1)
    earlier = datetime.datetime.fromtimestamp(int(end) / 1000, datetime.UTC) - day
    before = datetime.datetime.fromtimestamp(int(at) / 1000, datetime.UTC) - hour
    return recorded(name, f"{earlier:%Y-%m-%dT%H:%M}", f"{before:%Y-%m-%dT%H:%M}", version=version)


def _assert_known(instance: dg.DagsterInstance, state: Sequence[dict[str, Any]]) -> None:
    """Each model's last event says what the state says."""
    for entry in state:
        key = dg.AssetKey(["shop", *entry["model"].replace('"', "").split(".")[1:]])
        (record,) = instance.get_asset_records([key])
        materialization = record.asset_entry.last_materialization_record
        observations = instance.fetch_observations(key, limit=1).records
        assert materialization is not None
        if observations and observations[0].storage_id > materialization.storage_id:
            observed = observations[0].event_log_entry.asset_observation
            assert observed is not None
            end = observed.metadata["sqlmesh/interval_end"].value
            assert end == datetime.datetime.fromisoformat(entry["interval_end"]).timestamp()
        else:
            assert data_version_of(materialization.event_log_entry) == entry["data_version"]
