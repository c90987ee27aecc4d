"""What SQLMesh recorded outside of Dagster is reported by the next run."""

from typing import Any

import dagster as dg
import pytest
from unit.orchestrator.shop import Make, fqn, materialized

from dagster_sqlmesh_pipes import SQLMeshResource, sqlmesh_assets_factory
from dagster_sqlmesh_pipes.testing import FakeLauncher, custom, finished, materialization

EVENTS, ORDERS = "shop/staging/events", "shop/marts/orders"


def entry(name: str, *, at: int = 1767571812345, **changes: Any) -> dict[str, Any]:
    return {
        "model": fqn(name),
        "asset_key": f"shop/{name.replace('.', '/')}",
        "version": "153",
        "fingerprint": "153_2_0_0",
        "physical_table": f"shop.sqlmesh__{name}__153",
        "interval_start": "2026-01-01T00:00:00+00:00",
        "interval_end": "2026-01-05T00:00:00+00:00",
        "gaps": 0,
        "complete": True,
        "recorded_at": "2026-01-05T00:10:12.345000+00:00",
        "data_version": f"153:1767571200000:{at}",
        "upstream_runs": False,
        **changes,
    }


def recorded(*entries: dict[str, Any]) -> dict[str, Any]:
    return custom("models_recorded", environment="prod", plan_id="7", models=list(entries))


def resource_of(make_resource: Make, *messages: Any, **options: Any) -> SQLMeshResource:
    launcher = FakeLauncher(messages=[*messages, finished("nothing_to_do")])
    return make_resource(launcher, **options)


@dg.asset(deps=[ORDERS.split("/")])
def report() -> None: ...


def run(
    resource: SQLMeshResource, instance: dg.DagsterInstance, *others: dg.AssetsDefinition
) -> dg.ExecuteInProcessResult:
    assets = [*sqlmesh_assets_factory(sqlmesh_resource=resource), *others]
    return dg.materialize(assets, instance=instance, raise_on_error=False)


def test_first_run_after_plan_reports_all_once(
    make_resource: Make, instance: dg.DagsterInstance
) -> None:
    resource = resource_of(make_resource, recorded(entry("staging.events"), entry("marts.orders")))
    first = run(resource, instance, report)
    assert first.success
    assert materialized(first) == [EVENTS, ORDERS, "report"]
    event = first.asset_materializations_for_node("sqlmesh_prod")[0]
    metadata = {key: value.value for key, value in event.metadata.items()}
    assert metadata["sqlmesh/recorded_by"] == "outside"
    assert metadata["sqlmesh/recorded_at"] == 1767571812.345
    said = "Recorded by SQLMesh outside of Dagster, on 2026-01-05 at 00:10:12 UTC."
    assert event.description == said
    assert event.tags is not None
    assert event.tags["dagster/data_version"] == "153:1767571200000:1767571812345"
    second = run(resource, instance, report)
    assert second.success
    assert materialized(second) == []


def test_only_news_is_reported(make_resource: Make, instance: dg.DagsterInstance) -> None:
    run(resource_of(make_resource, recorded(entry("staging.events"))), instance)
    later = recorded(entry("staging.events"), entry("marts.orders", at=1767571812346))
    assert materialized(run(resource_of(make_resource, later), instance)) == [ORDERS]


def test_model_that_runs_after_a_restart_is_reported_again(
    make_resource: Make, instance: dg.DagsterInstance
) -> None:
    messages = [
        recorded(entry("staging.events"), entry("marts.orders", upstream_runs=True)),
        custom("run_restarted"),
        materialization(EVENTS),
        materialization(ORDERS),
    ]
    result = run(resource_of(make_resource, *messages), instance, report)
    assert result.success
    assert materialized(result) == [EVENTS, ORDERS, EVENTS, ORDERS, "report"]


def test_asset_below_a_recording_runs_though_its_upstream_runs_too(
    make_resource: Make, instance: dg.DagsterInstance
) -> None:
    messages = [recorded(entry("marts.orders", upstream_runs=True)), materialization(EVENTS)]
    result = run(resource_of(make_resource, *messages), instance, report)
    assert result.success
    assert materialized(result) == [ORDERS, EVENTS, "report"]


def test_recording_with_running_upstream_keeps_dagster_s_order(
    make_resource: Make, instance: dg.DagsterInstance
) -> None:
    messages = [recorded(entry("marts.orders", upstream_runs=True)), materialization(EVENTS)]

    @dg.asset(deps=[EVENTS.split("/"), ORDERS.split("/")])
    def both() -> None: ...

    result = run(resource_of(make_resource, *messages), instance, both)
    assert result.success
    assert materialized(result) == [ORDERS, EVENTS]


@pytest.mark.parametrize("adopt", [True, False])
def test_runner_is_asked_for_recordings_unless_switched_off(
    make_resource: Make, instance: dg.DagsterInstance, *, adopt: bool
) -> None:
    resource = resource_of(make_resource, adopt=adopt)
    run(resource, instance)
    launcher = resource.launcher
    assert isinstance(launcher, FakeLauncher)
    assert launcher.requests[0].context["extras"]["adopt"] is adopt


def test_another_environment_is_not_adopted(
    make_resource: Make, instance: dg.DagsterInstance
) -> None:
    resource = resource_of(
        make_resource, recorded(entry("marts.orders")), allowed_environments=["dev"]
    )
    result = dg.materialize(
        sqlmesh_assets_factory(sqlmesh_resource=resource),
        instance=instance,
        run_config={"ops": {"sqlmesh_prod": {"config": {"environment": "dev"}}}},
    )
    assert materialized(result) == []


def test_failed_models_and_those_behind_have_observations(
    make_resource: Make, instance: dg.DagsterInstance
) -> None:
    failed = custom(
        "model_failed",
        model=fqn("staging.events"),
        asset_key=EVENTS,
        error="no such column",
        query="SELECT x",
        interval_start="2026-01-01T00:00:00+00:00",
        interval_end="2026-01-02T00:00:00+00:00",
    )
    behind = custom(
        "model_skipped",
        model=fqn("marts.orders"),
        asset_key=ORDERS,
        reason="upstream_failed",
        upstream=[fqn("staging.events")],
    )
    idle = custom("model_skipped", model=fqn("marts.customers"), asset_key="shop/marts/customers")
    launcher = FakeLauncher(messages=[failed, behind, idle, finished("failed")])
    result = run(make_resource(launcher), instance)
    assert not result.success
    observations = [
        event.asset_observation_data.asset_observation
        for event in result.get_asset_observation_events()
    ]
    assert [each.asset_key.to_user_string() for each in observations] == [EVENTS, ORDERS]
    interval = "[2026-01-01 00:00 to 2026-01-02 00:00 UTC]"
    said = f"Failed: {fqn('staging.events')}: no such column {interval}"
    assert observations[0].description == said
    assert "SELECT x" in str(observations[0].metadata["sqlmesh/query"].value)
    assert observations[1].metadata["sqlmesh/failed"].value == fqn("staging.events")
    assert materialized(result) == []
