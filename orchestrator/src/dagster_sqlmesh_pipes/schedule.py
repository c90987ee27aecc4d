"""The adaptive schedule: it ticks when some model's cron does, and asks for the models that are due."""

import datetime
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

import dagster as dg

from dagster_sqlmesh_pipes._cron import longest_gap, parse_cron
from dagster_sqlmesh_pipes._due import Due, LastMaterialization, Settled, after_signals, can_be_due, end_of, find_due, restatement_crons
from dagster_sqlmesh_pipes._exclusive import ADVICE, AT_WORK
from dagster_sqlmesh_pipes._tags import CRONS_TAG, DUE_TAG, ENVIRONMENT_TAG, EXCLUSIVE_TAG, GRANULARITY_TAG, NEXT_TICK_TAG, TICK_TAG
from dagster_sqlmesh_pipes._ticks import TickPlan, plan_ticks
from dagster_sqlmesh_pipes._zones import time_zone
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

    A tick that finds a run at work on the project is skipped; what it would have asked for is due at the next tick as well. After a
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
    tick = _Tick(sqlmesh_resource, name=name, selection=selection)
    job = dg.define_asset_job(
        name=job_name or f"{name}_job",
        selection=dg.AssetSelection.assets(*(made for made in assets if isinstance(made, dg.AssetsDefinition))),
        description=f"Runs the SQLMesh environment {tick.environment_key}.",
        tags={**(run_tags or {}), EXCLUSIVE_TAG: tick.exclusive_key, ENVIRONMENT_TAG: tick.environment_key},
        op_retry_policy=retry_policy if bound_to_job else None,
        hooks=hooks if bound_to_job else None,
    )

    @dg.schedule(
        name=name,
        job=job,
        cron_schedule=_one_or_many(tick.plan.cron_schedule),
        execution_timezone=tick.plan.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING if enable_schedule else dg.DefaultScheduleStatus.STOPPED,
        description=f"Ticks when the cron of a model of the SQLMesh environment {tick.environment_key} does: {_shortened(tick.plan.cron_schedule)}.",
    )
    def adaptive_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return tick.evaluate(context)

    return adaptive_schedule, job, assets


def freshness_from_cron(model: Model, *, grace: datetime.timedelta = datetime.timedelta(hours=1)) -> dg.FreshnessPolicy | None:
    """Derive a freshness policy from a model's cron: stale when older than the longest time between two ticks, and `grace`.

    Where clocks change, that is longer by as much. Give it to a factory as `freshness_policy=freshness_from_cron`. Seeds have none, nor
    have models whose end has passed.

    Raises:
        ConfigurationError: the cron can't be read.
    """
    end = end_of(model)
    if not can_be_due(model) or (end is not None and end <= datetime.datetime.now(datetime.UTC)):
        return None
    return dg.FreshnessPolicy.time_window(fail_window=longest_gap(model.cron) + time_zone(model.cron_tz).largest_change + grace)


class _Tick:
    """Evaluate ticks: what is at work, what is due, what to ask for."""

    def __init__(self, resource: SQLMeshResource, *, name: str, selection: Selection) -> None:
        self.exclusive_key = resource.exclusive_key()
        self.environment_key = resource.environment_key()
        self._mapping = resource.mapping()
        self._models = [model for model in self._mapping.models.values() if can_be_due(model)]
        self._after_signals = after_signals(self._mapping.models)
        self._environment = resource.project.environment
        # SQLMesh restates by itself in production only (`Context.run`).
        self._restatements = restatement_crons(self._mapping.models) if self._environment.lower() == "prod" else {}
        self._ignore_cron = resource.ignore_cron
        self._name = name
        self._selection = selection
        self._settled: dict[str, Settled] = {}
        self._failures: dict[str, Collection[str] | None] = {}
        self.plan = self._plan()

    def _plan(self) -> TickPlan:
        if not self._models:
            msg = f"The SQLMesh environment {self.environment_key} has no model that a schedule could run."
            raise ConfigurationError(msg)
        for model in self._models:
            try:
                parse_cron(model.cron)
            except ConfigurationError as exc:
                msg = f"The model {model.fqn}: {exc}"
                raise ConfigurationError(msg) from exc
        crons: set[tuple[str, str | None]] = {(model.cron, model.cron_tz) for model in self._models}
        return plan_ticks(crons | {(cron, None) for of_model in self._restatements.values() for cron in of_model})

    def evaluate(self, context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        """Decide what a tick does, with at most two queries of the instance, runs and assets; one more after a failed run."""
        at = context.scheduled_execution_time.astimezone(datetime.UTC)
        runs = context.instance.get_run_records(dg.RunsFilter(tags={EXCLUSIVE_TAG: self.exclusive_key}), limit=_RUNS_LOOKED_AT)
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
        for number, (run, began) in enumerate(self._asked_by_ticks(runs)):
            if run.status == dg.DagsterRunStatus.SUCCESS:
                self._settle(run, began, (), settled)
            elif run.status == dg.DagsterRunStatus.FAILURE and number == 0:  # a query each: those before were looked at by ticks before
                left_out = self._left_out(run, context.instance)
                if left_out is not None:
                    self._settle(run, began, left_out, settled)
        return find_due(
            self._models,
            at,
            settled=settled,
            last_materializations=lambda fqns: self._last_materializations(context.instance, fqns, runs),
            restatements=self._restatements,
            is_punctual=datetime.timedelta() <= datetime.datetime.now(datetime.UTC) - at < _PUNCTUAL,
            ignore_cron=self._ignore_cron,
        )

    def _settle(self, run: dg.DagsterRun, began: datetime.datetime, left_out: Collection[str], settled: Settled) -> None:
        """Remember of models which a run was asked for and did that they lacked nothing when it began.

        This keeps models that were up to date before Dagster first saw them from being asked for at each tick.
        """
        for model in self._asked_of(run):
            if model.fqn not in left_out and model.fqn not in self._after_signals:
                settled[model.fqn] = max(settled.get(model.fqn, began), began)

    def _asked_by_ticks(self, runs: Sequence[dg.RunRecord]) -> Iterator[tuple[dg.DagsterRun, datetime.datetime]]:
        """Give the runs that ticks asked for, the latest first, and when they began. None with options, such as another environment."""
        for record in runs:
            run = record.dagster_run
            if TICK_TAG in run.tags and run.tags.get(ENVIRONMENT_TAG) == self.environment_key and not run.run_config and record.start_time:
                yield run, _moment(record.start_time)

    def _left_out(self, run: dg.DagsterRun, instance: dg.DagsterInstance) -> Collection[str] | None:
        """Give the models that a failed run did not do; None if it did not say."""
        if run.run_id not in self._failures:
            said = instance.all_logs(run.run_id, of_type={dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.STEP_SKIPPED})
            self._failures = {run.run_id: _left_out(said)}
        return self._failures[run.run_id]

    def _asked_of(self, run: dg.DagsterRun) -> list[Model]:
        if run.asset_selection is None:
            return self._models
        fqns = {self._mapping.fqns.get(key) for key in run.asset_selection}
        return [model for model in self._models if model.fqn in fqns]

    def _last_materializations(
        self, instance: dg.DagsterInstance, fqns: Collection[str], runs: Sequence[dg.RunRecord]
    ) -> Mapping[str, LastMaterialization]:
        records = instance.get_asset_records([self._mapping.asset_keys[fqn] for fqn in fqns])
        events = {record.asset_entry.asset_key: record.asset_entry.last_materialization for record in records}
        known = {run.dagster_run.run_id: run for run in runs}
        return {
            self._mapping.fqns[key]: _last_materialization(event, known.get(event.run_id))
            for key, event in events.items()
            if event and _said(event, "sqlmesh/environment") in (None, self._environment)
        }

    def _request(self, at: datetime.datetime, due: Sequence[Due] | None) -> dg.RunRequest:
        models = self._models if due is None else [found.model for found in due]
        return dg.RunRequest(
            run_key=f"{self._name}:{at.isoformat()}",
            asset_selection=None if due is None else [self._mapping.asset_keys[model.fqn] for model in models],
            tags={
                EXCLUSIVE_TAG: self.exclusive_key,
                ENVIRONMENT_TAG: self.environment_key,
                TICK_TAG: at.isoformat(),
                NEXT_TICK_TAG: self.plan.next_after(at).isoformat(),
                GRANULARITY_TAG: _granularity(models),
                CRONS_TAG: _shortened(sorted({model.cron for model in models})),
                DUE_TAG: "everything" if due is None else _summary(due, len(self._models)),
            },
        )

    def _busy(self, run: dg.DagsterRun, at: datetime.datetime) -> str:
        return (
            f"Run {run.run_id} of {run.job_name} (/runs/{run.run_id}) is {run.status.value} on the SQLMesh project {self.exclusive_key}. The next "
            f"tick, {self.plan.next_after(at):%Y-%m-%d %H:%M} UTC, asks for what is due then, this tick's models included. {ADVICE}"
        )


def _last_materialization(event: dg.EventLogEntry, run: dg.RunRecord | None) -> LastMaterialization:
    interval_end = _said(event, "sqlmesh/interval_end")
    return LastMaterialization(
        at=_moment(run.start_time if run and run.start_time else event.timestamp),
        interval_end=None if interval_end is None else _moment(interval_end),
        complete=_said(event, "sqlmesh/complete") is not False and not (run and _has_start(run.dagster_run)),
    )


def _said(event: dg.EventLogEntry, name: str) -> Any:
    metadata = event.asset_materialization.metadata if event.asset_materialization else {}
    return metadata[name].value if name in metadata else None


def _moment(timestamp: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(timestamp, datetime.UTC)


def _has_start(run: dg.DagsterRun) -> bool:
    """Tell whether a run was told to look at intervals from some time on: those before may still be missing."""
    ops: Any = run.run_config.get("ops", {})
    configs = (op.get("config") for op in ops.values())
    return any(isinstance(config, Mapping) and config.get("start") for config in configs)


def _left_out(said: Sequence[dg.EventLogEntry]) -> Collection[str] | None:
    fqns: set[str] = set()
    for event in (entry.dagster_event for entry in said):
        failure = event.step_failure_data.user_failure_data if event and event.is_step_failure else None
        metadata: Mapping[str, Any] = failure.metadata if failure else {}
        if "sqlmesh/failed" not in metadata:
            return None
        fqns.update(metadata["sqlmesh/failed"].value, metadata["sqlmesh/skipped"].value)
    return fqns if said else None


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
