"""Everything a code location needs for a SQLMesh project, from one call."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import dagster as dg

from dagster_sqlmesh_pipes.assets import sqlmesh_assets_factory
from dagster_sqlmesh_pipes.launchers.base import Launcher
from dagster_sqlmesh_pipes.launchers.subprocess import SubprocessLauncher
from dagster_sqlmesh_pipes.manifest import Model
from dagster_sqlmesh_pipes.resource import SQLMeshResource
from dagster_sqlmesh_pipes.schedule import sqlmesh_adaptive_schedule_factory
from dagster_sqlmesh_pipes.translator import MappedExternalsTranslator, SQLMeshTranslator

__all__ = ["sqlmesh_definitions_factory"]


def sqlmesh_definitions_factory(
    *,
    project_dir: str | Path | Sequence[str | Path] | None = None,
    manifest_path: str | Path | None = None,
    gateway: str | None = None,
    environment: str = "prod",
    launcher: Launcher | None = None,
    translator: SQLMeshTranslator | None = None,
    external_asset_mapping: str | None = None,
    name: str | None = None,
    group_name: str | None = None,
    owners: Sequence[str] | None = None,
    op_tags: Mapping[str, Any] | None = None,
    run_tags: Mapping[str, str] | None = None,
    retry_policy: dg.RetryPolicy | None = None,
    pool: str | None = None,
    hooks: frozenset[dg.HookDefinition] | None = None,
    concurrency_limit: int = 1,
    lock_key: str | None = None,
    wait_for_others: bool = True,
    ignore_cron: bool = False,
    skip_janitor: bool = False,
    fetch_row_counts: bool = False,
    enable_schedule: bool = False,
    schedule_name: str | None = None,
    selection: Literal["due", "all"] = "due",
    freshness_policy: Callable[[Model], dg.FreshnessPolicy | None] | None = None,
    allowed_environments: Sequence[str] = (),
) -> dg.Definitions:
    """Make a project's assets, checks, job and adaptive schedule.

    In `dagster dev` the manifest is made anew when the project's files change; elsewhere it must be there already.

    Args:
        project_dir: the project's folder, or folders; see `SQLMeshProject`.
        manifest_path: the manifest's file; default in the project's folder.
        gateway: SQLMesh's gateway; default: the project's.
        environment: the SQLMesh environment to run. It must be planned (`sqlmesh plan`).
        launcher: how runners are started; default: as a subprocess.
        translator: how models become assets.
        external_asset_mapping: a template for the keys of external tables, `sling/{node.schema}/{node.name}`, in place of a translator.
        name: the op's name; default `sqlmesh_<environment>`.
        group_name: the group of models whose tags don't name one; default: the model's schema.
        owners: owners of every asset, besides the model's own.
        op_tags: tags of the op, for executors and launchers.
        run_tags: tags of the runs of the job and schedule.
        retry_policy: what to do when the step fails.
        pool: the concurrency pool of the op.
        hooks: success and failure hooks of the op.
        concurrency_limit: runs at work on the project at a time, in whatever environments; SQLMesh has no run lock, so above 1 rows may be doubled.
        lock_key: what runs on one SQLMesh state share, and no others; needed where code locations with different folder names run one
            project, or where folders of one name hold different projects. Default: the folder's name and the gateway.
        wait_for_others: whether a run that finds others at work on the project waits for them, or fails.
        ignore_cron: always run what has missing intervals, whatever the crons.
        skip_janitor: never clean up in a run.
        fetch_row_counts: count the rows of each materialized table (one query a model).
        enable_schedule: whether the schedule runs without being switched on in the UI.
        schedule_name: the schedule's name, which also names its job. Default: `sqlmesh_adaptive_schedule`; for an op that isn't `sqlmesh_prod`,
            the op's name with `_adaptive_schedule` added, so that a code location may have several.
        selection: `due`: a tick asks for the models that are due; `all`: for everything, and SQLMesh decides.
        freshness_policy: derive an asset's freshness policy from its model; `freshness_from_cron` does it from the cron.
        allowed_environments: other environments that a run's config may name.

    Raises:
        ManifestError: there is no manifest to read.
        LaunchError: in development: the manifest could not be made.
        TranslationError: models and asset keys do not fit together.
        ConfigurationError: an option can't work.
    """
    if translator is not None and external_asset_mapping is not None:
        warnings.warn(
            "external_asset_mapping is not used, because a translator is given: override its get_external_asset_key instead, or leave it out.",
            stacklevel=2,
        )
    elif external_asset_mapping is not None:
        translator = MappedExternalsTranslator(external_asset_mapping)
    first, *more = [project_dir] if isinstance(project_dir, str | Path) else project_dir or [""]
    resource = SQLMeshResource(
        project_dir=str(first) or None,
        more_project_dirs=[str(folder) for folder in more],
        manifest_path=None if manifest_path is None else str(manifest_path),
        gateway=gateway,
        environment=environment,
        launcher=launcher or SubprocessLauncher(),
        translator=translator or SQLMeshTranslator(),
        concurrency_limit=concurrency_limit,
        lock_key=lock_key,
        wait_for_others=wait_for_others,
        ignore_cron=ignore_cron,
        skip_janitor=skip_janitor,
        fetch_row_counts=fetch_row_counts,
        allowed_environments=list(allowed_environments),
    )
    resource.project.prepare_if_dev()
    assets = sqlmesh_assets_factory(
        sqlmesh_resource=resource,
        name=name,
        group_name=group_name,
        owners=owners,
        op_tags=op_tags,
        retry_policy=retry_policy,
        pool=pool,
        hooks=hooks,
        freshness_policy=freshness_policy,
    )
    schedule, job, _ = sqlmesh_adaptive_schedule_factory(
        sqlmesh_resource=resource,
        name=schedule_name or _schedule_name(assets),
        enable_schedule=enable_schedule,
        selection=selection,
        assets=assets,
        run_tags=run_tags,
    )
    schedules = [schedule] if isinstance(schedule, dg.ScheduleDefinition) else list(schedule)
    return dg.Definitions(assets=assets, jobs=[job], schedules=schedules)


def _schedule_name(assets: Sequence[dg.AssetsDefinition | dg.AssetSpec]) -> str:
    (op,) = (made.op.name for made in assets if isinstance(made, dg.AssetsDefinition))
    return "sqlmesh_adaptive_schedule" if op == "sqlmesh_prod" else f"{op}_adaptive_schedule"
