"""Audits alone: what is recorded is audited again, nothing is evaluated."""

import sys
import time
from collections.abc import Iterable
from typing import Any

from sqlmesh import Context
from sqlmesh.core.snapshot import Snapshot
from sqlmesh.utils.date import make_exclusive, to_timestamp

from sqlmesh_runner.audits import watch_audits
from sqlmesh_runner.environment import Environment
from sqlmesh_runner.errors import StopEvaluationError, UnreachableError, describe
from sqlmesh_runner.folding import AuditRun, Interval
from sqlmesh_runner.job import Job
from sqlmesh_runner.project import sqlmesh_errors
from sqlmesh_runner.queries import RunningQueries
from sqlmesh_runner.run import begin
from sqlmesh_runner.selection import listed

__all__ = ["audit"]


def audit(job: Job, context: Context, queries: RunningQueries) -> None:
    """Run the selected audits, each once over all that is recorded of its model, or from `start` to `end`.

    One query an audit: auditing in the model's batches would ask a year of days 365 times.

    Raises:
        UnreachableError: some gateway can't be connected to. The models of the others were audited.
        RunnerError: no audit could be run at all. What an audit finds is an event.
    """
    environment = begin(job, context, audits_alone=True)
    selected = environment.audits

    def wanted(snapshot: Any, run: AuditRun) -> bool:
        ids = selected.get(snapshot.name)
        return ids is None or run.id in ids

    with sqlmesh_errors("Reading intervals from state"):
        context.state_sync.refresh_snapshot_intervals(environment.snapshots.values())
    intervals = _intervals(job, (environment.snapshots[name] for name in sorted(selected)))
    job.recorder.evaluation_started({snapshot: [interval] for snapshot, interval in intervals.items()})
    unreachable: dict[str | None, str] = {}  # by gateway: why
    with watch_audits(job.recorder.audited, wanted=wanted):
        for snapshot, interval in intervals.items():
            if snapshot.model_gateway in unreachable:
                continue
            try:
                _audit_model(snapshot, interval, job=job, context=context, environment=environment, queries=queries)
            except UnreachableError as exc:
                unreachable[snapshot.model_gateway] = str(exc)
            except StopEvaluationError:
                return
    if unreachable:
        raise UnreachableError("\n".join(unreachable.values()))


def _audit_model(
    snapshot: Snapshot, interval: Interval, *, job: Job, context: Context, environment: Environment, queries: RunningQueries
) -> None:
    error = None
    with sqlmesh_errors(f"Connecting to gateway {snapshot.model_gateway or context.selected_gateway}", otherwise=UnreachableError):
        queries.begin(snapshot.model_gateway)
    job.recorder.batch_started(snapshot)
    began = time.perf_counter()
    try:
        context.snapshot_evaluator.audit(
            snapshot,
            snapshots=dict(environment.snapshots),
            start=interval[0],
            end=interval[1],
            execution_time=job.options.execution_time,
            deployability_index=environment.index,
        )
    except Exception as exc:  # noqa: BLE001 - told as the model's failure; the other models' audits go on
        error = exc
        job.recorder.log("ERROR", f"{snapshot.name} could not be audited: {describe(exc)}")
    query = queries.end(error)
    job.recorder.batch_ended(
        snapshot, interval, seconds=None if error else time.perf_counter() - began, audits=(0, 0), error=error, query=query
    )


def _intervals(job: Job, snapshots: Iterable[Snapshot]) -> dict[Snapshot, Interval]:
    """Give what to audit: from the first to the last that is recorded of a model and was asked for; no model of which that is nothing."""
    first = to_timestamp(job.options.start) if job.options.start else -sys.maxsize
    last = to_timestamp(make_exclusive(job.options.end)) if job.options.end else sys.maxsize
    found, left_out = {}, []
    for snapshot in snapshots:
        recorded = [*snapshot.intervals, *snapshot.dev_intervals]
        asked = [(max(start, first), min(end, last)) for start, end in recorded if start < last and end > first]
        if asked:
            found[snapshot] = min(start for start, _ in asked), max(end for _, end in asked)
        elif recorded:  # else there may be no table yet
            left_out.append(snapshot.name)
    if left_out:
        job.recorder.log("INFO", f"Not audited, because nothing is recorded of them from --start to --end: {listed(left_out)}.")
    return found
