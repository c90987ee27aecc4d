"""Audits alone: what is recorded is audited again, nothing is evaluated."""

import time
from typing import Any

from sqlmesh import Context
from sqlmesh.core.snapshot import Snapshot
from sqlmesh.utils.date import make_exclusive, to_timestamp

from sqlmesh_runner.audits import watch_audits
from sqlmesh_runner.environment import Environment
from sqlmesh_runner.errors import StopEvaluationError, describe
from sqlmesh_runner.folding import AuditRun, Interval
from sqlmesh_runner.job import Job
from sqlmesh_runner.project import sqlmesh_errors
from sqlmesh_runner.queries import RunningQueries
from sqlmesh_runner.run import begin

__all__ = ["audit"]


def audit(job: Job, context: Context, queries: RunningQueries) -> None:
    """Run the selected audits, each once over all that is recorded of its model, or from `start` to `end`.

    One query an audit: auditing in the model's batches would ask a year of days 365 times.

    Raises:
        RunnerError: no audit could be run at all. What an audit finds is an event.
    """
    environment = begin(job, context, audits_alone=True)
    selected = environment.audits

    def wanted(snapshot: Any, run: AuditRun) -> bool:
        ids = selected.get(snapshot.name)
        return ids is None or run.id in ids

    with sqlmesh_errors("Reading intervals from state"):
        context.state_sync.refresh_snapshot_intervals(environment.snapshots.values())
    intervals = {name: _interval(environment.snapshots[name], job.options.start, job.options.end) for name in sorted(selected)}
    job.recorder.evaluation_started({environment.snapshots[name]: [each] for name, each in intervals.items() if each})
    with watch_audits(job.recorder.audited, wanted=wanted):
        for name, interval in intervals.items():
            if interval is None:
                continue  # nothing is recorded: there may be no table yet
            try:
                _audit_model(environment.snapshots[name], interval, job=job, context=context, environment=environment, queries=queries)
            except StopEvaluationError:
                return


def _audit_model(
    snapshot: Snapshot, interval: Interval, *, job: Job, context: Context, environment: Environment, queries: RunningQueries
) -> None:
    error = None
    job.recorder.batch_started(snapshot)
    queries.begin(snapshot.model_gateway)
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
    query = queries.end()
    job.recorder.batch_ended(
        snapshot, interval, seconds=None if error else time.perf_counter() - began, audits=(0, 0), error=error, query=query
    )


def _interval(snapshot: Snapshot, start: str | None, end: str | None) -> Interval | None:
    """Give what to audit: the whole range that is recorded, cut to what was asked for."""
    recorded = [*snapshot.intervals, *snapshot.dev_intervals]
    if not recorded:
        return None
    first, last = min(interval[0] for interval in recorded), max(interval[1] for interval in recorded)
    return (to_timestamp(start) if start else first), (to_timestamp(make_exclusive(end)) if end else last)
