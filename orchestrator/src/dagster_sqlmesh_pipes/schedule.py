"""The adaptive schedule: it ticks when some model's cron does, and asks for the models that are due."""

import datetime
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

import dagster as dg

from dagster_sqlmesh_pipes._cron import longest_gap
from dagster_sqlmesh_pipes._due import Due, LastMaterialization, Settled, can_be_due, find_due, settle
from dagster_sqlmesh_pipes._exclusive import AT_WORK
from dagster_sqlmesh_pipes._tags import CRONS_TAG, DUE_TAG, ENVIRONMENT_TAG, GRANULARITY_TAG, NEXT_TICK_TAG, TICK_TAG
from dagster_sqlmesh_pipes._ticks import TickPlan, plan_ticks
from dagster_sqlmesh_pipes.assets import sqlmesh_assets_factory
from dagster_sqlmesh_pipes.errors import ConfigurationError
from dagster_sqlmesh_pipes.manifest import Model
from dagster_sqlmesh_pipes.resource import SQLMeshResource

__all__ = ["freshness_from_cron", "sqlmesh_adaptive_schedule_factory"]

Selection = Literal["due", "all"]
Assets = Sequence[dg.AssetsDefinition | dg.AssetSpec]

_IN_THE_WAY = frozenset({*AT_WORK, dg.DagsterRunStatus.QUEUED})
_RUNS_LOOKED_AT = 25
_NAMES_IN_A_TAG = 5
_PUNCTUAL = datetime.timedelta(seconds=30)
"""How late a tick may be evaluated for nothing to have been materialized since."""

_INTERVAL_UNITS = ["five_minute", "quarter_hour", "half_hour", "hour", "day", "month", "year"]


def sqlmesh_adaptive_schedule_factory(
    *,
    sqlmesh_resource: SQLMeshResource,
    name: str = "sqlmesh_adaptive_schedule",
    enable_schedule: bool = False,
    selection: Selection = "due",
    assets: Assets | None = None,
    job_name: str | None = None,
    asset_name: str | None = None,
    group_name: str | None = None,
    owners: Sequence[str] | None = None,
    op_tags: Mapping[str, Any] | None = None,
    run_tags: Mapping[str, str] | None = None,
    retry_policy: dg.RetryPolicy | None = None,
    hooks: frozenset[dg.HookDefinition] | None = None,
    freshness_policy: Callable[[Model], dg.FreshnessPolicy | None] | None = None,
) -> tuple[dg.ScheduleDefinition, dg.JobDefinition | Any, Assets]:
    """Make a schedule with the models' crons, its job, and the assets that the job runs.

    A tick that finds a run at work on the environment is skipped; what it would have asked for is due at the next tick as well. After a
    time without a daemon, Dagster evaluates the latest missed tick only: that one run catches up.

    Args:
        sqlmesh_resource: runs the models.
        name: the schedule's name.
        enable_schedule: whether it runs without being switched on in the UI.
        selection: `due`: a tick asks for the models that are due; `all`: for everything, and SQLMesh decides.
        assets: what `sqlmesh_assets_factory` made, if that was called already; the arguments for assets are not used then.
        job_name: the job's name; default: the schedule's with `_job` added.
        asset_name: the op's name; this and what follows up to `op_tags` as in `sqlmesh_assets_factory`.
        group_name: the group of models whose tags don't name one.
        owners: owners of every asset.
        op_tags: tags of the op.
        run_tags: tags of the job's runs.
        retry_policy: what to do when the step fails.
        hooks: success and failure hooks of the step.
        freshness_policy: derive an asset's freshness policy from its model, as `freshness_from_cron` does.

    Raises:
        ManifestError: there is no manifest to read.
        TranslationError: models and asset keys do not fit together.
        ConfigurationError: a model's cron can't be read, or no model has one.
    """
    if selection not in ("due", "all"):
        msg = f"selection={selection!r} is neither 'due' nor 'all'."
        raise ConfigurationError(msg)
    bound_to_job = assets is not None
    if assets is None:
        assets = sqlmesh_assets_factory(
            sqlmesh_resource=sqlmesh_resource,
            name=asset_name,
            group_name=group_name,
            owners=owners,
            op_tags=op_tags,
            retry_policy=retry_policy,
            hooks=hooks,
            freshness_policy=freshness_policy,
        )
    key = sqlmesh_resource.exclusive_key()
    job = dg.define_asset_job(
        name=job_name or f"{name}_job",
        selection=dg.AssetSelection.assets(*(made for made in assets if isinstance(made, dg.AssetsDefinition))),
        description=f"Runs the SQLMesh environment {key}.",
        tags={**(run_tags or {}), ENVIRONMENT_TAG: key},
        op_retry_policy=retry_policy if bound_to_job else None,
        hooks=hooks if bound_to_job else None,
    )
    tick = _Tick(sqlmesh_resource, name=name, key=key, selection=selection)

    @dg.schedule(
        name=name,
        job=job,
        cron_schedule=_one_or_many(tick.plan.cron_schedule),
        execution_timezone=tick.plan.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING if enable_schedule else dg.DefaultScheduleStatus.STOPPED,
        description=f"Ticks when the cron of a model of the SQLMesh environment {key} does: {', '.join(tick.plan.cron_schedule)}.",
    )
    def adaptive_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return tick.evaluate(context)

    return adaptive_schedule, job, assets


def freshness_from_cron(model: Model, *, grace: datetime.timedelta = datetime.timedelta(hours=1)) -> dg.FreshnessPolicy | None:
    """Derive a freshness policy from a model's cron: stale when older than the longest time between two ticks, and `grace`.

    Give it to a factory as `freshness_policy=freshness_from_cron`. Seeds have none.

    Raises:
        ConfigurationError: the cron can't be read.
    """
    return dg.FreshnessPolicy.time_window(fail_window=longest_gap(model.cron) + grace) if can_be_due(model) else None


class _Tick:
    """Evaluate ticks: what is at work, what is due, what to ask for."""

    def __init__(self, resource: SQLMeshResource, *, name: str, key: str, selection: Selection) -> None:
        self._mapping = resource.mapping()
        self._models = [model for model in self._mapping.models.values() if can_be_due(model)]
        self._ignore_cron = resource.ignore_cron
        self._name = name
        self._key = key
        self._selection = selection
        self._settled: dict[str, Settled] = {}
        self.plan = self._plan()

    def _plan(self) -> TickPlan:
        if not self._models:
            msg = f"The SQLMesh environment {self._key} has no model that a schedule could run."
            raise ConfigurationError(msg)
        for model in self._models:
            try:
                plan_ticks([(model.cron, model.cron_tz)])
            except ConfigurationError as exc:
                msg = f"The model {model.fqn}: {exc}"
                raise ConfigurationError(msg) from exc
        return plan_ticks((model.cron, model.cron_tz) for model in self._models)

    def evaluate(self, context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        """Decide what a tick does, with at most two queries of the instance: runs, and assets."""
        at = context.scheduled_execution_time.astimezone(datetime.UTC)
        if not self.plan.is_tick(at):
            return dg.SkipReason(
                f"No model's cron ticks at {at:%Y-%m-%d %H:%M} UTC; this tick stands in for a time zone whose clocks change."
            )
        runs = context.instance.get_run_records(dg.RunsFilter(tags={ENVIRONMENT_TAG: self._key}), limit=_RUNS_LOOKED_AT)
        for run in runs:
            if run.dagster_run.status in _IN_THE_WAY:
                return dg.SkipReason(self._busy(run.dagster_run, at))
        if self._selection == "all":
            return self._request(at, None)
        due = self._due(context, at, runs)
        if not due:
            return dg.SkipReason(f"Nothing is due. The next tick is at {self.plan.next_after(at):%Y-%m-%d %H:%M} UTC.")
        context.log.info(
            "\n".join([f"{len(due)} of {len(self._models)} models are due:", *(f"{found.model.name} {found.detail}" for found in due)])
        )
        return self._request(at, due)

    def _due(self, context: dg.ScheduleEvaluationContext, at: datetime.datetime, runs: Sequence[dg.RunRecord]) -> list[Due]:
        # What is known is kept in the code server's memory. Another process finds it out again from the instance.
        settled = self._settled.setdefault(str(context.instance_ref), {}) if context.instance_ref else {}
        for run in runs:
            if run.dagster_run.status == dg.DagsterRunStatus.SUCCESS and TICK_TAG in run.dagster_run.tags and run.start_time:
                started = datetime.datetime.fromtimestamp(run.start_time, datetime.UTC)
                settle(self._asked_of(run.dagster_run), started, settled=settled, ignore_cron=self._ignore_cron)
        return find_due(
            self._models,
            at,
            settled=settled,
            last_materializations=lambda fqns: self._last_materializations(context.instance, fqns),
            is_punctual=datetime.timedelta() <= datetime.datetime.now(datetime.UTC) - at < _PUNCTUAL,
            ignore_cron=self._ignore_cron,
        )

    def _asked_of(self, run: dg.DagsterRun) -> list[Model]:
        if run.asset_selection is None:
            return self._models
        fqns = {self._mapping.fqns.get(key) for key in run.asset_selection}
        return [model for model in self._models if model.fqn in fqns]

    def _last_materializations(self, instance: dg.DagsterInstance, fqns: Collection[str]) -> Mapping[str, LastMaterialization]:
        records = instance.get_asset_records([self._mapping.asset_keys[fqn] for fqn in fqns])
        events = {record.asset_entry.asset_key: record.asset_entry.last_materialization for record in records}
        return {self._mapping.fqns[key]: _last_materialization(event) for key, event in events.items() if event}

    def _request(self, at: datetime.datetime, due: Sequence[Due] | None) -> dg.RunRequest:
        models = self._models if due is None else [found.model for found in due]
        return dg.RunRequest(
            run_key=f"{self._name}:{at.isoformat()}",
            asset_selection=None if due is None else [self._mapping.asset_keys[model.fqn] for model in models],
            tags={
                ENVIRONMENT_TAG: self._key,
                TICK_TAG: at.isoformat(),
                NEXT_TICK_TAG: self.plan.next_after(at).isoformat(),
                GRANULARITY_TAG: _granularity(models),
                CRONS_TAG: _shortened(sorted({model.cron for model in models})),
                DUE_TAG: "everything" if due is None else _summary(due, len(self._models)),
            },
        )

    def _busy(self, run: dg.DagsterRun, at: datetime.datetime) -> str:
        return (
            f"Run {run.run_id} of {run.job_name} (/runs/{run.run_id}) is {run.status.value} on the SQLMesh environment {self._key}. "
            f"The next tick, {self.plan.next_after(at):%Y-%m-%d %H:%M} UTC, asks for what is due then, this tick's models included."
        )


def _last_materialization(event: dg.EventLogEntry) -> LastMaterialization:
    metadata = event.asset_materialization.metadata if event.asset_materialization else {}
    complete, interval_end = metadata.get("sqlmesh/complete"), metadata.get("sqlmesh/interval_end")
    return LastMaterialization(
        at=datetime.datetime.fromtimestamp(event.timestamp, datetime.UTC),
        interval_end=(
            datetime.datetime.fromtimestamp(interval_end.value, datetime.UTC)
            if isinstance(interval_end, dg.TimestampMetadataValue)
            else None
        ),
        complete=not isinstance(complete, dg.BoolMetadataValue) or complete.value is not False,
    )


def _summary(due: Sequence[Due], of: int) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(found.reason for found in due).most_common())
    return f"{len(due)} of {of} models: {_shortened([found.model.name for found in due])} ({reasons})"


def _granularity(models: Sequence[Model]) -> str:
    units = {model.interval_unit for model in models}
    return next((unit for unit in _INTERVAL_UNITS if unit in units), "unknown")


def _shortened(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_IN_A_TAG
    return ", ".join(names[:_NAMES_IN_A_TAG]) + (f" and {more} more" if more > 0 else "")


def _one_or_many(crons: Sequence[str]) -> str | Sequence[str]:
    return crons[0] if len(crons) == 1 else list(crons)
