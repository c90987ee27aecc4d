"""Record a run: one lock around its state, and one order for its events."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

from sqlmesh_runner import errors
from sqlmesh_runner.recording.aggregation import AuditRun, BatchResult, ModelRun
from sqlmesh_runner.recording.current import set_current_model
from sqlmesh_runner.recording.events import (
    Event,
    LogLevel,
    ModelMaterialized,
    Outcome,
    RunnerLog,
    RunStarted,
)
from sqlmesh_runner.recording.recorded import Interval, RecordedModel
from sqlmesh_runner.recording.run_state import Completion, RunState
from sqlmesh_runner.recording.scope import RunScope
from sqlmesh_runner.stop import StopRequest

__all__ = ["EventSink", "Recorder"]

_ABANDON_TIMEOUT: Final = 2.0  # seconds

logger = logging.getLogger(__name__)


class EventSink(Protocol):
    """Where events go."""

    def emit(self, event: Event) -> None:
        """Pass on an event. An error means that someone who watches the run misses it."""


class Recorder:
    """Follow one run and emit its events.

    SQLMesh's threads call it, and the main thread when a run is abandoned. The order in which they
    get the lock is the order of the events.
    """

    def __init__(self, sink: EventSink, stop: StopRequest) -> None:
        self._sink = sink
        self._stop = stop
        self._state = RunState(stop)
        self._lock = threading.RLock()
        self._started = time.monotonic()
        self._delivered: set[str] = set()  # models whose materialization every sink accepted
        self._finished = False

    @property
    def error(self) -> errors.RecordingError | None:
        """Return why the run could not be recorded completely; None if it was."""
        return errors.RecordingError(self._state.problem) if self._state.problem else None

    @property
    def has_failures(self) -> bool:
        """Return whether a model has failed."""
        return bool(self._state.failed_models())

    def internal_error(self, doing: str, exc: BaseException) -> None:
        """Note an error of the runner itself, while SQLMesh goes on. The run can't succeed now.

        Args:
            doing: what failed, as in "recording an audit".
            exc: the error.
        """
        logger.error("An error of the runner itself: %s failed", doing, exc_info=exc)
        with self._lock:
            text = f"{type(exc).__name__}: {errors.describe(exc)}"
            self._state.add_problem(f"{doing} failed ({text})")

    # While SQLMesh runs.

    def run_started(self, scope: RunScope, event: RunStarted) -> None:
        """Emit that the environment was found and can be run."""
        with self._lock:
            self._state.scope = scope
            self._emit([event])

    def plan_made(self, plan_id: str) -> None:
        """Set the plan that the results from now on belong to, in place of the environment's."""
        with self._lock:
            self._state.scope = replace(self._state.scope, plan_id=plan_id)

    def evaluation_started(self, batches: Mapping[Any, list[Interval]]) -> None:
        """Set what SQLMesh plans. A second plan means that the environment changed meanwhile."""
        with self._lock:
            self._emit(self._state.evaluation_started(batches))
            restarted, scope = self._state.attempt > 1, self._state.scope
        if not restarted:
            self._report_idle_models(scope)
        else:
            reloaded = scope.reload()
            with self._lock:
                self._state.scope = reloaded or scope

    def _report_idle_models(self, scope: RunScope) -> None:
        """Emit what is recorded of the models that the run leaves alone, if that is wanted."""
        if scope.adopt:
            recorded = self._recorded_of(self._state.idle_models())
            with self._lock:
                self._emit(self._state.models_recorded([*recorded.values()]))

    def evaluation_ended(self, completion: Completion) -> None:
        """Compare what SQLMesh returned with what was recorded."""
        if not self._state.attempt:
            self._report_idle_models(self._state.scope)  # there is nothing to do
        self._read_state(self._state.unreported_models())
        with self._lock:
            self._emit(self._state.evaluation_ended(completion))

    def batch_started(self, snapshot: Any) -> None:
        """Note that this thread starts a batch of a model.

        Raises:
            StopEvaluationError: the runner was asked to stop. Raised here, it makes SQLMesh skip
                the other batches and end the run in order.
        """
        if self._stop.requested:
            raise errors.StopEvaluationError(self._stop.reason)
        set_current_model(snapshot.name)
        with self._lock:
            self._emit(self._state.batch_started(snapshot, worker=threading.get_ident()))

    def audit_finished(self, audit: AuditRun) -> None:
        """Note an audit's result, in the thread of the batch that it belongs to."""
        with self._lock:
            self._state.audit_finished(audit, worker=threading.get_ident())

    def batch_ended(self, batch: BatchResult) -> None:
        """Record the end of this thread's batch; emit the model's results if it was the last."""
        set_current_model(None)
        with self._lock:
            now = int(time.time() * 1000)
            self._emit(self._state.batch_ended(batch, worker=threading.get_ident(), now=now))
            run = self._state.finished_model(batch.snapshot.name)
        if run is not None:
            # Not under the lock: the events of other threads do not wait for a query.
            row_count = self._row_count(run)
            self._read_state([run])
            with self._lock:
                run.row_count = row_count
                self._emit(self._state.report(run))

    def _read_state(self, runs: Iterable[ModelRun]) -> None:
        """Read what the state holds of models that were evaluated, for their materialization."""
        evaluated = [run for run in runs if run.recorded and not self._state.scope.audit_only]
        if evaluated:
            recorded = self._recorded_of([run.snapshot for run in evaluated])
            for run in evaluated:
                run.state = recorded.get(run.snapshot.name)

    def _recorded_of(self, snapshots: list[Any]) -> Mapping[str, RecordedModel]:
        try:
            return self._state.scope.recorded_of(snapshots)
        except Exception as exc:  # noqa: BLE001 - SQLMesh has recorded it, whether it is read or not
            self.log("WARNING", f"The recorded intervals could not be read: {errors.describe(exc)}")
            return {}

    def _row_count(self, run: ModelRun) -> int | None:
        if self._stop.requested or not run.recorded or run.snapshot.is_audit:
            return None
        try:
            return self._state.scope.count_rows(run.snapshot)
        except Exception as exc:  # noqa: BLE001 - a custom materialization need not make a table
            text = errors.describe(exc)
            self.log("WARNING", f"The rows of {run.snapshot.name} could not be counted: {text}")
            return None

    def signal_checked(
        self, snapshot: Any, *, signal: str, ready: list[Interval], asked: list[Interval]
    ) -> None:
        """Note a signal's answer."""
        with self._lock:
            self._state.signal_checked(snapshot, signal=signal, ready=ready, asked=asked)

    def models_failed(self, node_errors: Iterable[Any]) -> None:
        """Record SQLMesh's list of failures, which ends the evaluation."""
        with self._lock:
            self._emit(self._state.models_failed(node_errors))

    def log(self, level: LogLevel, message: str) -> None:
        """Emit a message of SQLMesh's that no other event contains."""
        with self._lock:
            text = errors.plain_text(message)
            self._emit(self._state.log(level, text, worker=threading.get_ident()))

    def log_runner(self, level: LogLevel, message: str) -> None:
        """Emit a message of the runner's own."""
        with self._lock:
            self._emit([RunnerLog(level=level, message=message)])

    # The end.

    def finish(self, outcome: Outcome | None, exit_code: int, *, error: str | None = None) -> int:
        """Report what is not reported yet, and the outcome. Only the first call counts.

        Args:
            outcome: None if SQLMesh's run ended: the outcome then follows from what happened to
                the models, and is `error` if that is not known completely.
            exit_code: the one of the given outcome.
            error: the text for it.

        Returns: the process's exit code.
        """
        with self._lock:
            if self._finished:
                return exit_code
            self._emit_from("reporting the remaining results", self._remaining_results)
            # Nobody knows what a run that broke off would have done with the other models. An
            # error after evaluation (of an `after_all` statement) breaks nothing off.
            if outcome != "error" or self._state.is_evaluated:
                self._emit_from("classifying the skipped models", self._state.skips)
            self._compare_materializations()
            duration = time.monotonic() - self._started
            end = self._state.end(outcome, exit_code, error=error, duration=duration)
            self._emit([end])
            self._finished = True
            if self.error is not None and end.exit_code == errors.EXIT_DONE:
                return self.error.exit_code  # the end itself could not be delivered
            return end.exit_code

    def _remaining_results(self) -> list[Event]:
        return [
            event for run in self._state.unreported_models() for event in self._state.report(run)
        ]

    def _compare_materializations(self) -> None:
        missing = {*self._state.materialized_models()} - self._delivered
        if missing:
            self._state.add_problem(f"the materialization of {min(missing)} was not delivered")

    def abandon(self, error: str) -> None:
        """Finish from the main thread while SQLMesh's thread still works.

        Returns without a report if that thread holds the lock, in a sink that blocks.
        """
        if self._lock.acquire(timeout=_ABANDON_TIMEOUT):
            try:
                text = f"{self._stop.reason}; {error}"
                self.finish("interrupted", self._stop.exit_code, error=text)
            finally:
                self._lock.release()

    def _emit_from(self, doing: str, events: Callable[[], list[Event]]) -> None:
        try:
            self._emit(events())
        except Exception as exc:  # noqa: BLE001 - the end of the run is reported in any case
            self.internal_error(doing, exc)

    def _emit(self, events: Iterable[Event]) -> None:
        for event in events:
            if self._finished:
                return
            try:
                self._sink.emit(event)
            except Exception as exc:  # noqa: BLE001 - SQLMesh and the other events go on
                self.internal_error(f"reporting {event.type}", exc)
            else:
                if isinstance(event, ModelMaterialized):
                    self._delivered.add(event.model)
