"""Results stored as events have what Dagster stores of outputs."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
import pytest
from unit.orchestrator.shop import Make, materialized, run

from dagster_sqlmesh_pipes import (
    SQLMeshResource,
    sqlmesh_adaptive_schedule_factory,
    sqlmesh_assets,
    sqlmesh_assets_factory,
)
from dagster_sqlmesh_pipes.run.publisher import ResultPublisher
from dagster_sqlmesh_pipes.testing import FakeLauncher, check, finished, materialization

RAW = dg.AssetKey(["external", "shop", "raw", "events"])
EVENTS, ORDERS, CUSTOMERS = (
    dg.AssetKey(["shop", *name.split(".")])
    for name in ("staging.events", "marts.orders", "marts.customers")
)
RESULTS = [
    materialization(EVENTS, rows=3),
    check(EVENTS, "not_null", passed=True, failing=0),
    materialization(ORDERS, rows=2),
    check(ORDERS, "not_null", passed=False),
    check(ORDERS, "positive", passed=False, severity="WARN"),
]


@dg.asset(key=RAW)
def raw_events() -> dg.MaterializeResult[Any]:
    return dg.MaterializeResult(data_version=dg.DataVersion("raw 7"))


def stored(make_resource: Make, instance: dg.DagsterInstance) -> Mapping[str, Any]:
    """Run with an upstream asset that has a version, and return what Dagster knows then."""
    dg.materialize([raw_events], instance=instance)
    resource = make_resource(FakeLauncher(messages=[*RESULTS, finished()]))
    assets = sqlmesh_assets_factory(sqlmesh_resource=resource)
    result = dg.materialize(assets, instance=instance)
    found: dict[str, Any] = {}
    for event in result.get_asset_materialization_events():
        made = event.materialization
        tags = {
            name: value for name, value in (made.tags or {}).items() if "event_pointer" not in name
        }
        found[made.asset_key.to_user_string()] = (tags, made.metadata, made.description)
    for record in instance.get_asset_records([EVENTS, ORDERS]):
        last = record.asset_entry.last_materialization_record
        assert last is not None
        found[f"target of {record.asset_entry.asset_key}"] = last.storage_id
    for evaluation in result.get_asset_check_evaluations():
        target = evaluation.target_materialization_data
        assert target is not None
        found[str(evaluation.asset_check_key)] = (
            evaluation.passed,
            evaluation.severity,
            evaluation.metadata,
            evaluation.blocking,
            target.storage_id,
        )
        assert target.run_id == result.run_id
    return found


def test_events_equal_what_dagster_makes_of_outputs(
    make_resource: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        events = stored(make_resource, instance)
    monkeypatch.setattr(ResultPublisher, "publish", lambda _self, result: result)
    with dg.DagsterInstance.ephemeral() as instance:
        outputs = stored(make_resource, instance)
    by_name = {name: value for name, value in events.items() if "target" not in name}
    assert by_name.keys() == {name for name in outputs if "target" not in name}
    for name, value in by_name.items():
        assert value[:-1] == outputs[name][:-1]  # without the target's number, which differs
    for found in (events, outputs):  # each check points to its asset's materialization
        for key, name in ((EVENTS, "not_null"), (ORDERS, "not_null"), (ORDERS, "positive")):
            evaluation = found[str(dg.AssetCheckKey(key, name))]
            assert evaluation[-1] == found[f"target of {key}"]
    tags, _, _ = events["shop/marts/orders"]
    assert tags["dagster/input_data_version/shop/staging/events"] == "1"
    assert tags["dagster/code_version"] == "hash of marts.orders"
    tags, _, _ = events["shop/staging/events"]
    assert tags["dagster/input_data_version/external/shop/raw/events"] == "raw 7"


def test_each_result_is_one_event(make_resource: Make) -> None:
    result = run(make_resource(FakeLauncher(messages=[*RESULTS, finished()])))
    kinds = [event.event_type_value for event in result.all_events]
    assert kinds.count("STEP_OUTPUT") == 0
    assert kinds.count("ASSET_MATERIALIZATION") == 2
    assert kinds.count("ASSET_CHECK_EVALUATION") == 3


def test_asset_downstream_in_the_same_run_gets_an_output(make_resource: Make) -> None:
    @dg.asset(deps=[ORDERS])
    def report() -> None: ...

    @dg.asset(deps=[CUSTOMERS])
    def letters() -> None: ...

    resource = make_resource(FakeLauncher(messages=[*RESULTS, finished()]))
    assets = sqlmesh_assets_factory(sqlmesh_resource=resource)
    result = dg.materialize([*assets, report, letters])
    assert materialized(result) == ["shop/staging/events", "shop/marts/orders", "report"]
    kinds = [event.event_type_value for event in result.events_for_node("sqlmesh_prod")]
    assert kinds.count("STEP_OUTPUT") == 1


def test_function_may_add_metadata_to_results(make_resource: Make) -> None:
    resource = make_resource(FakeLauncher(messages=[*RESULTS, finished()]))

    @sqlmesh_assets(project=resource.project)
    def models(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource) -> Iterator[Any]:
        for result in sqlmesh.run(context):
            if isinstance(result, dg.MaterializeResult):
                context.add_asset_metadata({"team": "sales"}, asset_key=result.asset_key)
                yield result._replace(metadata={**(result.metadata or {}), "seen": True})
            else:
                yield result

    result = dg.materialize([models], resources={"sqlmesh": resource})
    for event in result.get_asset_materialization_events():
        metadata = event.materialization.metadata
        assert (metadata["team"].value, metadata["seen"].value) == ("sales", True)


def test_scheduled_job_plans_no_checks_and_stores_their_results(
    make_resource: Make, instance: dg.DagsterInstance
) -> None:
    resource = make_resource(FakeLauncher(messages=[*RESULTS, finished()]))
    _, job, assets = sqlmesh_adaptive_schedule_factory(sqlmesh_resource=resource)
    resolved = dg.Definitions(assets=assets, jobs=[job]).resolve_job_def(job.name)
    result = resolved.execute_in_process(instance=instance)
    assert result.success
    planned = instance.all_logs(
        result.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED
    )
    assert planned == []
    assert [each.check_name for each in result.get_asset_check_evaluations()] == [
        "not_null",
        "not_null",
        "positive",
    ]
    key = dg.AssetCheckKey(ORDERS, "positive")
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])
    assert found[key].status.value == "FAILED"
