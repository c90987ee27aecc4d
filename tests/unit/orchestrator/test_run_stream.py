"""The stream of a run, iterated and enriched by user code."""

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import pytest
from unit.orchestrator.shop import Make, fqn

from dagster_sqlmesh_pipes import SQLMeshResource, sqlmesh_assets
from dagster_sqlmesh_pipes.errors import ConfigurationError
from dagster_sqlmesh_pipes.testing import FakeLauncher, check, custom, finished, materialization

MESSAGES = [
    materialization("shop/staging/events", **{"sqlmesh/batches": 3}),
    check("shop/staging/events", "not_null", passed=True),
    materialization("shop/marts/orders"),
    check("shop/marts/orders", "positive", passed=False, severity="WARN"),
    finished(),
]


def run(
    make_resource: Make,
    launcher: FakeLauncher,
    body: Callable[[dg.AssetExecutionContext, SQLMeshResource], Iterator[Any]],
) -> dg.ExecuteInProcessResult:
    resource = make_resource(launcher)

    @sqlmesh_assets(project=resource.project)
    def models(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource) -> Iterator[Any]:
        yield from body(context, sqlmesh)

    return dg.materialize([models], resources={"sqlmesh": resource}, raise_on_error=False)


def test_items_know_their_models_and_take_metadata(make_resource: Make) -> None:
    seen = []

    def body(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource) -> Iterator[Any]:
        for item in sqlmesh.run(context).items():
            assert item.model is not None
            seen.append((item.model.name, item.is_failed_audit))
            yield item.with_metadata({"owner": item.model.name}).result

    result = run(make_resource, FakeLauncher(messages=MESSAGES), body)
    assert result.success
    assert sorted(seen) == [  # those reported at once: materializations first
        ("marts.orders", False),
        ("marts.orders", True),
        ("staging.events", False),
        ("staging.events", False),
    ]
    events, orders = (
        event.materialization.metadata for event in result.get_asset_materialization_events()
    )
    assert (events["owner"].value, events["sqlmesh/batches"].value) == ("staging.events", 3)
    assert orders["owner"].value == "marts.orders"
    checks = {
        each.check_name: each.metadata["owner"].value
        for each in result.get_asset_check_evaluations()
    }
    assert checks == {"not_null": "staging.events", "positive": "marts.orders"}


def test_items_have_the_messages_they_were_made_from(make_resource: Make) -> None:
    failed = custom(
        "model_failed",
        model=fqn("marts.orders"),
        asset_key="shop/marts/orders",
        error="a deadlock",
        key_of_a_newer_runner=1,
    )
    launcher = FakeLauncher(messages=[*MESSAGES[:2], failed, finished("failed", exit_code=1)])
    seen = {}

    def body(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource) -> Iterator[Any]:
        for item in sqlmesh.run(context).items():
            seen[type(item.result)] = item.message
            yield item.result

    run(make_resource, launcher, body)
    assert {kind: each["method"] for kind, each in seen.items()} == {
        dg.MaterializeResult: "report_asset_materialization",
        dg.AssetCheckResult: "report_asset_check",
        dg.AssetObservation: "report_custom_message",
    }
    assert seen[dg.MaterializeResult]["params"]["metadata"]["sqlmesh/batches"]["raw_value"] == 3
    assert seen[dg.AssetObservation]["params"] == failed["params"]


def test_warning_becomes_an_error(make_resource: Make) -> None:
    def body(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource) -> Iterator[Any]:
        for item in sqlmesh.run(context).items():
            result = item.result
            if isinstance(result, dg.AssetCheckResult) and item.is_failed_audit:
                result = result._replace(severity=dg.AssetCheckSeverity.ERROR)
            yield result

    result = run(make_resource, FakeLauncher(messages=MESSAGES), body)
    severities = {each.check_name: each.severity for each in result.get_asset_check_evaluations()}
    assert severities["positive"] == dg.AssetCheckSeverity.ERROR


def test_failed_audit_is_handled_otherwise(make_resource: Make) -> None:
    def body(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource) -> Iterator[Any]:
        for item in sqlmesh.run(context).items():
            if item.is_failed_audit:
                yield dg.AssetObservation("alerts", description=str(item.model))
            yield item.result

    result = run(make_resource, FakeLauncher(messages=MESSAGES), body)
    assert [event.asset_key for event in result.get_asset_observation_events()] == [
        dg.AssetKey("alerts")
    ]
    assert len(result.get_asset_check_evaluations()) == 2


def test_row_counts_are_fetched_for_a_single_run(make_resource: Make) -> None:
    launcher = FakeLauncher(messages=MESSAGES)

    def body(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource) -> Iterator[Any]:
        yield from sqlmesh.run(context).fetch_row_counts()

    assert run(make_resource, launcher, body).success
    assert "--row-counts" in launcher.requests[-1].arguments


def test_row_counts_after_the_start_are_an_error(make_resource: Make) -> None:
    errors = []

    def body(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource) -> Iterator[Any]:
        stream = sqlmesh.run(context)
        yield next(stream)
        with pytest.raises(ConfigurationError) as error:
            stream.fetch_row_counts()
        errors.append(str(error.value))
        yield from stream

    assert run(make_resource, FakeLauncher(messages=MESSAGES), body).success
    assert "Call it before iterating" in errors[0]
