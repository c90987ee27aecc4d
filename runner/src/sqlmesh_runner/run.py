"""One run of an environment: `Context.run` once, told as events."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from sqlglot import exp
from sqlmesh import Context
from sqlmesh import __version__ as sqlmesh_version
from sqlmesh.core import constants
from sqlmesh.core.console import create_console
from sqlmesh.core.environment import Environment as HeldEnvironment
from sqlmesh.core.snapshot import DeployabilityIndex, Snapshot

from sqlmesh_runner.audits import watch_audits
from sqlmesh_runner.console import SilentConsole, event_console
from sqlmesh_runner.environment import Environment
from sqlmesh_runner.errors import InterruptedRunError, RunError
from sqlmesh_runner.events import RunStarted
from sqlmesh_runner.job import Job
from sqlmesh_runner.project import held_environment, hydrated_snapshots, open_project, path_in_project, sqlmesh_errors
from sqlmesh_runner.queries import RunningQueries
from sqlmesh_runner.selection import Selection
from sqlmesh_runner.stop import StopRequest

__all__ = ["begin", "evaluate", "in_project"]


def in_project(job: Job, work: Callable[[Job, Context, RunningQueries], None]) -> None:
    """Open the job's project, watched by its recorder, and do the work in it."""
    queries, options = RunningQueries(), job.options
    display = create_console() if job.show_progress else SilentConsole()
    console = event_console(job.recorder, queries, display)
    with open_project(options.directories, gateway=options.gateway, console=console) as context, queries.watch():
        _refuse_if_stopped(job.stop)
        queries.serve(context._get_engine_adapter)  # noqa: SLF001 - the public property gives the default gateway's only
        job.queries = queries
        work(job, context, queries)


def _refuse_if_stopped(stop: StopRequest) -> None:
    if stop.requested:
        raise InterruptedRunError(stop.reason)


def begin(job: Job, context: Context, *, audits_alone: bool = False) -> Environment:
    """Check that the environment holds what is asked for, load it, and say so.

    Raises:
        NotPlannedError: it does not.
        UnreachableError: state or warehouse don't answer.
    """
    held = held_environment(context, job.options.environment, wait=partial(_wait, job))
    selection = job.options.selection.resolved((info.name for info in held.snapshots), environment=held.name)
    environment = _loaded(job, context, held, selection, audits_alone=audits_alone)
    job.recorder.run_started(environment, _run_started(context, environment))
    if selection.unplanned:
        job.recorder.log("INFO", selection.left_out(environment.name))  # the orchestrator warns of all drift at once
    _refuse_if_stopped(job.stop)
    return environment


def _loaded(job: Job, context: Context, held: HeldEnvironment, selection: Selection, *, audits_alone: bool) -> Environment:
    options = job.options
    with sqlmesh_errors("Reading the environment from state"):
        snapshots = hydrated_snapshots(context, held)
    index = _deployability(held.name, snapshots, options.start)
    # Nothing was named: all audits of all there is.
    audits = selection.audits if selection.audits or selection.models is not None else dict.fromkeys(snapshots)
    return Environment(
        name=held.name,
        plan_id=held.plan_id,
        snapshots=snapshots,
        selected=frozenset(audits) if audits_alone else selection.models,
        unplanned=selection.unplanned,
        audits=audits,
        index=index,
        physical_table=lambda snapshot: _physical_table(snapshot, index),
        count_rows=lambda snapshot: _count_rows(context, snapshot, index) if options.row_counts else None,
        path_of=lambda snapshot: path_in_project(context, getattr(snapshot.node, "_path", None)),
        reload=lambda: _reloaded(job, context, held.name, selection),
        audits_alone=audits_alone,
    )


def _reloaded(job: Job, context: Context, name: str, before: Selection) -> Environment | None:
    """Read the environment again after a plan. What that has taken away is left out, as SQLMesh leaves it out."""
    held = context.state_sync.get_environment(name)
    if held is None:
        return None
    selection = replace(job.options.selection, skip_unplanned=True).resolved((info.name for info in held.snapshots), environment=name)
    if selection.models is not None and before.models is not None:  # SQLMesh was given names, and goes on with those
        new = selection.models - before.models
        selection = replace(selection, models=selection.models - new, unplanned=(*selection.unplanned, *sorted(new)))
    if selection.unplanned:
        job.recorder.log("WARNING", selection.left_out(name))
    return _loaded(job, context, held, selection, audits_alone=False)


def _wait(job: Job, why: str, seconds: float) -> None:
    job.recorder.log("WARNING", why)
    job.stop.pause(seconds)
    _refuse_if_stopped(job.stop)


def _run_started(context: Context, environment: Environment) -> RunStarted:
    return RunStarted(
        sqlmesh_version=sqlmesh_version,
        environment=environment.name,
        gateway=context.selected_gateway or None,
        plan_id=environment.plan_id,
        environment_models={
            name: snapshot.fingerprint.data_hash for name, snapshot in sorted(environment.snapshots.items()) if snapshot.is_model
        },
    )


def _deployability(environment: str, snapshots: dict[str, Snapshot], start: str | None) -> DeployabilityIndex:
    """Tell which snapshots have their own table in this environment, as the scheduler does (`Scheduler._run_or_audit`)."""
    if environment == constants.PROD:
        return DeployabilityIndex.all_deployable()
    return DeployabilityIndex.create(snapshots.values(), start=start)


def _physical_table(snapshot: Snapshot, index: DeployabilityIndex) -> str | None:
    return None if snapshot.is_symbolic else snapshot.table_name(is_deployable=index.is_deployable(snapshot))


def _count_rows(context: Context, snapshot: Snapshot, index: DeployabilityIndex) -> int | None:
    """Count a model's rows. Not those of views: that would run their query."""
    table = _physical_table(snapshot, index)
    if table is None or snapshot.model_kind_name is None or snapshot.model_kind_name.value == "VIEW":
        return None
    adapter = context._get_engine_adapter(snapshot.model_gateway)  # noqa: SLF001 - as above
    row: Any = adapter.fetchone(exp.select("COUNT(*)").from_(exp.to_table(table, dialect=adapter.dialect)), quote_identifiers=True)
    return int(row[0])


def evaluate(job: Job, context: Context, _queries: RunningQueries) -> None:
    """Run what is due in the environment.

    Raises:
        RunnerError: the run as a whole could not be done. What fails in a model is an event.
    """
    environment, options = begin(job, context), job.options
    with sqlmesh_errors(f"The run of environment '{environment.name}'"), watch_audits(job.recorder.audited):
        if environment.selected is not None and not environment.selected:
            return  # SQLMesh takes an empty selection for a mistake
        status = context.run(
            environment.name,
            start=options.start,
            end=options.end,
            execution_time=options.execution_time,
            ignore_cron=options.ignore_cron,
            skip_janitor=options.skip_janitor,
            select_models=None if environment.selected is None else sorted(environment.selected),
            no_auto_upstream=True,
        )
        job.recorder.evaluation_ended(nothing_to_do=status.is_nothing_to_do)
        if status.is_failure and not job.recorder.knows_of_failures:
            msg = f"SQLMesh failed the run of environment '{environment.name}' and did not say because of which model; its log may."
            raise RunError(msg)
