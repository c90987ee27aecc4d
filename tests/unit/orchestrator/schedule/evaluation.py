"""Ticks of a schedule evaluated as Dagster does, with events put into its instance."""

import datetime
from typing import Any

import dagster as dg
from unit.orchestrator.shop import audit, fqn, model

from dagster_sqlmesh_pipes import SQLMeshResource
from dagster_sqlmesh_pipes.schedule import sqlmesh_adaptive_schedule_factory

UTC = datetime.UTC


NOON = datetime.datetime(2030, 5, 6, 12, 0, tzinfo=UTC)  # later than any event of these tests


MODELS = [
    model(
        "marts.daily",
        cron="@daily",
        interval_unit="day",
        audits=[audit("not_null")],
        depends_on=[fqn("staging.often")],
    ),
    model("marts.hourly", cron="@hourly", interval_unit="hour"),
    model("staging.often", cron="*/5 * * * *", interval_unit="five_minute"),
    model("staging.seed", kind={"name": "SEED"}, cron="@daily", interval_unit="day"),
    model("staging.inlined", kind={"name": "EMBEDDED"}, materialized=False, cron="* * * * *"),
]


def key(name: str) -> dg.AssetKey:
    return dg.AssetKey(["shop", *name.split(".")])


def evaluate(
    resource: SQLMeshResource,
    instance: dg.DagsterInstance,
    at: datetime.datetime = NOON,
    **options: Any,
) -> dg.RunRequest | str:
    """Evaluate one tick; give its run request, or why it was skipped."""
    schedule, job, assets = sqlmesh_adaptive_schedule_factory(sqlmesh_resource=resource, **options)
    dg.Definitions(assets=assets, jobs=[job], schedules=[schedule]).resolve_all_job_defs()
    result = schedule.evaluate_tick(
        dg.build_schedule_context(instance=instance, scheduled_execution_time=at)
    )
    if result.skip_message is not None:
        return str(result.skip_message)
    (request,) = result.run_requests or []
    return request


def asked(request: dg.RunRequest | str) -> set[str]:
    assert isinstance(request, dg.RunRequest)
    return {"/".join(asset.path[1:]) for asset in request.asset_selection or []}


def report(
    instance: dg.DagsterInstance,
    name: str,
    interval_end: datetime.datetime | None,
    *,
    complete: bool = True,
    environment: str = "prod",
) -> None:
    metadata: dict[str, Any] = {"sqlmesh/complete": complete, "sqlmesh/environment": environment}
    if interval_end:
        metadata["sqlmesh/interval_end"] = dg.MetadataValue.timestamp(interval_end)
    instance.report_runless_asset_event(dg.AssetMaterialization(key(name), metadata=metadata))


def run_of(
    instance: dg.DagsterInstance,
    status: dg.DagsterRunStatus,
    project: str = "sqlmesh/duckdb",
    environment: str = "prod",
) -> dg.DagsterRun:
    @dg.job
    def somebodys() -> None: ...

    tags = {"sqlmesh/lock": project, "sqlmesh/environment": f"{project}/{environment}"}
    return instance.create_run_for_job(somebodys, status=status, tags=tags)
