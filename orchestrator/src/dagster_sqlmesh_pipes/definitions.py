"""Everything a code location needs for a SQLMesh project, from one call."""

from collections.abc import Sequence

import dagster as dg
from pydantic import Field

from dagster_sqlmesh_pipes.allocation import garbage_collection_paused
from dagster_sqlmesh_pipes.assets import Execute, make_assets
from dagster_sqlmesh_pipes.errors import ConfigurationError
from dagster_sqlmesh_pipes.launchers.base import Launcher
from dagster_sqlmesh_pipes.launchers.subprocess import SubprocessLauncher
from dagster_sqlmesh_pipes.options import (
    AssetsOptions,
    LocationOptions,
    ProjectOptions,
    ResourceOptions,
    ScheduleOptions,
    SensorOptions,
    option_values,
)
from dagster_sqlmesh_pipes.resource import SQLMeshResource
from dagster_sqlmesh_pipes.schedule import sqlmesh_adaptive_schedule_factory
from dagster_sqlmesh_pipes.signatures import keyword_arguments
from dagster_sqlmesh_pipes.state import sqlmesh_state_sensor_factory
from dagster_sqlmesh_pipes.translator import MappedExternalsTranslator, SQLMeshTranslator

__all__ = [
    "DefinitionsOptions",
    "build_definitions",
    "make_resource",
    "sqlmesh_definitions_factory",
]


class DefinitionsOptions(
    LocationOptions,
    SensorOptions,
    ScheduleOptions,
    AssetsOptions,
    ResourceOptions,
    ProjectOptions,
):
    """Everything that definitions are made from."""

    launcher: Launcher | None = Field(
        default=None, description="How runners are started. Default: as a subprocess."
    )
    translator: SQLMeshTranslator | None = Field(
        default=None, description="How models become assets."
    )


@keyword_arguments(DefinitionsOptions)
@garbage_collection_paused()
def sqlmesh_definitions_factory(options: DefinitionsOptions) -> dg.Definitions:
    """Make a project's assets, checks, job, adaptive schedule and state sensor.

    In `dagster dev` the manifest is made again when the project's files change; elsewhere it must
    be there already.

    Raises:
        ManifestError: there is no manifest to read.
        LaunchError: in development: the manifest could not be made.
        TranslationError: models and asset keys do not fit together.
        ConfigurationError: an option can't work.
    """
    resource = make_resource(options)
    resource.project.prepare_if_dev()
    return build_definitions(resource, options)


def make_resource(options: DefinitionsOptions) -> SQLMeshResource:
    """Return the resource that the options describe.

    Raises:
        ConfigurationError: there are a translator and a template for external tables.
    """
    return SQLMeshResource(
        launcher=options.launcher or SubprocessLauncher(),
        translator=_translator(options),
        **option_values(options, ProjectOptions, ResourceOptions),
    )


def build_definitions(
    resource: SQLMeshResource, options: DefinitionsOptions, execute: Execute | None = None
) -> dg.Definitions:
    """Return a resource's definitions; the factory and the component both come here.

    Args:
        resource: runs the models.
        options: of the assets and the schedule.
        execute: runs the resource in the step. Default: its `run`.

    Raises:
        ManifestError: there is no manifest to read.
        TranslationError: models and asset keys do not fit together.
        ConfigurationError: an option can't work.
    """
    assets = make_assets(resource, options, execute)
    schedule, job, _ = sqlmesh_adaptive_schedule_factory(
        sqlmesh_resource=resource,
        name=options.schedule_name or _name(assets, "adaptive_schedule"),
        assets=assets,
        **option_values(options, ScheduleOptions),
    )
    schedules = [schedule] if isinstance(schedule, dg.ScheduleDefinition) else list(schedule)
    sensor = sqlmesh_state_sensor_factory(
        sqlmesh_resource=resource,
        name=_name(assets, "state_sensor"),
        assets=assets,
        **option_values(options, SensorOptions),
    )
    return dg.Definitions(assets=assets, jobs=[job], schedules=schedules, sensors=[sensor])


def _translator(options: DefinitionsOptions) -> SQLMeshTranslator:
    if options.external_asset_mapping is None:
        return options.translator or SQLMeshTranslator()
    if options.translator is None:
        return MappedExternalsTranslator(options.external_asset_mapping)
    msg = (
        "translator and external_asset_mapping exclude each other: override the translator's "
        "get_external_asset_key, or leave one of them out."
    )
    raise ConfigurationError(msg)


def _name(assets: Sequence[dg.AssetsDefinition | dg.AssetSpec], suffix: str) -> str:
    (op,) = (made.op.name for made in assets if isinstance(made, dg.AssetsDefinition))
    return f"{'sqlmesh' if op == 'sqlmesh_prod' else op}_{suffix}"
