"""Audit what is recorded in an environment, without evaluating anything."""

import sys
import time
from collections.abc import Iterable
from typing import Any

from sqlmesh.core.snapshot import Snapshot
from sqlmesh.utils.date import make_exclusive, to_timestamp

from sqlmesh_runner.errors import StopEvaluationError, UnreachableError, describe
from sqlmesh_runner.job import Job
from sqlmesh_runner.options import AuditOptions
from sqlmesh_runner.recording.aggregation import AuditRun, BatchResult
from sqlmesh_runner.recording.recorded import Interval
from sqlmesh_runner.recording.scope import RunScope
from sqlmesh_runner.selection import list_names
from sqlmesh_runner.sqlmesh_api.audit_hook import audit_hook
from sqlmesh_runner.sqlmesh_api.context import with_open_project
from sqlmesh_runner.sqlmesh_api.errors import sqlmesh_errors
from sqlmesh_runner.sqlmesh_api.queries import RunningQueries
from sqlmesh_runner.sqlmesh_api.run_context import RunContext
from sqlmesh_runner.sqlmesh_api.run_scope import load_scope

__all__ = ["main"]


def main(job: Job[AuditOptions]) -> None:
    """Run the selected audits, each once over all that is recorded of its model.

    `start` and `end` limit the time. One query for each audit: to audit a model's batches one by
    one would take 365 queries for a year of days.

    Raises:
        UnreachableError: a gateway can't be connected to. The models of the others were audited.
        RunnerError: no audit could be run at all. What an audit finds is an event.
    """
    with_open_project(job, _audit)


def _audit(job: Job[AuditOptions], context: RunContext, queries: RunningQueries) -> None:
    scope = load_scope(job, context, audit_only=True)

    def is_selected(snapshot: Snapshot, run: AuditRun) -> bool:
        ids = scope.audits.get(snapshot.name)
        return ids is None or run.id in ids

    with sqlmesh_errors("Reading intervals from state"):
        context.state_sync.refresh_snapshot_intervals(scope.snapshots.values())
    intervals = _intervals(job, (scope.snapshots[name] for name in sorted(scope.audits)))
    batches = {snapshot: [interval] for snapshot, interval in intervals.items()}
    job.recorder.evaluation_started(batches)
    unreachable: dict[str | None, str] = {}  # error by gateway
    with audit_hook(job.recorder, is_selected=is_selected):
        for snapshot, interval in intervals.items():
            gateway = snapshot.model_gateway
            if gateway in unreachable:
                continue
            try:
                with sqlmesh_errors(
                    f"Connecting to gateway {gateway or context.selected_gateway}",
                    otherwise=UnreachableError,
                ):
                    queries.begin(gateway)
                _audit_model(job, context, scope, queries, snapshot=snapshot, interval=interval)
            except UnreachableError as exc:
                unreachable[gateway] = str(exc)
            except StopEvaluationError:
                return
    if unreachable:
        raise UnreachableError("\n".join(unreachable.values()))


def _audit_model(
    job: Job[AuditOptions],
    context: RunContext,
    scope: RunScope,
    queries: RunningQueries,
    *,
    snapshot: Any,
    interval: Interval,
) -> None:
    error = None
    job.recorder.batch_started(snapshot)
    started = time.perf_counter()
    try:
        context.snapshot_evaluator.audit(
            snapshot,
            snapshots=dict(scope.snapshots),
            start=interval[0],
            end=interval[1],
            execution_time=job.options.execution_time,
            deployability_index=scope.deployability_index,
        )
    except Exception as exc:  # noqa: BLE001 - the model's failure; the other models' audits go on
        error = exc
        job.recorder.log("ERROR", f"{snapshot.name} could not be audited: {describe(exc)}")
    batch = BatchResult(
        snapshot=snapshot,
        interval=interval,
        duration=None if error else time.perf_counter() - started,
        error=error,
        query=queries.end(error),
    )
    job.recorder.batch_ended(batch)


def _intervals(job: Job[AuditOptions], snapshots: Iterable[Snapshot]) -> dict[Snapshot, Interval]:
    """Return what to audit: from the first to the last recorded time that was selected.

    Models of which nothing is recorded in that time are left out.
    """
    first = to_timestamp(job.options.start) if job.options.start else -sys.maxsize
    last = to_timestamp(make_exclusive(job.options.end)) if job.options.end else sys.maxsize
    found, left_out = {}, []
    for snapshot in snapshots:
        recorded = [*snapshot.intervals, *snapshot.dev_intervals]
        selected = [
            (max(start, first), min(end, last))
            for start, end in recorded
            if start < last and end > first
        ]
        if selected:
            found[snapshot] = min(start for start, _ in selected), max(end for _, end in selected)
        elif recorded:  # else there may be no table yet
            left_out.append(snapshot.name)
    if left_out:
        names = list_names(left_out)
        text = f"Not audited, because nothing is recorded of them from --start to --end: {names}."
        job.recorder.log("INFO", text)
    return found
