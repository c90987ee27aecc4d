"""What SQLMesh's console and audits tell, turned into events. Knows neither Dagster nor where events go."""

import threading
import time
from collections.abc import Collection, Iterable, Mapping
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
        self._audits: dict[int, list[AuditRun]] = {}  # of the batches at work, by thread
        self._unready: dict[str, list[str]] = {}  # FQN -> signals that held intervals back
        self._planned: dict[str, list[Interval]] = {}  # FQN -> batches, of this attempt
        self._evaluated = False  # SQLMesh has told what failed: no batch of this attempt is still to come
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
            self._evaluated = False
            self._planned = {snapshot.name: list(intervals) for snapshot, intervals in batched_intervals.items()}
            for run in self._runs.values():
                run.give_up_attempt()
            for snapshot, intervals in batched_intervals.items():
                if intervals:
                    self._run_of(snapshot).plan(intervals)
        if self._attempt > 1:
            environment = self._environment.reload()
            with self._lock:
                self._environment = environment or self._environment

    def _run_of(self, snapshot: Any) -> ModelRun:
        """Give what a model has done so far; nothing, if that was another version's of it and is not reported yet."""
        run = self._runs.get(snapshot.name)
        if run is None or (run.snapshot.version != snapshot.version and not run.closed):
            run = self._runs[snapshot.name] = ModelRun(snapshot)
        run.snapshot = snapshot
        return run

    def evaluation_ended(self, *, nothing_to_do: bool) -> None:
        """Take how SQLMesh's run ended. Nothing to do after some was done: the plan that made it begin again has done the rest."""
        if nothing_to_do and self._attempt:
            self.evaluation_started({})

    @property
    def knows_of_failures(self) -> bool:
        """Tell whether a model has failed."""
        return any(run.failed for run in self._runs.values())

    def batch_started(self, snapshot: Any) -> None:
        """Note that this thread begins a batch of a model.

        Raises:
            StopEvaluationError: the runner was asked to stop. Raised here, SQLMesh skips what comes after and ends the run in order.
        """
        if self._stop.requested:
            raise errors.StopEvaluationError(self._stop.reason)
        with self._lock:
            self._audits[threading.get_ident()] = []
            run = self._runs.setdefault(snapshot.name, ModelRun(snapshot, planned=1))
            if run.started or snapshot.is_audit or self._environment.audits_alone:
                return
            run.started = True
            intervals = run.batches or [(0, 0)]
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
        audits = self._audits.get(threading.get_ident())
        if audits is not None and not (run.error and self._stop.requested):  # cancelled, not broken
            audits.append(run)

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
        with self._lock:
            verdicts = self._audits.pop(threading.get_ident(), [])
            run = self._runs[snapshot.name]
            run.add_audits(verdicts)
            if self._environment.audits_alone:
                error = error or run.blocking_error()
            elif seconds is not None:
                self._record(run, interval, seconds=seconds, audits=audits, statistics=statistics, restated_by=list(restated_by))
            if error is not None and not self._was_cancelled(error):
                broken = next((verdict.name for verdict in verdicts if verdict.error), None)
                self._fail(run, error, interval=interval, query=query, audit=_failed_audit(error) or broken)
            run.end_batch(interval, failed=seconds is None)
            is_over = not run.ahead
        if is_over:
            row_count = self._row_count(run)  # not under the lock: the other threads' events do not wait for a query
            with self._lock:
                run.row_count = row_count
                self._report(run)

    def _was_cancelled(self, error: BaseException) -> bool:
        # Once queries are cancelled, a batch's error says nothing about its model. An audit that found rows does.
        return self._stop.requested and _failed_audit(error) is None

    def _fail(
        self, run: ModelRun, error: BaseException, *, interval: Interval | None = None, query: str | None = None, audit: str | None = None
    ) -> None:
        """Say that a model failed, once. `interval` is None if it failed before any batch."""
        if run.failed:
            return
        run.failed = True
        self._emit(
            ModelFailed(
                model=run.snapshot.name,
                error=errors.describe(error),
                error_type=type(error).__name__,
                query=query,
                path=self._environment.path_of(run.snapshot),
                interval_start=from_epoch_ms(interval[0]) if interval else None,
                interval_end=from_epoch_ms(interval[1]) if interval else None,
                batches_done=len(run.recorded),
                batches=run.planned,
                audit=audit,
            )
        )

    def _row_count(self, run: ModelRun) -> int | None:
        if self._stop.requested or not run.recorded or run.closed or run.snapshot.is_audit:
            return None
        try:
            return self._environment.count_rows(run.snapshot)
        except Exception as exc:  # noqa: BLE001 - a custom materialization need not make a table; what is recorded is recorded
            self.log("WARNING", f"The rows of {run.snapshot.name} could not be counted: {errors.describe(exc)}")
            return None

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

    def models_failed(self, node_errors: Iterable[Any]) -> None:
        """Take SQLMesh's list of failures, with which evaluation ends: it has those that belong to no batch (creating a table)."""
        with self._lock:
            self._evaluated = True
            for node_error in node_errors:
                node, error = node_error.node, errors.cause(node_error)
                snapshot = self._environment.snapshots.get(getattr(node, "snapshot_name", ""))
                cancelled = hasattr(node, "interval") and self._was_cancelled(error)  # only a batch's queries are
                if snapshot is not None and not cancelled and not isinstance(error, errors.StopEvaluationError):
                    self._fail(self._run_of(snapshot), error)

    def log(self, level: Any, message: str) -> None:
        """Pass on a line of SQLMesh's, unless it repeats a failed audit of the batch at work: that is a check's verdict."""
        audits = self._audits.get(threading.get_ident(), ())
        repeats_audit = "audit error" in message and any(not run.passed and not run.skipped for run in audits)
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
            # What a broken-off run left out has no reason of its own. An error after evaluation (a hook's) breaks nothing off.
            skipped = [] if outcome == "error" and not self._evaluated else self._report_skipped()
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

    def _report_skipped(self) -> list[str]:
        """Say of each model that was asked for and has no result why it has none."""
        skips = Skips(
            environment=self._environment,
            runs=self._runs,
            planned=self._planned,
            unready=self._unready,
            stopped=self._stop.requested,
            evaluating=self._attempt > 0,
        ).events()
        for event in skips:
            self._emit(event)
        return [event.model for event in skips]

    def _emit(self, event: Event) -> None:
        if not self._finished:
            self._sink.emit(event)


def _failed_audit(error: BaseException) -> str | None:
    """Give the first audit that a model was failed for, by SQLMesh (`NodeAuditsErrors`) or by us (`AuditsFailedError`)."""
    return next((audit.audit_name for audit in getattr(error, "errors", None) or () if hasattr(audit, "audit_name")), None)
