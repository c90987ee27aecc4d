"""The state of a run: SQLMesh's callbacks in, events out. No locks, no sinks, no SQLMesh."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from sqlmesh_runner import errors
from sqlmesh_runner.recording.aggregation import AuditRun, BatchResult, ModelRun
from sqlmesh_runner.recording.events import (
    BatchFinished,
    Event,
    Log,
    LogLevel,
    ModelFailed,
    ModelSkipped,
    ModelStarted,
    Outcome,
    RunFinished,
    RunRestarted,
    from_epoch_ms,
)
from sqlmesh_runner.recording.recorded import Interval, ModelsRecorded, RecordedModel
from sqlmesh_runner.recording.results import is_materialized, results_of
from sqlmesh_runner.recording.scope import RunScope, in_topological_order
from sqlmesh_runner.recording.skips import SkipClassifier, UnexplainedSkipError
from sqlmesh_runner.stop import StopRequest

__all__ = ["Completion", "RunState"]

Completion = Literal["success", "failure", "nothing_to_do"]
"""What SQLMesh returns from a run (`CompletionStatus`)."""

_RECORDED_PER_EVENT: Final = 200  # models; an entry has about 500 bytes

_NO_SCOPE: Final = RunScope(name="", plan_id="", snapshots={}, selected=frozenset())


class RunState:
    """Turn what SQLMesh reports into events, in the order in which they are to be emitted.

    Not thread-safe. `worker` identifies the thread that a batch runs on: SQLMesh reports an audit
    in the thread of its batch, and not which batch that is.
    """

    def __init__(self, stop: StopRequest) -> None:
        self.scope = _NO_SCOPE
        self.attempt = 0
        self.problem: str | None = None
        """The first reason why the events are not the whole truth. The run must not succeed."""
        self.is_evaluated = False
        """SQLMesh has reported the failures of this attempt: no batch is still to come."""
        self._stop = stop
        self._runs: dict[str, ModelRun] = {}  # by FQN
        self._audits: dict[int, list[AuditRun]] = {}  # of the running batches, by worker
        self._blocking_signals: dict[str, list[str]] = {}  # by FQN
        self._planned: dict[str, list[Interval]] = {}  # batches of this attempt, by FQN
        self._skipped: list[str] = []

    def add_problem(self, problem: str) -> None:
        """Note why the run was not recorded completely. The first problem is kept."""
        self.problem = self.problem or problem

    # While SQLMesh runs.

    def evaluation_started(self, batches: Mapping[Any, list[Interval]]) -> list[Event]:
        """Set what SQLMesh plans. A second plan means that it started again."""
        self.attempt += 1
        self.is_evaluated = False
        self._planned = {snapshot.name: list(planned) for snapshot, planned in batches.items()}
        for run in self._runs.values():
            run.discard_attempt()
        for snapshot, planned in batches.items():
            if planned:
                self._run_of(snapshot).plan(planned)
        if self.attempt == 1:
            return []
        reason = "a plan changed the environment while it ran"
        return [RunRestarted(attempt=self.attempt, reason=reason)]

    def idle_models(self) -> list[Any]:
        """Return the selected models with a table and no batch in this attempt, in order."""
        return [
            snapshot
            for snapshot in in_topological_order(self.scope.snapshots.values())
            if snapshot.is_model
            and not snapshot.is_symbolic
            and self.scope.is_selected(snapshot.name)
            and not self._planned.get(snapshot.name)
        ]

    def models_recorded(self, recorded: Sequence[RecordedModel]) -> list[Event]:
        """Return what is recorded of models that have no batch in this attempt."""
        known = [model for model in recorded if model.intervals]
        upstream_runs = frozenset(
            model.model for model in known if self._reads_planned(model.model)
        )
        return [
            ModelsRecorded(
                environment=self.scope.name,
                plan_id=self.scope.plan_id,
                models=known[start : start + _RECORDED_PER_EVENT],
                upstream_runs=upstream_runs,
            )
            for start in range(0, len(known), _RECORDED_PER_EVENT)
        ]

    def _reads_planned(self, name: str) -> bool:
        """Return whether a model reads one that has batches, itself or through EMBEDDED models."""

        def has_table(other: str) -> bool:
            return other != name and not self.scope.snapshots[other].is_symbolic

        upstream = self.scope.upstream(name, until=has_table)
        return any(self._planned.get(other) for other in upstream if other != name)

    def _run_of(self, snapshot: Any) -> ModelRun:
        """Return the run of a model.

        A new one, if a plan replaced the version that ran before and was not reported.
        """
        run = self._runs.get(snapshot.name)
        if run is None or (run.snapshot.version != snapshot.version and not run.reported):
            run = self._runs[snapshot.name] = ModelRun(snapshot)
        run.snapshot = snapshot
        return run

    def signal_checked(
        self,
        snapshot: Any,
        *,
        signal: str,
        ready: Collection[Interval],
        asked: Collection[Interval],
    ) -> None:
        """Note a signal that holds intervals back."""
        if list(ready) != list(asked):
            self._blocking_signals.setdefault(snapshot.name, []).append(signal)

    def batch_started(self, snapshot: Any, *, worker: int) -> list[Event]:
        """Note that a worker starts a batch. The first one of a model is an event."""
        self._audits[worker] = []
        run = self._runs.setdefault(snapshot.name, ModelRun(snapshot, planned=1))
        if run.started or snapshot.is_audit or self.scope.audit_only:
            return []
        run.started = True
        intervals = run.batches or [(0, 0)]
        started = ModelStarted(
            attempt=self.attempt,
            model=snapshot.name,
            batches=run.planned,
            interval_start=from_epoch_ms(min(start for start, _ in intervals)),
            interval_end=from_epoch_ms(max(end for _, end in intervals)),
        )
        return [started]

    def audit_finished(self, audit: AuditRun, *, worker: int) -> None:
        """Note an audit's result. An audit that a stop cancelled has none."""
        is_cancelled = audit.error is not None and self._stop.requested
        if worker in self._audits and not is_cancelled:
            self._audits[worker].append(audit)

    def batch_ended(self, batch: BatchResult, *, worker: int, now: int) -> list[Event]:
        """Record a batch and its audits. `now` is in epoch milliseconds."""
        audits = self._audits.pop(worker, [])
        run = self._runs.setdefault(batch.snapshot.name, ModelRun(batch.snapshot, planned=1))
        run.add_audits(audits)
        error, events = batch.error, list[Event]()
        if self.scope.audit_only:
            error = error or run.blocking_error()
        elif batch.duration is not None:
            self._compare_audits(batch, audits)
            run.add_recorded(batch, recorded_at=now)
            events += _batch_finished(batch, run)
        if error is not None and not self._is_cancelled(error):
            broken = next((audit.name for audit in audits if audit.error), None)
            audit = _failed_audit(error) or broken
            events += self._failed(
                run, error, interval=batch.interval, query=batch.query, audit=audit
            )
        run.end_batch(batch.interval, failed=batch.duration is None)
        return events

    def _compare_audits(self, batch: BatchResult, audits: Collection[AuditRun]) -> None:
        if batch.audits != len(audits):
            self.add_problem(
                f"SQLMesh ran {batch.audits} audits of a batch of {batch.snapshot.name}, "
                f"and the runner saw {len(audits)}"
            )

    def _is_cancelled(self, error: BaseException) -> bool:
        # A stop cancels queries: an error then says nothing about the model, unless an audit
        # found rows.
        return self._stop.requested and _failed_audit(error) is None

    def _failed(
        self,
        run: ModelRun,
        error: BaseException,
        *,
        interval: Interval | None = None,
        query: str | None = None,
        audit: str | None = None,
    ) -> list[Event]:
        """Return a model's first failure. `interval` is None if it failed before any batch."""
        if run.failed:
            return []
        run.failed = True
        failed = ModelFailed(
            model=run.snapshot.name,
            error=errors.describe(error),
            error_type=type(error).__name__,
            query=query,
            path=self.scope.path_of(run.snapshot),
            interval_start=from_epoch_ms(interval[0]) if interval else None,
            interval_end=from_epoch_ms(interval[1]) if interval else None,
            batches_done=len(run.recorded),
            batches=run.planned,
            audit=audit,
        )
        return [failed]

    def log(self, level: LogLevel, message: str, *, worker: int) -> list[Event]:
        """Return SQLMesh's message, unless it repeats a failed audit of the running batch."""
        text = message.strip()
        has_failed_audit = any(
            not audit.passed and not audit.skipped for audit in self._audits.get(worker, ())
        )
        is_repetition = has_failed_audit and "audit error" in text
        return [Log(level=level, message=text)] if text and not is_repetition else []

    def models_failed(self, node_errors: Iterable[Any]) -> list[Event]:
        """Add the failures that belong to no batch, such as that of creating a table.

        SQLMesh reports all failures, and with them that evaluation is over.
        """
        self.is_evaluated = True
        events: list[Event] = []
        for node_error in node_errors:
            error = errors.cause(node_error)
            name, is_batch = _failed_node(node_error.node)
            if isinstance(error, errors.StopEvaluationError) or (
                is_batch and self._is_cancelled(error)
            ):
                continue
            snapshot = self.scope.snapshots.get(name)
            if snapshot is None:
                text = errors.describe(error)
                self.add_problem(f"{name or 'a node'}, which the environment lacks, failed: {text}")
            else:
                events += self._failed(self._run_of(snapshot), error)
        return events

    def evaluation_ended(self, completion: Completion) -> list[Event]:
        """Compare what SQLMesh returned with what was recorded."""
        failed = self.failed_models()
        if completion == "nothing_to_do":
            # After an attempt, the plan that ended it has done the rest.
            return self.evaluation_started({}) if self.attempt else []
        if completion == "failure":
            if not failed and not self._stop.requested:
                self.add_problem("SQLMesh reports that the run failed, but no failure of a model")
        elif not self.attempt:
            self.add_problem("SQLMesh reports a successful run, but not what it planned")
        elif failed:
            self.add_problem(f"SQLMesh reports a successful run, though {failed[0]} failed")
        else:
            for run in self._runs.values():
                if run.pending:
                    self.add_problem(
                        f"SQLMesh reports a successful run, but not the end of "
                        f"{len(run.pending)} batches of {run.snapshot.name}"
                    )
        return []

    # The results.

    def finished_model(self, name: str) -> ModelRun | None:
        """Return a model's run if it is over and has results that were not reported."""
        run = self._runs[name]
        return run if run.is_over and run.has_results and not run.reported else None

    def unreported_models(self) -> list[ModelRun]:
        """Return the models with results that were not reported, complete or not."""
        return [run for run in self._runs.values() if run.has_results and not run.reported]

    def report(self, run: ModelRun) -> list[Event]:
        """Return a model's results. They are reported once."""
        if run.reported:
            return []
        run.reported = True
        run.materialized = is_materialized(run, self.scope)
        return results_of(run, self.scope)

    def failed_models(self) -> list[str]:
        """Return the names of the models that failed in this attempt, sorted."""
        return sorted(name for name, run in self._runs.items() if run.failed)

    def materialized_models(self) -> list[str]:
        """Return the names of the models whose materialization was reported, sorted."""
        return sorted(name for name, run in self._runs.items() if run.materialized)

    def skips(self) -> list[Event]:
        """Return an event for each selected model without a result, sorted by name."""
        classifier = SkipClassifier(
            scope=self.scope,
            runs=self._runs,
            planned=self._planned,
            blocking_signals=self._blocking_signals,
            stopped=self._stop.requested,
            has_plan=self.attempt > 0,
        )
        events: list[ModelSkipped] = []
        for name in classifier.candidates():
            try:
                event = classifier.skip_of(name)
            except UnexplainedSkipError as exc:
                self.add_problem(str(exc))
            else:
                events += [event] if event is not None else []
        self._skipped = [event.model for event in events]
        return list[Event](events)

    def end(
        self, outcome: Outcome | None, exit_code: int, *, error: str | None, duration: float
    ) -> RunFinished:
        """Return the run's end. `outcome` None: it follows from what happened to the models."""
        next_due = self.scope.next_due()
        failed = self.failed_models()
        if outcome is None and self.problem is not None:
            incomplete = errors.RecordingError(self.problem)
            outcome, exit_code, error = "error", incomplete.exit_code, str(incomplete)
        elif outcome is None:
            outcome = "failed" if failed else "success" if self._has_recorded() else "nothing_to_do"
            exit_code = errors.EXIT_FAILED if failed else errors.EXIT_DONE
        elif outcome == "interrupted":
            error = error or self._stop.reason
        return RunFinished(
            outcome=outcome,
            exit_code=exit_code,
            duration=round(duration, 3),
            materialized=self.materialized_models(),
            failed=failed,
            skipped=self._skipped,
            next_due=next_due,
            error=error,
        )

    def _has_recorded(self) -> bool:
        return any(run.recorded or run.reported for run in self._runs.values())


def _batch_finished(batch: BatchResult, run: ModelRun) -> list[Event]:
    if batch.snapshot.is_audit:
        return []
    finished = BatchFinished(
        model=batch.snapshot.name,
        batch=len(run.recorded),
        batches=run.planned,
        interval_start=from_epoch_ms(batch.interval[0]),
        interval_end=from_epoch_ms(batch.interval[1]),
        duration=batch.duration or 0.0,
        rows=batch.rows,
        bytes=batch.bytes,
        audits_passed=batch.audits - batch.audits_failed,
        audits_failed=batch.audits_failed,
        auto_restated_by=list(batch.restated_by),
    )
    return [finished]


def _failed_node(node: Any) -> tuple[str, bool]:
    """Return which snapshot a node of SQLMesh's scheduler is of, and whether it is a batch."""
    if isinstance(node, tuple):  # in old releases a batch is (name, (interval, index))
        return str(node[0]), True
    # Creating a table fails with a `CreateNode`, or in a plan with a `SnapshotId`.
    name = getattr(node, "snapshot_name", None) or getattr(node, "name", "")
    return str(name), hasattr(node, "interval")


def _failed_audit(error: BaseException) -> str | None:
    """Return the first audit that failed a model.

    SQLMesh raises `NodeAuditsErrors`, `audit` of this package `AuditsFailedError`.
    """
    audits = getattr(error, "errors", None) or ()
    return next((audit.audit_name for audit in audits if hasattr(audit, "audit_name")), None)
