"""Selections of models: as SQLMesh's own selector resolves them."""

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from unit.orchestrator.shop import SHOP, Make, manifest, materialized

from dagster_sqlmesh_pipes import (
    SQLMeshResource,
    build_schedule_from_sqlmesh_selection,
    build_sqlmesh_asset_selection,
    sqlmesh_adaptive_schedule_factory,
    sqlmesh_assets_factory,
)
from dagster_sqlmesh_pipes.errors import ConfigurationError
from dagster_sqlmesh_pipes.manifest import Manifest, parse_manifest, select_models
from dagster_sqlmesh_pipes.testing import FakeLauncher, finished, materialization

GOLDEN = json.loads(
    (Path(__file__).parents[2] / "contract" / "model_selectors.json").read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def corpus() -> Manifest:
    models = [
        {**each, "kind": {"name": each["kind"]}, "view_name": each["name"].rpartition(".")[2]}
        for each in GOLDEN["models"]
    ]
    return parse_manifest(manifest(models))


@pytest.mark.parametrize("selection", GOLDEN["expected"])
def test_selection_is_what_sqlmesh_makes_of_it(selection: str, corpus: Manifest) -> None:
    expected = GOLDEN["expected"][selection]
    if expected:
        assert sorted(select_models(corpus, [selection])) == expected
        return
    with pytest.raises(ConfigurationError) as error:
        select_models(corpus, [selection])
    problem = "can't be read" if expected is None else "matches no model"
    assert repr(selection) in str(error.value)
    assert problem in str(error.value)


def test_several_selections_are_united_and_exclusions_taken_away(corpus: Manifest) -> None:
    found = select_models(corpus, ["marts.*", "staging.events"], exclude=["tag:finance"])
    assert sorted(corpus.models[fqn].name for fqn in found) == [
        "marts.lookup",
        "marts.revenue",
        "staging.events",
    ]


@pytest.mark.parametrize(
    ("dialect", "name"),
    [("snowflake", '"SHOP"."MARTS"."ORDERS"'), ("mysql", '"shop"."marts"."Orders"')],
)
def test_names_are_normalized_as_the_dialect_does(dialect: str, name: str) -> None:
    catalog, schema, view = (part.strip('"') for part in name.split("."))
    one = {"fqn": name, "name": "marts.Orders", "view_name": view, "kind": {"name": "FULL"}}
    project = {"default_catalog": catalog, "dialect": dialect}
    read = parse_manifest({**manifest([one]), "project": project})
    assert select_models(read, [f"{schema.lower()}.Orders"]) == {name}


def keys_of(assets: Sequence[Any]) -> list[str]:
    return sorted(
        spec.key.path[-1]
        for made in assets
        for spec in (made.specs if isinstance(made, dg.AssetsDefinition) else [made])
    )


def test_assets_are_the_selected_models_with_their_checks(make_resource: Make) -> None:
    resource = make_resource(FakeLauncher())
    assets = sqlmesh_assets_factory(
        sqlmesh_resource=resource, select=["+marts.orders"], exclude="staging.*"
    )
    assert keys_of(assets) == ["orders"]
    assert isinstance(assets[0], dg.AssetsDefinition)
    assert {key.asset_key.path[-1] for key in assets[0].check_keys} == {"orders"}
    assert assets[0].asset_deps[dg.AssetKey(["shop", "marts", "orders"])] == {
        dg.AssetKey(["shop", "staging", "events"])
    }


def test_project_in_several_multi_assets_runs_each_model_once(make_resource: Make) -> None:
    launcher = FakeLauncher(
        messages=lambda request: [
            *(
                materialization(model["asset_key"])
                for model in (request.context["extras"] or {})["models"].values()
            ),
            finished(),
        ]
    )
    resource = make_resource(launcher)
    staging = sqlmesh_assets_factory(sqlmesh_resource=resource, select="staging.*", name="staging")
    marts = sqlmesh_assets_factory(sqlmesh_resource=resource, exclude="staging.*", name="marts")
    result = dg.materialize([*staging, *marts])
    assert result.success
    assert sorted(materialized(result)) == [
        "shop/marts/customers",
        "shop/marts/orders",
        "shop/staging/events",
    ]
    selections = [(request.context["extras"] or {})["selection"] for request in launcher.requests]
    assert selections == ["models", "models"]


def test_schedule_asks_for_selected_models_only(
    make_resource: Make, instance: dg.DagsterInstance
) -> None:
    resource = make_resource(FakeLauncher())
    assets = sqlmesh_assets_factory(sqlmesh_resource=resource, select="marts.*")
    schedule, _, _ = sqlmesh_adaptive_schedule_factory(sqlmesh_resource=resource, assets=assets)
    tick = datetime.datetime(2026, 11, 30, tzinfo=datetime.UTC)
    with dg.build_schedule_context(instance=instance, scheduled_execution_time=tick) as context:
        data = schedule.evaluate_tick(context)
    (request,) = data.run_requests or ()
    assert {key.path[-1] for key in request.asset_selection or ()} == {"orders", "customers"}


def test_asset_selection_and_schedule_from_a_selection(make_resource: Make) -> None:
    resource: SQLMeshResource = make_resource(FakeLauncher())
    assets = sqlmesh_assets_factory(sqlmesh_resource=resource)
    selection = build_sqlmesh_asset_selection(
        sqlmesh_resource=resource, select="+marts.orders", exclude="marts.customers"
    )
    runnable = [made for made in assets if isinstance(made, dg.AssetsDefinition)]
    assert {key.path[-1] for key in selection.resolve(runnable)} == {"events", "orders"}
    schedule = build_schedule_from_sqlmesh_selection(
        sqlmesh_resource=resource, job_name="orders", cron_schedule="@daily", select="marts.orders"
    )
    definitions = dg.Definitions(assets=assets, schedules=[schedule])
    job = definitions.resolve_job_def("orders")
    assert {key.path[-1] for key in job.asset_layer.selected_asset_keys} == {"orders"}
    assert (schedule.name, schedule.cron_schedule) == ("orders_schedule", "@daily")


def test_selection_without_a_model_to_run_is_an_error(make_resource: Make) -> None:
    resource = make_resource(FakeLauncher(), SHOP)
    with pytest.raises(ConfigurationError, match="no model that a run could materialize"):
        sqlmesh_assets_factory(sqlmesh_resource=resource, select="marts.*", exclude="marts.*")
