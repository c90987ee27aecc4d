"""The factory of the adaptive schedule, its job and the assets that the job runs."""

from typing import Any

import dagster as dg
from pydantic import Field, SkipValidation

from dagster_sqlmesh_pipes.assets import Assets, executable_keys, sqlmesh_assets_factory
from dagster_sqlmesh_pipes.contract import ENVIRONMENT_TAG, LOCK_TAG
from dagster_sqlmesh_pipes.errors import ConfigurationError
from dagster_sqlmesh_pipes.options import (
    OpOptions,
    ScheduleOptions,
    SelectionOptions,
    SpecOptions,
    changed_options,
    option_values,
)
from dagster_sqlmesh_pipes.resource import SQLMeshResource
from dagster_sqlmesh_pipes.schedule.tags import abbreviated
from dagster_sqlmesh_pipes.schedule.tick import TickEvaluator
from dagster_sqlmesh_pipes.signatures import keyword_arguments

__all__ = ["sqlmesh_adaptive_schedule_factory"]

_OF_ASSETS = (SpecOptions, OpOptions, SelectionOptions)
_ON_JOB = {"retry_policy", "hooks"}
"""The options that the job has as well, where the assets' op exists already."""


class _Arguments(ScheduleOptions, OpOptions, SpecOptions, SelectionOptions):
    sqlmesh_resource: SQLMeshResource = Field(description="What runs the models.")
    name: str = Field(default="sqlmesh_adaptive_schedule", description="The schedule's name.")
    assets: SkipValidation[Assets | None] = Field(
        default=None,
        description="The result of `sqlmesh_assets_factory`, if you called it already. Options of "
        "assets other than retry_policy and hooks are an error then.",
    )
    asset_name: str | None = Field(
        default=None, description="The op's name. Default: `sqlmesh_<environment>`."
    )


@keyword_arguments(_Arguments)
def sqlmesh_adaptive_schedule_factory(
    arguments: _Arguments,
) -> tuple[dg.ScheduleDefinition, dg.JobDefinition | Any, Assets]:
    """Return a schedule with the models' crons, its job, and the assets that the job runs.

    A tick that finds a run in progress on the project is skipped; its models are due at the next
    tick as well. After downtime of the daemon, Dagster evaluates only the latest missed tick, and
    that one run catches up.

    Raises:
        ManifestError: there is no manifest to read.
        TranslationError: models and asset keys do not fit together.
        ConfigurationError: a model's cron is not valid, there is no model to run, or options of
            assets are given beside assets.
    """
    assets, on_job = _assets(arguments)
    runnable = [made for made in assets if isinstance(made, dg.AssetsDefinition)]
    evaluator = TickEvaluator(
        arguments.sqlmesh_resource,
        name=arguments.name,
        selection=arguments.selection,
        asset_keys=executable_keys(assets),
    )
    job = dg.define_asset_job(
        name=arguments.job_name or f"{arguments.name}_job",
        # No planned checks: a check that does not run keeps its last result. SQLMesh runs the
        # audits of each model that it runs, and the step reports them all the same.
        selection=dg.AssetSelection.assets(*runnable).without_checks(),
        description=f"Runs the SQLMesh environment {evaluator.environment_key}.",
        tags={
            **(arguments.run_tags or {}),
            LOCK_TAG: evaluator.effective_lock_key,
            ENVIRONMENT_TAG: evaluator.environment_key,
        },
        executor_def=arguments.executor_def or dg.in_process_executor,
        **on_job,
    )
    is_enabled = arguments.enable_schedule
    return _schedule(evaluator, job, name=arguments.name, is_enabled=is_enabled), job, assets


def _assets(arguments: _Arguments) -> tuple[Assets, dict[str, Any]]:
    """Return the assets, and the options that the job has in place of their op."""
    if arguments.assets is None:
        options = option_values(arguments, *_OF_ASSETS)
        assets = sqlmesh_assets_factory(
            sqlmesh_resource=arguments.sqlmesh_resource, name=arguments.asset_name, **options
        )
        return assets, {}
    ignored = changed_options(arguments, *_OF_ASSETS) - _ON_JOB
    if arguments.asset_name is not None:
        ignored |= {"asset_name"}
    if ignored:
        msg = (
            f"{', '.join(sorted(ignored))} have no effect on assets that exist already. Give them "
            "to sqlmesh_assets_factory, or leave out assets=."
        )
        raise ConfigurationError(msg)
    return arguments.assets, {
        "op_retry_policy": arguments.retry_policy,
        "hooks": arguments.hooks,
    }


def _schedule(
    evaluator: TickEvaluator, job: Any, *, name: str, is_enabled: bool
) -> dg.ScheduleDefinition:
    crons = evaluator.plan.cron_schedule
    status = dg.DefaultScheduleStatus

    @dg.schedule(
        name=name,
        job=job,
        cron_schedule=crons[0] if len(crons) == 1 else list(crons),
        execution_timezone=evaluator.plan.timezone,
        default_status=status.RUNNING if is_enabled else status.STOPPED,
        description=(
            "Ticks whenever the cron of a model of the SQLMesh environment "
            f"{evaluator.environment_key} does: {abbreviated(crons)}."
        ),
    )
    def adaptive_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return evaluator.evaluate(context)

    return adaptive_schedule
