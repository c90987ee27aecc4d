"""Dagster's selections and schedules of models, by SQLMesh's selector syntax."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from dagster_sqlmesh_pipes.errors import ConfigurationError
from dagster_sqlmesh_pipes.manifest import select_models
from dagster_sqlmesh_pipes.options import as_names
from dagster_sqlmesh_pipes.resource import SQLMeshResource

__all__ = ["build_schedule_from_sqlmesh_selection", "build_sqlmesh_asset_selection"]


def build_sqlmesh_asset_selection(
    *,
    sqlmesh_resource: SQLMeshResource,
    select: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
) -> dg.AssetSelection:
    """Return a selection of the assets of a resource's models, with their checks.

    Args:
        sqlmesh_resource: what the assets were made from.
        select: models to include, in SQLMesh's selector syntax. Default: all.
        exclude: models to leave out.

    Raises:
        ConfigurationError: a selection can't be read, or there is no model in it that a run
            could materialize.
    """
    mapping = sqlmesh_resource.mapping()
    selected = select_models(mapping.manifest, as_names(select), as_names(exclude))
    keys = [mapping.asset_keys[fqn] for fqn in sorted(selected & mapping.materialized)]
    if not keys:
        msg = f"select={select!r}, exclude={exclude!r} leave no model that a run could materialize."
        raise ConfigurationError(msg)
    return dg.AssetSelection.assets(*keys)


def build_schedule_from_sqlmesh_selection(
    *,
    sqlmesh_resource: SQLMeshResource,
    job_name: str,
    cron_schedule: str,
    select: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    schedule_name: str | None = None,
    tags: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
    execution_timezone: str | None = None,
    default_status: dg.DefaultScheduleStatus = dg.DefaultScheduleStatus.STOPPED,
) -> dg.ScheduleDefinition:
    """Return a schedule with a cron of its own that runs a selection of models.

    SQLMesh still runs only what is due by the models' crons, unless `ignore_cron` is set.

    Args:
        sqlmesh_resource: what the assets were made from.
        job_name: the job's name.
        cron_schedule: when it runs.
        select: models to include, in SQLMesh's selector syntax. Default: all.
        exclude: models to leave out.
        schedule_name: the schedule's name. Default: the job's, with `_schedule` added.
        tags: tags of the job's runs.
        config: the run's config.
        execution_timezone: the time zone of the cron.
        default_status: whether it runs without being switched on in the UI.

    Raises:
        ConfigurationError: a selection can't be read, or there is no model in it that a run
            could materialize.
    """
    selection = build_sqlmesh_asset_selection(
        sqlmesh_resource=sqlmesh_resource, select=select, exclude=exclude
    )
    return dg.ScheduleDefinition(
        name=schedule_name or f"{job_name}_schedule",
        job=dg.define_asset_job(job_name, selection=selection, config=config, tags=tags),
        cron_schedule=cron_schedule,
        execution_timezone=execution_timezone,
        default_status=default_status,
    )
