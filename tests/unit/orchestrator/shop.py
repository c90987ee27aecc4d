"""A manifest made by hand, and Dagster runs over it."""

from collections.abc import Callable, Sequence
from typing import Any

import dagster as dg

from dagster_sqlmesh_pipes import SQLMeshResource, sqlmesh_assets_factory


def fqn(name: str) -> str:
    return ".".join(f'"{part}"' for part in ["shop", *name.split(".")])


def model(name: str, **other: Any) -> dict[str, Any]:
    schema, view = name.split(".")
    return {
        "fqn": fqn(name),
        "name": name,
        "view_name": view,
        "catalog": "shop",
        "schema_name": schema,
        "kind": {"name": "FULL"},
        "dialect": "duckdb",
        "data_hash": f"hash of {name}",
        **other,
    }


def audit(name: str, digest: str = "00000000", **other: Any) -> dict[str, Any]:
    return {
        "id": f"{name}:{digest}",
        "name": name,
        "query": "SELECT 1",
        "dialect": "duckdb",
        **other,
    }


def manifest(models: Sequence[dict[str, Any]], **other: Any) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "generator": {"name": "sqlmesh-runner", "version": "0.1.0", "sqlmesh_version": "0.236.4"},
        "project": {
            "gateway": "duckdb",
            "environment": "prod",
            "default_catalog": "shop",
            "dialect": "duckdb",
        },
        "models": list(models),
        **other,
    }


SHOP = [
    model("staging.events", depends_on=[fqn("raw.events")], audits=[audit("not_null")]),
    model(
        "marts.orders",
        path="models/orders.sql",
        depends_on=[fqn("staging.events")],
        audits=[audit("not_null"), audit("positive", blocking=False)],
    ),
    model("marts.customers", depends_on=[fqn("staging.events")]),
]

Make = Callable[..., SQLMeshResource]


def run(
    resource: SQLMeshResource, *, selection: Any = None, run_config: Any = None, **options: Any
) -> dg.ExecuteInProcessResult:
    """Run the resource's assets in this process; a failing step does not raise."""
    assets = sqlmesh_assets_factory(sqlmesh_resource=resource, **options)
    return dg.materialize(assets, selection=selection, run_config=run_config, raise_on_error=False)


def materialized(result: dg.ExecuteInProcessResult) -> list[str]:
    return [
        "/".join(event.asset_key.path)
        for event in result.get_asset_materialization_events()
        if event.asset_key
    ]


def step_error(result: dg.ExecuteInProcessResult) -> str:
    failure = result.get_step_failure_events()[0].step_failure_data
    assert failure.error is not None
    described = failure.user_failure_data.description if failure.user_failure_data else None
    return described or failure.error.to_string()
