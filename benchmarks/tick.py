"""What a tick of the adaptive schedule costs: milliseconds, and the SQL statements that it takes.

    python benchmarks/tick.py [MODELS]

Run it where dagster-sqlmesh-pipes is installed. The instance is a new one on SQLite.
"""

import datetime
import json
import logging
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy

from dagster_sqlmesh_pipes import SQLMeshResource, sqlmesh_assets_factory
from dagster_sqlmesh_pipes.schedule import sqlmesh_adaptive_schedule_factory
from dagster_sqlmesh_pipes.testing import FakeLauncher

OFTEN, HOURLY = 5, 60
"""How many of a thousand models run every five minutes, and every hour; the rest are daily."""


def model(number: int, *, crons: int) -> dict[str, Any]:
    """Make a model. The daily ones are spread over as many crons."""
    cron, unit = "@daily", "day"
    if number % 1000 < OFTEN + HOURLY:
        cron, unit = (
            ("*/5 * * * *", "five_minute") if number % 1000 < OFTEN else ("7 * * * *", "hour")
        )
    elif crons > 1:
        cron = f"{number % crons % 60} {number % crons // 60} * * *"
    name = f"model_{number:04}"
    kind = {"name": "INCREMENTAL_BY_TIME_RANGE"}
    return {
        "fqn": f'"shop"."marts"."{name}"',
        "name": f"marts.{name}",
        "view_name": name,
        "catalog": "shop",
        "schema_name": "marts",
        "kind": kind,
        "cron": cron,
        "interval_unit": unit,
    }


def report(instance: dg.DagsterInstance, number: int, until: datetime.datetime) -> None:
    metadata: dict[str, Any] = {
        "sqlmesh/model": f"marts.model_{number:04}",
        "sqlmesh/environment": "prod",
        "sqlmesh/duration": 1.5,
        "sqlmesh/batches": 1,
        "sqlmesh/batches_planned": 1,
        "sqlmesh/complete": True,
        "sqlmesh/interval_start": dg.MetadataValue.timestamp(until - datetime.timedelta(days=1)),
        "sqlmesh/interval_end": dg.MetadataValue.timestamp(until),
        "sqlmesh/physical_table": f"shop.sqlmesh__marts.marts__model_{number:04}__1234567890",
        "sqlmesh/fingerprint": "1234567890_1234567890_0_0",
        "sqlmesh/plan_id": "0123456789abcdef",
    }
    instance.report_runless_asset_event(
        dg.AssetMaterialization(["shop", "marts", f"model_{number:04}"], metadata=metadata)
    )


@contextmanager
def counted() -> Iterator[list[str]]:
    """Collect the SQL statements that are sent, by anyone."""
    statements: list[str] = []

    def add(_connection: Any, _cursor: Any, statement: str, *_others: Any) -> None:
        statements.append(statement)

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", add)
    try:
        yield statements
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", add)


def tables(statements: list[str]) -> str:
    found = (re.search(r"FROM\s+(\w+)", statement) for statement in statements)
    return ", ".join(
        match[1] if match else statement.split()[0]
        for match, statement in zip(found, statements, strict=True)
    )


def main(models: int, crons: int) -> None:
    logging.disable(logging.INFO)  # the ticks name each model that is due
    with tempfile.TemporaryDirectory() as home, dg.DagsterInstance.local_temp(home) as instance:
        path = Path(home, "manifest.json")
        made = [model(number, crons=crons) for number in range(models)]
        path.write_text(
            json.dumps({"schema_version": 1, "project": {"gateway": "duckdb"}, "models": made})
        )
        resource = SQLMeshResource(manifest_path=str(path), launcher=FakeLauncher())
        assets = sqlmesh_assets_factory(sqlmesh_resource=resource)
        start = time.process_time()
        schedule, job, _ = sqlmesh_adaptive_schedule_factory(
            sqlmesh_resource=resource, assets=assets
        )
        cpu = 1000 * (time.process_time() - start)
        print(f"{models} models, {crons} crons of the daily ones: schedule {cpu:.0f} ms CPU")
        repository = dg.Definitions(
            assets=assets, jobs=[job], schedules=[schedule]
        ).get_repository_def()
        midnight = datetime.datetime.now(datetime.UTC).replace(
            hour=0, minute=0, second=0, microsecond=0
        ) - datetime.timedelta(days=1)

        def tick(label: str, at: datetime.datetime) -> None:
            with (
                counted() as statements,
                dg.build_schedule_context(
                    instance=instance, scheduled_execution_time=at, repository_def=repository
                ) as context,
            ):
                context.instance.get_run_records(
                    limit=1
                )  # opens the storage's connections, which is not the tick's cost
                context.instance.get_asset_records([dg.AssetKey("none")])
                statements.clear()
                wall, cpu = time.perf_counter(), time.process_time()
                result = schedule.evaluate_tick(context)
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            asked = len(result.run_requests[0].asset_selection or []) if result.run_requests else 0
            times = f"{1000 * wall:6.0f} ms  {1000 * cpu:6.0f} ms CPU"
            print(f"{label:48} requested {asked:4}  {times}  SQL: {tables(statements)}")

        tick("nothing ever materialized", midnight)
        for number in range(models):
            report(instance, number, midnight)
        tick("first tick of a code server: all are looked up", midnight)
        for minutes in (5, 10, 15, 67):
            tick(f"tick after {minutes} minutes", midnight + datetime.timedelta(minutes=minutes))
        tick(
            "a day later, evaluated late: all are looked up",
            midnight + datetime.timedelta(days=1, hours=23),
        )


if __name__ == "__main__":
    for distinct in (1, 700):
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000, distinct)
