"""A code location: raw tables by Dagster, models by SQLMesh, a report by Dagster, one lineage.

Dagster never imports SQLMesh here: the runner has an environment of its own, which SQLMESH_RUNNER
(or the PATH) names.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg

from dagster_sqlmesh_pipes import sqlmesh_definitions_factory

HERE = Path(__file__).parent
sys.path.append(str(HERE))  # so that `dagster dev -f …/definitions.py` works from any folder

from raw_data import connect, write_raw_tables  # noqa: E402

REPORTS = HERE / "reports"


# One step for both tables: two would ask for the DuckDB file at once.
@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            ["raw", "events"],
            group_name="raw",
            description="What customers did in the shop, for a week.",
        ),
        dg.AssetSpec(
            ["raw", "customers"], group_name="raw", description="The shop's customers as of now."
        ),
    ]
)
def raw_tables() -> Iterator[dg.MaterializeResult[None]]:
    """Load the raw tables: SQLMesh's external models."""
    for table, rows in write_raw_tables().items():
        yield dg.MaterializeResult(asset_key=table.split("."), metadata={"dagster/row_count": rows})


@dg.asset(
    deps=[["shop", "marts", "daily_revenue"]],
    group_name="reports",
    # DuckDB lets one process at a time have the file; a run of the schedule may just have it.
    retry_policy=dg.RetryPolicy(max_retries=3, delay=5),  # seconds
)
def daily_report() -> dg.MaterializeResult[None]:
    """Write the revenue of the last seven days as a Markdown table."""
    with closing(connect()) as connection:
        cursor = connection.cursor()
        cursor.execute(
            "SELECT day, SUM(orders), SUM(revenue) FROM shop.marts.daily_revenue "
            "GROUP BY day ORDER BY day DESC LIMIT 7"
        )
        days = cursor.fetchall()
    lines = [
        "| day | orders | revenue |",
        "|---|--:|--:|",
        *(f"| {day} | {orders} | {revenue:.2f} € |" for day, orders, revenue in days),
    ]
    report = "\n".join(lines) + "\n"
    REPORTS.mkdir(exist_ok=True)
    path = REPORTS / "daily_revenue.md"
    path.write_text(report, encoding="utf-8")
    return dg.MaterializeResult(
        metadata={"report": dg.MetadataValue.md(report), "path": dg.MetadataValue.path(path)}
    )


defs = dg.Definitions.merge(
    sqlmesh_definitions_factory(
        project_dir=HERE,
        gateway="postgres" if os.environ.get("SHOP_PG_HOST") else "duckdb",
        environment="prod",
        # raw.events is what `raw_tables` writes to raw/events.
        external_asset_mapping="{node.schema}/{node.name}",
    ),
    dg.Definitions(
        assets=[raw_tables, daily_report],
        schedules=[
            # Between the ticks of the SQLMesh schedule: the two must not meet at the DuckDB file.
            dg.ScheduleDefinition(
                name="raw_tables_schedule",
                target=dg.AssetSelection.assets(raw_tables),
                cron_schedule="2-59/5 * * * *",
            ),
        ],
    ),
)
