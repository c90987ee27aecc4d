"""dlt loads tables, SQLMesh makes models of them, dbt reports on those: one code location."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import dlt
from dagster_dbt import DbtCliResource, DbtProject, dbt_assets
from dagster_dlt import DagsterDltResource, dlt_assets

from dagster_sqlmesh_pipes import sqlmesh_definitions_factory

HERE = Path(__file__).parent
# One DuckDB file for all three; SQLMesh and dbt read the variable.
WAREHOUSE = os.environ.setdefault("WAREHOUSE", str(HERE / "warehouse.db"))


@dlt.source
def shop() -> Any:
    @dlt.resource(write_disposition="replace")
    def orders() -> Iterator[dict[str, Any]]:
        for number in range(6):
            yield {"id": number, "ordered_on": f"2026-01-0{1 + number % 2}", "amount": number}

    return orders


pipeline = dlt.pipeline("shop", dataset_name="raw", destination=dlt.destinations.duckdb(WAREHOUSE))


@dlt_assets(dlt_source=shop(), dlt_pipeline=pipeline)
def loads(context: dg.AssetExecutionContext, dlt_resource: DagsterDltResource) -> Iterator[Any]:
    yield from dlt_resource.run(context)


reports_project = DbtProject(project_dir=HERE / "reports")
reports_project.prepare_if_dev()


@dbt_assets(manifest=reports_project.manifest_path)
def reports(context: dg.AssetExecutionContext, dbt: DbtCliResource) -> Iterator[Any]:
    yield from dbt.cli(["build"], context=context).stream()


defs = dg.Definitions.merge(
    dg.Definitions(
        assets=[loads, reports],
        resources={"dlt_resource": DagsterDltResource(), "dbt": DbtCliResource(reports_project)},
    ),
    sqlmesh_definitions_factory(
        project_dir=HERE / "warehouse",
        # dagster-dlt names an asset dlt_<source>_<resource>.
        external_asset_mapping="dlt_shop_{node.name}",
    ),
)
