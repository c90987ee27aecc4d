"""What SQLMesh's console and audits tell, turned into events. Knows neither Dagster nor where events go."""

import threading
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlmesh_runner import errors
from sqlmesh_runner.environment import Environment
from sqlmesh_runner.events import (
    AuditSkipped,
    BatchFinished,
    Event,
    Log,
    ModelFailed,
    ModelMaterialized,
    ModelStarted,
    Outcome,
    RunFinished,
    RunRestarted,
    RunStarted,
    from_epoch_ms,
)
from sqlmesh_runner.folding import AuditRun, Interval, ModelRun
from sqlmesh_runner.sinks.base import Sink
from sqlmesh_runner.skips import Skips
from sqlmesh_runner.stop import StopRequest

__all__ = ["Recorder"]


_NOWHERE = Environment(name="", plan_id="", snapshots={}, selected=frozenset())


@dataclass
class _Batch:
    """A batch at work, kept by the thread that works on it."""

    snapshot: Any
    audits: list[AuditRun] = field(default_factory=list)


class Recorder:
    """Follow one run and emit its events.

    SQLMesh's threads call it, and the main thread when a run is abandoned; one lock makes their order the order of events.
    """

    def __init__(self, sink: Sink, stop: StopRequest) -> None:
        self._sink = sink
        self._stop = stop
        self._lock = threading.RLock()
        self._began = time.monotonic()
        self._environment = _NOWHERE
        self._attempt = 0
        self._runs: dict[str, ModelRun] = {}
        self._batches: dict[int, _Batch] = {}  # by thread
        self._unready: dict[str, list[str]] = {}  # FQN -> signals that held intervals back
        self._intervals: dict[str, list[Interval]] = {}  # FQN -> batches, of this attempt
        self._skipped: set[str] = set()
        self._finished = False

    # What the run and its console tell.

    def run_started(self, environment: Environment, event: RunStarted) -> None:
        """Say that there is something to run."""
        with self._lock:
            self._environment = environment
            self._emit(event)

    def evaluation_started(self, batched_intervals: Mapping[Any, list[Interval]]) -> None:
        """Take SQLMesh's plan of batches. A second one means that the environment changed and the run began again."""
        with self._lock:
            self._attempt += 1
            if self._attempt > 1:
                self._emit(RunRestarted(attempt=self._attempt, reason="a plan changed the environment while it ran"))
            self._skipped.clear()
            self._intervals = {snapshot.name: list(intervals) for snapshot, intervals in batched_intervals.items()}
            for snapshot, intervals in batched_intervals.items():
                if intervals:
                    run = self._runs.setdefault(snapshot.name, ModelRun(snapshot))
                    run.snapshot = snapshot
                    run.begin_attempt(len(intervals))

    def batch_started(self, snapshot: Any) -> None:
        """Note that this thread begins a batch of a model.

        Raises:
            StopEvaluationError: the runner was asked to stop. Raised here, SQLMesh skips what comes after and ends the run in order.
        """
        if self._stop.requested:
            raise errors.StopEvaluationError(self._stop.reason)
        with self._lock:
            self._batches[threading.get_ident()] = _Batch(snapshot)
            run = self._runs.setdefault(snapshot.name, ModelRun(snapshot, planned=1))
            if run.started or snapshot.is_audit or self._environment.audits_alone:
                return
            run.started = True
            intervals = self._intervals.get(snapshot.name) or [(0, 0)]
            self._emit(
                ModelStarted(
                    attempt=self._attempt,
                    model=snapshot.name,
                    batches=run.planned,
                    interval_start=from_epoch_ms(min(start for start, _ in intervals)),
                    interval_end=from_epoch_ms(max(end for _, end in intervals)),
                )
            )

    def audited(self, run: AuditRun) -> None:
        """Take an audit's verdict, told by the thread whose batch it belongs to."""
        batch = self._batches.get(threading.get_ident())
        if batch is not None and not (run.error and self._stop.requested):  # cancelled, not broken
            batch.audits.append(run)

    def batch_ended(
        self,
        snapshot: Any,
        interval: Interval,
        *,
        seconds: float | None,
        audits: tuple[int, int],
        statistics: Any = None,
        restated_by: Iterable[str] = (),
        error: BaseException | None = None,
        query: str | None = None,
    ) -> None:
        """Take a batch's end. `seconds` is None if it failed; `error` is then what it failed with."""
        row_count = None
        if seconds is not None and self._is_last_batch(snapshot):
            row_count = self._environment.count_rows(snapshot)
        with self._lock:
            batch = self._batches.pop(threading.get_ident(), None)
            run = self._runs[snapshot.name]
            run.ended += 1
            run.add_audits(batch.audits if batch else [])
            if self._environment.audits_alone:
                run.error = error or run.blocking_error()
            elif seconds is None:
                if run.error is None:
                    run.error, run.error_query, run.error_interval = error, query, interval
            else:
                run.row_count = row_count
                self._record(run, interval, seconds=seconds, audits=audits, statistics=statistics, restated_by=list(restated_by))
            if run.ended == len(self._intervals.get(snapshot.name, ())):
                self._report(run)

    def _is_last_batch(self, snapshot: Any) -> bool:
        return self._runs[snapshot.name].ended + 1 == len(self._intervals.get(snapshot.name, ())) and not snapshot.is_audit

    def _record(
        self, run: ModelRun, interval: Interval, *, seconds: float, audits: tuple[int, int], statistics: Any, restated_by: list[str]
    ) -> None:
        rows = getattr(statistics, "total_rows_processed", None)
        size = getattr(statistics, "total_bytes_processed", None)
        run.add_recorded(interval, duration=seconds, rows=rows, size=size, at=int(time.time() * 1000))
        run.restated_by = sorted({*run.restated_by, *restated_by})
        if run.snapshot.is_audit:
            return
        self._emit(
            BatchFinished(
                model=run.snapshot.name,
                batch=len(run.recorded),
                batches=run.planned,
                interval_start=from_epoch_ms(interval[0]),
                interval_end=from_epoch_ms(interval[1]),
                duration=seconds,
                rows=rows,
                bytes=size,
                audits_passed=audits[0],
                audits_failed=audits[1],
                auto_restated_by=restated_by,
            )
        )

    def signal_checked(self, snapshot: Any, *, signal: str, ready: Collection[Interval], asked: Collection[Interval]) -> None:
        """Note a signal that holds intervals back."""
        if list(ready) != list(asked):
            with self._lock:
                self._unready.setdefault(snapshot.name, []).append(signal)

    def models_skipped(self, names: Collection[str]) -> None:
        """Note what SQLMesh skipped. Said at the end only: an attempt that is given up skips everything."""
        with self._lock:
            self._skipped |= set(names)

    def models_failed(self, node_errors: Iterable[Any]) -> None:
        """Take SQLMesh's list of failures: it has those that belong to no batch (creating a table)."""
        with self._lock:
            for node_error in node_errors:
                name = getattr(node_error.node, "snapshot_name", "")
                snapshot = self._environment.snapshots.get(name)
                error = errors.cause(node_error)
                if snapshot is None or isinstance(error, errors.StopEvaluationError):
                    continue
                run = self._runs.setdefault(snapshot.name, ModelRun(snapshot))
                run.error = run.error or error

    def log(self, level: Any, message: str) -> None:
        """Pass on a line of SQLMesh's, unless it repeats a failed audit of the batch at work: that is a check's verdict."""
        batch = self._batches.get(threading.get_ident())
        repeats_audit = batch is not None and any(not run.passed and not run.skipped for run in batch.audits) and "audit error" in message
        if message.strip() and not repeats_audit:
            with self._lock:
                self._emit(Log(level=level, message=message.strip()))

    # The end.

    def finish(self, outcome: Outcome | None, exit_code: int, *, error: str | None = None) -> int:
        """Report what is still open, and the outcome. The first call counts; later ones only return their code.

        `outcome` None: SQLMesh came to its end; the outcome follows from what happened to the models.
        """
        with self._lock:
            if self._finished:
                return exit_code
            for run in list(self._runs.values()):
                self._report(run)
            skipped = [] if outcome == "error" else self._report_skipped()  # what a broken-off run left out has no reason of its own
            failed = sorted(name for name, run in self._runs.items() if run.failed)
            materialized = sorted(name for name, run in self._runs.items() if run.materialized)
            if outcome is None:
                outcome, exit_code = self._judge(failed)
            self._emit(
                RunFinished(
                    outcome=outcome,
                    exit_code=exit_code,
                    duration=round(time.monotonic() - self._began, 3),
                    materialized=materialized,
                    failed=failed,
                    skipped=skipped,
                    next_due=self._environment.next_due(),
                    error=error or (self._stop.reason if outcome == "interrupted" else None),
                )
            )
            self._finished = True
            return exit_code

    def abandon(self, error: str) -> None:
        """Finish from the main thread while SQLMesh's still works. Gives up if that thread holds the lock (a sink that blocks)."""
        if self._lock.acquire(timeout=2.0):
            try:
                self.finish("interrupted", self._stop.exit_code, error=f"{self._stop.reason}; {error}")
            finally:
                self._lock.release()

    def _judge(self, failed: list[str]) -> tuple[Outcome, int]:
        if failed:
            return "failed", errors.EXIT_FAILED
        return ("success" if any(run.recorded or run.closed for run in self._runs.values()) else "nothing_to_do"), errors.EXIT_DONE

    def _report(self, run: ModelRun) -> None:
        """Say a model's results, as far as they have not been said."""
        name = run.snapshot.name
        if not run.closed and (run.recorded or run.audits or run.skipped_audits):
            run.closed = True
            if run.recorded and run.snapshot.is_model and not run.snapshot.is_symbolic and not self._environment.audits_alone:
                run.materialized = True
                self._emit(self._materialization(run))
            for fold in run.audits.values():
                self._emit(fold.verdict(name, standalone=run.snapshot.is_audit, alone=self._environment.audits_alone))
            for skipped in run.skipped_audits.values():
                self._emit(AuditSkipped(model=name, audit_id=skipped.id, audit=skipped.name))
        if run.error is not None and not run.failed and not self._was_cancelled(run):
            run.failed = True
            self._emit(self._failure(run, run.error))

    def _was_cancelled(self, run: ModelRun) -> bool:
        # Once queries are cancelled, a batch's error says nothing about the model. An audit that found rows does.
        return self._stop.requested and not getattr(run.error, "errors", None)

    def _materialization(self, run: ModelRun) -> ModelMaterialized:
        snapshot, end = run.snapshot, max(end for _, end in run.recorded)
        return ModelMaterialized(
            model=snapshot.name,
            environment=self._environment.name,
            complete=len(run.recorded) >= run.planned,
            batches=len(run.recorded),
            batches_planned=run.planned,
            duration=round(run.duration, 3),
            interval_start=from_epoch_ms(min(start for start, _ in run.recorded)),
            interval_end=from_epoch_ms(end),
            rows_processed=run.rows,
            bytes_processed=run.bytes,
            row_count=run.row_count,
            physical_table=self._environment.physical_table(snapshot),
            fingerprint=snapshot.fingerprint.to_identifier(),
            plan_id=self._environment.plan_id,
            auto_restated_by=run.restated_by,
            data_version=f"{snapshot.version}:{end}:{run.recorded_at}",
        )

    def _failure(self, run: ModelRun, error: BaseException) -> ModelFailed:
        audit_errors = getattr(error, "errors", None) or []
        audit = getattr(audit_errors[0], "audit_name", None) if audit_errors else None
        return ModelFailed(
            model=run.snapshot.name,
            error=errors.describe(error),
            error_type=type(error).__name__,
            query=None if audit else run.error_query,
            path=self._environment.path_of(run.snapshot),
            interval_start=from_epoch_ms(run.error_interval[0]) if run.error_interval else None,
            interval_end=from_epoch_ms(run.error_interval[1]) if run.error_interval else None,
            batches_done=len(run.recorded),
            batches=run.planned,
            audit=audit,
        )

    def _report_skipped(self) -> list[str]:
        """Say of each model that was asked for and has no result why it has none."""
        skips = Skips(
            environment=self._environment,
            runs=self._runs,
            planned=self._intervals,
            skipped=self._skipped,
            unready=self._unready,
            stopped=self._stop.requested,
        ).events()
        for event in skips:
            self._emit(event)
        return [event.model for event in skips]

    def _emit(self, event: Event) -> None:
        if not self._finished:
            self._sink.emit(event)
