"""The evaluation of a tick: skip it, or request a run of the models that are due."""

import datetime
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import dagster as dg

from dagster_sqlmesh_pipes.contract import ENVIRONMENT_TAG, LOCK_TAG
from dagster_sqlmesh_pipes.errors import ConfigurationError
from dagster_sqlmesh_pipes.manifest import Model
from dagster_sqlmesh_pipes.resource import SQLMeshResource
from dagster_sqlmesh_pipes.run.lock import ADVICE
from dagster_sqlmesh_pipes.run.removals import RemovalRegister
from dagster_sqlmesh_pipes.schedule.cron import parse_cron
from dagster_sqlmesh_pipes.schedule.due import (
    DueModel,
    LastMaterialization,
    UpToDateSince,
    find_due,
)
from dagster_sqlmesh_pipes.schedule.history import RunHistory, unfinished_models
from dagster_sqlmesh_pipes.schedule.models import (
    is_runnable,
    models_behind_signals,
    restatement_crons,
)
from dagster_sqlmesh_pipes.schedule.tags import tick_tags
from dagster_sqlmesh_pipes.schedule.ticks import TickPlan, plan_ticks

__all__ = ["Selection", "TickEvaluator"]

Selection = Literal["due", "all"]

_PUNCTUAL = datetime.timedelta(seconds=30)
"""A tick evaluated within this time finds nothing that was materialized since."""


class TickEvaluator:
    """Evaluate a schedule's ticks.

    Args:
        resource: runs the models.
        name: the schedule's name.
        selection: `due` or `all`; see `sqlmesh_adaptive_schedule_factory`.
        asset_keys: the assets that the job runs. Default: those of all models.

    Raises:
        ConfigurationError: a model's cron is not valid, or there is no model to run.
    """

    def __init__(
        self,
        resource: SQLMeshResource,
        *,
        name: str,
        selection: Selection,
        asset_keys: Collection[dg.AssetKey] | None = None,
    ) -> None:
        self.effective_lock_key = resource.effective_lock_key()
        self.environment_key = resource.environment_key()
        self._mapping = resource.mapping()
        models = [
            model
            for model in self._mapping.models.values()
            if asset_keys is None or self._mapping.asset_keys[model.fqn] in asset_keys
        ]
        self._models = [model for model in models if is_runnable(model)]
        self._seeds = [
            self._mapping.asset_keys[model.fqn]
            for model in models
            if resource.adopt and model.enabled and model.kind.name == "SEED"
        ]
        self._behind_signals = models_behind_signals(self._mapping.models)
        self._environment = resource.project.environment
        # SQLMesh restates by itself in production only (`Context.run`).
        self._restatements = (
            restatement_crons(self._mapping.models) if self._environment.lower() == "prod" else {}
        )
        self._ignore_cron = resource.ignore_cron
        self._name = name
        self._selection = selection
        self._removals = RemovalRegister(self.environment_key)
        # What ticks found, by instance. Another process finds it again from the instance's events.
        self._up_to_date_since: dict[str, UpToDateSince] = {}
        self._unfinished: dict[str, Collection[str] | None] = {}
        self.plan = self._plan()

    def evaluate(self, context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        """Return a run request, or why the tick is skipped.

        It takes at most three queries of the instance, for runs, removed intervals and assets, one
        more after a failed run, and one more for SEEDs where a run is requested.
        """
        at = context.scheduled_execution_time.astimezone(datetime.UTC)
        history = RunHistory(context.instance, self.effective_lock_key)
        blocking = history.blocking_run()
        if blocking:
            return dg.SkipReason(self._blocked(blocking, at))
        if self._selection == "all":
            return self._request(at)
        due = self._due(context, at, history)
        if not due:
            next_tick = self.plan.next_after(at)
            return dg.SkipReason(
                f"Nothing is due. The next tick is at {next_tick:%Y-%m-%d %H:%M} UTC."
            )
        reasons = [f"{found.model.name} {found.detail}" for found in due]
        context.log.info(
            "\n".join([f"{len(due)} of {len(self._models)} models are due:", *reasons])
        )
        return self._request(at, due, seeds=self._unknown_seeds(history))

    def _plan(self) -> TickPlan:
        if not self._models:
            msg = (
                f"The SQLMesh environment {self.environment_key} has no model that a run executes."
            )
            raise ConfigurationError(msg)
        crons: set[tuple[str, str | None]] = set()
        for model in self._models:
            try:
                parse_cron(model.cron)
            except ConfigurationError as exc:
                msg = f"The model {model.fqn}: {exc}"
                raise ConfigurationError(msg) from exc
            crons.add((model.cron, model.cron_tz))
        for restatements in self._restatements.values():
            crons.update((cron, None) for cron in restatements)
        return plan_ticks(crons)

    def _due(
        self, context: dg.ScheduleEvaluationContext, at: datetime.datetime, history: RunHistory
    ) -> list[DueModel]:
        up_to_date_since: UpToDateSince = {}
        if context.instance_ref:
            key = str(context.instance_ref)
            up_to_date_since = self._up_to_date_since.setdefault(key, up_to_date_since)
        self._learn_from_runs(context.instance, history, up_to_date_since)

        def last_materializations(fqns: Collection[str]) -> Mapping[str, LastMaterialization]:
            keys = [self._mapping.asset_keys[fqn] for fqn in fqns]
            found = history.last_materializations(keys, self._environment)
            return {self._mapping.fqns[key]: last for key, last in found.items()}

        removals = self._removals.read(context.instance)
        lateness = datetime.datetime.now(datetime.UTC) - at
        return find_due(
            self._models,
            at,
            up_to_date_since=up_to_date_since,
            last_materializations=last_materializations,
            restatements=self._restatements,
            removed_at={fqn: removal.at for fqn, removal in removals.items()},
            is_punctual=datetime.timedelta() <= lateness < _PUNCTUAL,
            ignore_cron=self._ignore_cron,
        )

    def _learn_from_runs(
        self, instance: dg.DagsterInstance, history: RunHistory, up_to_date_since: UpToDateSince
    ) -> None:
        """Note which models were up to date when the runs began that ticks requested.

        So models that were up to date before Dagster first saw them are not requested again and
        again.
        """
        requested = history.requested_by_ticks(self.environment_key)
        for position, (run, began) in enumerate(requested):
            unfinished: Collection[str] | None = None
            if run.status == dg.DagsterRunStatus.SUCCESS:
                unfinished = ()
            elif run.status == dg.DagsterRunStatus.FAILURE and position == 0:
                # It takes a query. Earlier ticks have looked at the failures before this one.
                unfinished = self._unfinished_models(instance, run)
            if unfinished is None:
                continue
            for model in self._requested_models(run):
                if model.fqn not in unfinished and model.fqn not in self._behind_signals:
                    since = up_to_date_since.get(model.fqn, began)
                    up_to_date_since[model.fqn] = max(since, began)

    def _unfinished_models(
        self, instance: dg.DagsterInstance, run: dg.DagsterRun
    ) -> Collection[str] | None:
        if run.run_id not in self._unfinished:
            self._unfinished = {run.run_id: unfinished_models(instance, run.run_id)}
        return self._unfinished[run.run_id]

    def _requested_models(self, run: dg.DagsterRun) -> Sequence[Model]:
        if run.asset_selection is None:
            return self._models
        fqns = {self._mapping.fqns.get(key) for key in run.asset_selection}
        return [model for model in self._models if model.fqn in fqns]

    def _unknown_seeds(self, history: RunHistory) -> Collection[dg.AssetKey]:
        """Return the SEEDs that Dagster never saw materialized.

        A plan loads them; a run that has them in its selection reports what the plan recorded.
        """
        if not self._seeds:
            return ()
        known = history.last_materializations(self._seeds, self._environment)
        return [key for key in self._seeds if key not in known]

    def _request(
        self,
        at: datetime.datetime,
        due: Sequence[DueModel] | None = None,
        *,
        seeds: Collection[dg.AssetKey] = (),
    ) -> dg.RunRequest:
        selection = None
        if due is not None:
            selection = [*seeds, *(self._mapping.asset_keys[found.model.fqn] for found in due)]
        return dg.RunRequest(
            run_key=f"{self._name}:{at.isoformat()}",
            asset_selection=selection,
            asset_check_keys=[],
            tags={
                LOCK_TAG: self.effective_lock_key,
                ENVIRONMENT_TAG: self.environment_key,
                **tick_tags(self._models, due, at=at, next_tick=self.plan.next_after(at)),
            },
        )

    def _blocked(self, run: dg.DagsterRun, at: datetime.datetime) -> str:
        return (
            f"Run {run.run_id} of {run.job_name} (/runs/{run.run_id}) is {run.status.value} on the "
            f"SQLMesh project {self.effective_lock_key}. The next tick, "
            f"{self.plan.next_after(at):%Y-%m-%d %H:%M} UTC, requests what is due then, including "
            f"the models of this tick. {ADVICE}"
        )
