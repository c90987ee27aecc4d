"""What a tick of the adaptive schedule costs: milliseconds, and queries of the instance's storage.

    python benchmarks/tick.py [MODELS]

Run it where dagster-sqlmesh-pipes is installed. The instance is a new one on SQLite.
"""

import datetime
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_sqlmesh_pipes import SQLMeshResource
from dagster_sqlmesh_pipes.schedule import sqlmesh_adaptive_schedule_factory
from dagster_sqlmesh_pipes.testing import FakeLauncher

OFTEN, HOURLY = 5, 60
"""How many of a thousand models run every five minutes, and every hour; the rest are daily."""


def model(number: int) -> dict[str, Any]:
    cron, unit = "@daily", "day"
    if number % 1000 < OFTEN + HOURLY:
        cron, unit = ("*/5 * * * *", "five_minute") if number % 1000 < OFTEN else ("@hourly", "hour")
    name = f"model_{number:04}"
    kind = {"name": "INCREMENTAL_BY_TIME_RANGE"}
    return {"fqn": f'"shop"."marts"."{name}"', "name": f"marts.{name}", "view_name": name, "catalog": "shop", "schema_name": "marts",
            "kind": kind, "cron": cron, "interval_unit": unit}  # fmt: skip


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
    instance.report_runless_asset_event(dg.AssetMaterialization(["shop", "marts", f"model_{number:04}"], metadata=metadata))


@contextmanager
def counted() -> Iterator[list[str]]:
    """Count calls of the instance's two query methods that ticks use."""
    calls: list[str] = []
    originals = {name: getattr(dg.DagsterInstance, name) for name in ("get_run_records", "get_asset_records")}

    def counting(name: str) -> Callable[..., Any]:
        def call(self: dg.DagsterInstance, *args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return originals[name](self, *args, **kwargs)

        return call

    for name in originals:
        setattr(dg.DagsterInstance, name, counting(name))
    try:
        yield calls
    finally:
        for name, original in originals.items():
            setattr(dg.DagsterInstance, name, original)


def main(models: int) -> None:
    logging.getLogger("dagster").setLevel(logging.WARNING)  # the ticks name each model that is due
    with tempfile.TemporaryDirectory() as home, dg.DagsterInstance.local_temp(home) as instance:
        path = Path(home, "manifest.json")
        path.write_text(json.dumps({"schema_version": 1, "project": {"gateway": "duckdb"}, "models": [model(n) for n in range(models)]}))
        resource = SQLMeshResource(manifest_path=str(path), launcher=FakeLauncher())
        start = time.perf_counter()
        schedule, job, assets = sqlmesh_adaptive_schedule_factory(sqlmesh_resource=resource)
        definitions = dg.Definitions(assets=assets, jobs=[job], schedules=[schedule])
        print(f"{models} models: definitions {1000 * (time.perf_counter() - start):.0f} ms")
        repository = definitions.get_repository_def()
        midnight = datetime.datetime.now(datetime.UTC).replace(hour=0, minute=0, second=0, microsecond=0) - datetime.timedelta(days=1)

        def tick(label: str, at: datetime.datetime) -> None:
            with (
                counted() as calls,
                dg.build_schedule_context(instance=instance, scheduled_execution_time=at, repository_def=repository) as context,
            ):
                context.instance.get_run_records(limit=1)  # opens the storage's connections, which is not the tick's cost
                context.instance.get_asset_records([dg.AssetKey("none")])
                calls.clear()
                wall, cpu = time.perf_counter(), time.process_time()
                result = schedule.evaluate_tick(context)
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            asked = len(result.run_requests[0].asset_selection or []) if result.run_requests else 0
            print(f"{label:58} asked for {asked:4}  {1000 * wall:6.0f} ms  {1000 * cpu:6.0f} ms CPU  {len(calls)} queries")

        tick("nothing ever materialized", midnight)
        for number in range(models):
            report(instance, number, midnight)
        tick("first tick of a code server: all are looked up", midnight)
        for minutes in (5, 10, 15, 60):
            tick(f"tick after {minutes} minutes", midnight + datetime.timedelta(minutes=minutes))
        tick("midnight, evaluated late: all are looked up", midnight + datetime.timedelta(days=1))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
