"""The events that report a model's results: its materialization and its audits."""

from typing import Final

from sqlmesh_runner.recording.aggregation import AuditSummary, ModelRun
from sqlmesh_runner.recording.events import (
    AuditFinished,
    AuditSkipped,
    Event,
    ModelMaterialized,
    from_epoch_ms,
)
from sqlmesh_runner.recording.scope import RunScope

__all__ = ["is_materialized", "results_of"]

_VISIBLE: Final = (
    "The rows that failed are in the table and visible through the environment's view; SQLMesh "
    "only withholds the interval, so the next run evaluates it again."
)
_PUBLISHED: Final = (
    "SQLMesh published the written branch although a blocking audit failed; the interval is "
    "withheld, so the next run evaluates it again."
)


def results_of(run: ModelRun, scope: RunScope) -> list[Event]:
    """Return a model's materialization, if there is one, and the results of its audits."""
    events: list[Event] = [_materialization(run, scope)] if is_materialized(run, scope) else []
    events += [_audit_finished(summary, run, scope) for summary in run.audits.values()]
    events += [
        AuditSkipped(model=run.snapshot.name, audit_id=skipped.id, audit=skipped.name)
        for skipped in run.skipped_audits.values()
    ]
    return events


def is_materialized(run: ModelRun, scope: RunScope) -> bool:
    """Return whether the run evaluated a model that has data, and SQLMesh recorded it."""
    has_data = run.snapshot.is_model and not run.snapshot.is_symbolic
    return bool(run.recorded) and has_data and not scope.audit_only


def _materialization(run: ModelRun, scope: RunScope) -> ModelMaterialized:
    snapshot, end, state = run.snapshot, max(end for _, end in run.recorded), run.state
    # Where the state was not read, a time later than SQLMesh's: the same recording is not news.
    data_version = state.data_version if state else None
    return ModelMaterialized(
        model=snapshot.name,
        environment=scope.name,
        complete=run.is_complete,
        batches=len(run.recorded),
        batches_planned=run.planned,
        duration=round(run.duration, 3),
        interval_start=from_epoch_ms(min(start for start, _ in run.recorded)),
        interval_end=from_epoch_ms(end),
        rows_processed=run.rows,
        bytes_processed=run.bytes,
        row_count=run.row_count,
        physical_table=scope.physical_table(snapshot),
        fingerprint=snapshot.fingerprint.to_identifier(),
        plan_id=scope.plan_id,
        auto_restated_by=run.restated_by,
        recorded_at=state.recorded_time if state else None,
        recorded_begin=state.start if state else None,
        recorded_end=state.end if state else None,
        gaps=state.gaps if state else None,
        data_version=data_version or f"{snapshot.version}:{end}:{run.recorded_at}",
    )


def _audit_finished(summary: AuditSummary, run: ModelRun, scope: RunScope) -> AuditFinished:
    worst, interval, note = summary.worst, summary.interval, None
    if worst.blocking and summary.failing_rows and not scope.audit_only:
        note = _PUBLISHED if worst.write_audit_publish else _VISIBLE
    return AuditFinished(
        model=run.snapshot.name,
        standalone=run.snapshot.is_audit,
        audit_id=worst.id,
        audit=worst.name,
        args=worst.args,
        blocking=worst.blocking,
        passed=summary.passed,
        failing_rows=summary.failing_rows,
        batches=summary.runs,
        duration=round(summary.duration, 3),
        interval_start=from_epoch_ms(interval[0]) if interval else None,
        interval_end=from_epoch_ms(interval[1]) if interval else None,
        query=worst.query,
        dialect=worst.dialect,
        error=worst.error,
        note=note,
    )
