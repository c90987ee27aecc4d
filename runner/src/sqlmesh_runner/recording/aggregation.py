"""Aggregate a model's batches, and its audits' results over them, into one result each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from sqlmesh_runner.recording.recorded import Interval, RecordedModel

__all__ = ["AuditRun", "AuditSummary", "AuditsFailedError", "BatchResult", "ModelRun"]


@dataclass(frozen=True, kw_only=True)
class AuditRun:
    """One execution of one audit."""

    id: str  # the audit's name in the contract
    name: str
    args: Mapping[str, str]  # SQL texts
    blocking: bool
    skipped: bool
    interval: Interval | None
    duration: float  # seconds
    failing_rows: int = 0
    query: str | None = None
    dialect: str | None = None
    error: str | None = None
    write_audit_publish: bool = False

    @property
    def passed(self) -> bool:
        """Return whether the audit ran and found no rows."""
        return self.error is None and self.failing_rows == 0


@dataclass(frozen=True, kw_only=True)
class BatchResult:
    """The end of one batch of a model, as SQLMesh reports it."""

    snapshot: Any
    interval: Interval
    duration: float | None  # seconds; None if the batch failed
    audits: int = 0  # how many SQLMesh counted; it counts none of a batch that failed
    audits_failed: int = 0
    rows: int | None = None
    bytes: int | None = None
    restated_by: Sequence[str] = ()  # FQNs
    error: BaseException | None = None
    query: str | None = None  # that the error came from


class AuditsFailedError(Exception):
    """Audits run without an evaluation found what would have failed the model.

    Has the shape of SQLMesh's `NodeAuditsErrors`.
    """

    def __init__(self, runs: Sequence[AuditRun]) -> None:
        texts = [f"audit '{run.name}': {run.error or _rows(run.failing_rows)}" for run in runs]
        super().__init__("; ".join(texts))
        self.errors = [SimpleNamespace(audit_name=run.name) for run in runs]


def _rows(count: int) -> str:
    return f"{count} rows failed"


@dataclass
class AuditSummary:
    """One audit over a model's batches.

    Failed if it failed in any batch. Failing rows are added up; the details are the worst batch's.
    """

    worst: AuditRun
    runs: int = 0
    failing_rows: int = 0
    duration: float = 0.0  # seconds
    passed: bool = True
    span: Interval | None = None  # of all audited batches

    def add(self, run: AuditRun) -> None:
        """Add another batch's result. An audit that could not run is worse than any row count."""
        self.runs += 1
        self.failing_rows += run.failing_rows
        self.duration += run.duration
        self.passed = self.passed and run.passed
        if run.interval is not None:
            start, end = self.span or run.interval
            self.span = min(start, run.interval[0]), max(end, run.interval[1])
        if self.worst.error is None and (
            run.error is not None or run.failing_rows >= self.worst.failing_rows
        ):
            self.worst = run

    @property
    def interval(self) -> Interval | None:
        """Return the worst batch's interval, or that of all batches if none failed."""
        return self.span if self.passed else self.worst.interval


@dataclass
class ModelRun:
    """What one model has done in this run so far, over all attempts."""

    snapshot: Any
    planned: int = 0  # batches, those recorded in discarded attempts included
    batches: Sequence[Interval] = ()  # of this attempt
    pending: set[Interval] = field(default_factory=set)  # of this attempt; have not ended, may run
    started: bool = False  # in this attempt
    recorded: list[Interval] = field(default_factory=list)
    recorded_at: int = 0  # epoch milliseconds
    duration: float = 0.0  # seconds
    rows: int | None = None
    bytes: int | None = None
    row_count: int | None = None
    state: RecordedModel | None = None  # what the state holds once it is over; None if not read
    restated_by: list[str] = field(default_factory=list)
    audits: dict[str, AuditSummary] = field(default_factory=dict)  # by audit id
    skipped_audits: dict[str, AuditRun] = field(default_factory=dict)  # by audit id
    failed: bool = False  # in this attempt
    reported: bool = False  # results were emitted; they are never emitted again
    materialized: bool = False  # a materialization was emitted

    @property
    def is_over(self) -> bool:
        """Return whether no batch of this attempt is still to come."""
        return not self.pending

    @property
    def has_results(self) -> bool:
        """Return whether there is anything to report."""
        return bool(self.recorded or self.audits or self.skipped_audits)

    @property
    def is_complete(self) -> bool:
        """Return whether every planned batch was recorded."""
        return len(self.recorded) >= self.planned

    def discard_attempt(self) -> None:
        """Forget what an attempt planned and failed at. What it recorded stays."""
        self.batches, self.pending, self.started, self.failed = (), set(), False, False

    def plan(self, batches: Sequence[Interval]) -> None:
        """Set the batches that SQLMesh plans for this attempt."""
        self.planned = len(self.recorded) + len(batches)
        self.batches, self.pending = batches, set(batches)

    def end_batch(self, interval: Interval, *, failed: bool) -> None:
        """Remove a batch from the pending ones.

        A failed batch also removes those that would have waited for it (`Scheduler._dag`).
        """
        self.pending.discard(interval)
        step = 1 if self.snapshot.depends_on_past else self.snapshot.node.batch_concurrency
        if failed and step and interval in self.batches:
            self.pending.difference_update(self.batches[self.batches.index(interval) :: step])

    def add_audits(self, runs: Sequence[AuditRun]) -> None:
        """Add a batch's audits.

        Two identical uses of one audit count once, as blocking if one of them is.
        """
        uses: dict[str, AuditRun] = {}
        for run in runs:
            if run.id not in uses or run.blocking:
                uses[run.id] = run
        for run in uses.values():
            if run.skipped:
                self.skipped_audits[run.id] = run
            else:
                self.audits.setdefault(run.id, AuditSummary(worst=run)).add(run)

    def blocking_error(self) -> AuditsFailedError | None:
        """Return the error that SQLMesh would have failed the model with in a run."""
        worst = [summary.worst for summary in self.audits.values() if not summary.passed]
        failed = [run for run in worst if run.blocking or run.error]
        return AuditsFailedError(failed) if failed else None

    def add_recorded(self, batch: BatchResult, *, recorded_at: int) -> None:
        """Add a batch that SQLMesh has recorded."""
        self.recorded.append(batch.interval)
        self.recorded_at = recorded_at
        self.duration += batch.duration or 0.0
        if batch.rows is not None:
            self.rows = (self.rows or 0) + batch.rows
        if batch.bytes is not None:
            self.bytes = (self.bytes or 0) + batch.bytes
        self.restated_by = sorted({*self.restated_by, *batch.restated_by})
