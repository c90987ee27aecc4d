"""The scope of a run, read from SQLMesh's state."""

import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from sqlglot import exp
from sqlmesh import Context
from sqlmesh import __version__ as sqlmesh_version
from sqlmesh.core import constants
from sqlmesh.core.environment import Environment
from sqlmesh.core.snapshot import DeployabilityIndex, Snapshot
from sqlmesh.utils.date import make_exclusive, to_datetime

from sqlmesh_runner.errors import ConfigurationError
from sqlmesh_runner.job import Job
from sqlmesh_runner.options import EvaluationOptions, JobOptions, RunOptions
from sqlmesh_runner.recording.events import RunStarted
from sqlmesh_runner.recording.scope import RunScope
from sqlmesh_runner.selection import Selection
from sqlmesh_runner.sqlmesh_api.context import raise_if_stopped
from sqlmesh_runner.sqlmesh_api.environment import load_snapshots, read_finalized_environment
from sqlmesh_runner.sqlmesh_api.errors import sqlmesh_errors
from sqlmesh_runner.sqlmesh_api.needed_snapshots import RunRequest, needed_snapshots
from sqlmesh_runner.sqlmesh_api.run_context import RunContext
from sqlmesh_runner.sqlmesh_api.state import read_recorded

__all__ = ["deployability", "load_scope", "next_due", "path_in_project", "run_request"]


def load_scope(
    job: Job[JobOptions],
    context: RunContext,
    *,
    audit_only: bool = False,
    needed_only: bool = False,
) -> RunScope:
    """Load the environment, check that it holds what is selected, and record the run's start.

    Args:
        job: whose options and selection are used.
        context: its open project.
        audit_only: for `audit`.
        needed_only: load only the snapshots that a run of the selected ones needs in full. Of the
            others the scope has the record in the environment, with their names and parents.

    Raises:
        NotPlannedError: it does not.
        UnreachableError: state or warehouse don't answer.
    """
    options = job.options
    environment = read_finalized_environment(
        context, options.environment, wait=partial(_wait_for_plan, job)
    )
    selection = _resolved(context, job.selection, environment)
    scope = _scope(
        job, context, environment, selection, audit_only=audit_only, needed_only=needed_only
    )
    job.recorder.run_started(scope, _run_started(context, scope))
    if selection.unplanned:
        # Information only: the orchestrator warns of all differences at once.
        job.recorder.log("INFO", selection.unplanned_message(scope.name))
    raise_if_stopped(job)
    return scope


def _wait_for_plan(job: Job[JobOptions], message: str, seconds: float) -> None:
    job.recorder.log_runner("WARNING", message)
    job.stop.pause(seconds)
    raise_if_stopped(job)


def _resolved(context: RunContext, selection: Selection, environment: Environment) -> Selection:
    names = [info.name for info in environment.snapshots]
    select = partial(_matching, context, environment)
    expanded = selection.expanded(names, select, environment=environment.name)
    return expanded.resolved(names, environment=environment.name)


def _matching(context: RunContext, environment: Environment, selector: str) -> set[str]:
    """Return the FQNs that a selector matches. Loads the environment's models, which takes time.

    Raises:
        ConfigurationError: it can't be read.
        UnreachableError: the state does not answer.
    """
    with sqlmesh_errors("Reading the environment from state"):
        snapshots = load_snapshots(context, environment.snapshots).values()
    with sqlmesh_errors(f"Reading the selector '{selector}'", otherwise=ConfigurationError):
        return context.match_models(selector, snapshots)


def _scope(
    job: Job[JobOptions],
    context: RunContext,
    environment: Environment,
    selection: Selection,
    *,
    audit_only: bool,
    needed_only: bool,
) -> RunScope:
    options, needed = job.options, None
    with sqlmesh_errors("Reading the environment from state"):
        if needed_only and selection.models is not None:
            needed = needed_snapshots(context, environment, run_request(options, selection.models))
        if needed is None:
            snapshots = load_snapshots(context, environment.snapshots)
        else:
            snapshots = {**{info.name: info for info in environment.snapshots}, **needed}
    index = deployability(environment.name, snapshots, options.start)
    has_row_counts = isinstance(options, EvaluationOptions) and options.row_counts
    has_names = selection.audits or selection.models is not None
    audits = selection.audits if has_names else dict.fromkeys(snapshots)
    return RunScope(
        name=environment.name,
        plan_id=environment.plan_id,
        snapshots=snapshots,
        selected=frozenset(audits) if audit_only else selection.models,
        unplanned=selection.unplanned,
        audits=audits,
        deployability_index=index,
        physical_table=partial(_physical_table, index),
        count_rows=partial(_count_rows, context, index) if has_row_counts else _no_count,
        path_of=lambda snapshot: path_in_project(context, getattr(snapshot.node, "_path", None)),
        next_due_of=partial(next_due, at=options.execution_time),
        reload=partial(_reload, job, context, environment.name, selection, needed_only=needed_only),
        recorded_of=partial(read_recorded, context, is_representative=index.is_representative),
        adopt=selection.adopt and isinstance(options, RunOptions),
        audit_only=audit_only,
    )


def run_request(options: JobOptions, selected: Collection[str]) -> RunRequest:
    """Return what a run with these options is of."""
    return RunRequest(selected=selected, end=options.end, execution_time=options.execution_time)


def _reload(
    job: Job[JobOptions],
    context: RunContext,
    name: str,
    previous: Selection,
    *,
    needed_only: bool,
) -> RunScope | None:
    """Read the environment again after a plan.

    What the plan removed is left out, as SQLMesh leaves it out. What it added is left out where
    models were named, because SQLMesh goes on with those names.
    """
    environment = context.state_sync.get_environment(name)
    if environment is None:
        return None
    selection = _resolved(context, replace(job.selection, skip_unplanned=True), environment)
    if selection.models is not None and previous.models is not None:
        added = selection.models - previous.models
        selection = replace(
            selection,
            models=selection.models - added,
            unplanned=(*selection.unplanned, *sorted(added)),
        )
    if selection.unplanned:
        job.recorder.log("WARNING", selection.unplanned_message(name))
    return _scope(job, context, environment, selection, audit_only=False, needed_only=needed_only)


def _run_started(context: Context, scope: RunScope) -> RunStarted:
    models = {
        name: snapshot.fingerprint.data_hash
        for name, snapshot in sorted(scope.snapshots.items())
        if snapshot.is_model
    }
    return RunStarted(
        sqlmesh_version=sqlmesh_version,
        environment=scope.name,
        gateway=context.selected_gateway or None,
        plan_id=scope.plan_id,
        environment_models=models,
    )


def deployability(
    environment: str, snapshots: Mapping[str, Snapshot], start: str | None
) -> DeployabilityIndex:
    """Return which snapshots have their own table here, as `Scheduler._run_or_audit` does."""
    if environment == constants.PROD:
        return DeployabilityIndex.all_deployable()
    return DeployabilityIndex.create(snapshots.values(), start=start)


def _physical_table(index: DeployabilityIndex, snapshot: Snapshot) -> str | None:
    if snapshot.is_symbolic:
        return None
    return str(snapshot.table_name(is_deployable=index.is_deployable(snapshot)))


def _no_count(_snapshot: Snapshot) -> None:
    return None


def _count_rows(context: Context, index: DeployabilityIndex, snapshot: Snapshot) -> int | None:
    """Count a model's rows. Not those of views: that would run their query."""
    table, kind = _physical_table(index, snapshot), snapshot.model_kind_name
    if table is None or kind is None or kind.value == "VIEW":
        return None
    adapter = context._get_engine_adapter(snapshot.model_gateway)  # noqa: SLF001
    query = exp.select("COUNT(*)").from_(exp.to_table(table, dialect=adapter.dialect))
    row: Any = adapter.fetchone(query, quote_identifiers=True)
    return int(row[0])


def path_in_project(context: Context, recorded: Path | None) -> str | None:
    """Return a model's file relative to its project.

    State has the path on the machine that planned. Its longest suffix that is a file here is taken
    for the same file.
    """
    if recorded is None:
        return None
    # Of several projects, some are often given as `../other`.
    recorded = Path(os.path.normpath(recorded))
    for root in context.configs:
        for start in range(1, len(recorded.parts)):
            suffix = Path(*recorded.parts[start:])
            if (root / suffix).is_file():
                return suffix.as_posix()
    return recorded.as_posix()


def next_due(snapshot: Snapshot, at: str | None = None) -> datetime | None:
    """Return the next tick of a model's cron, from `at` or now, that completes an interval of it.

    None where no tick does: for seeds, symbolic models, audits, and after the model's `end`.
    """
    if not snapshot.is_model or snapshot.is_symbolic or snapshot.is_seed:
        return None
    node, now = snapshot.node, to_datetime(at) if at else datetime.now(tz=UTC)
    # Intervals up to the last tick are due already, or were evaluated.
    last_tick = node.interval_unit.cron_floor(node.cron_floor(now))
    if node.end and last_tick >= make_exclusive(node.end):
        return None
    if node.start and (start := to_datetime(node.start)) > now:
        # A tick before the first interval has ended completes none.
        now = start + timedelta(seconds=node.interval_unit.seconds - 1)
    due: datetime = node.cron_next(now)
    return due if due.tzinfo else due.replace(tzinfo=UTC)
