"""Several batches of a model, and of its audits, folded into what is said once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from sqlmesh_runner.events import AuditFinished, from_epoch_ms

__all__ = ["AuditFold", "AuditRun", "Interval", "ModelRun"]

Interval = tuple[int, int]
"""Half-open, epoch milliseconds, as SQLMesh has it."""

_NOT_WITHHELD = (
    "The rows that failed are in the table and visible through the environment's view; SQLMesh only withholds the interval, "
    "so the next run evaluates it again."
)
_PUBLISHED = (
    "SQLMesh published the written branch although a blocking audit failed; the interval is withheld, so the next run evaluates it again."
)


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
        """Tell whether it ran and found nothing."""
        return self.error is None and self.failing_rows == 0


class AuditsFailedError(Exception):
    """Audits run alone found that a model would have been failed for. Has the shape of SQLMesh's `NodeAuditsErrors`."""

    def __init__(self, runs: Sequence[AuditRun]) -> None:
        super().__init__("; ".join(f"audit '{run.name}': {run.error or f'{run.failing_rows} rows failed'}" for run in runs))
        self.errors = [SimpleNamespace(audit_name=run.name) for run in runs]


@dataclass
class AuditFold:
    """One audit over a model's batches: failed if any failed, rows added up, the worst batch shown; if none failed, the span of all."""

    worst: AuditRun
    runs: int = 0
    failing_rows: int = 0
    duration: float = 0.0
    passed: bool = True
    span: Interval | None = None

    def add(self, run: AuditRun) -> None:
        """Take another batch's verdict. An audit that could not run at all is worse than any number of rows."""
        self.runs += 1
        self.failing_rows += run.failing_rows
        self.duration += run.duration
        self.passed = self.passed and run.passed
        if run.interval is not None:
            begin, end = self.span or run.interval
            self.span = min(begin, run.interval[0]), max(end, run.interval[1])
        if self.worst.error is None and (run.error is not None or run.failing_rows >= self.worst.failing_rows):
            self.worst = run

    def verdict(self, model: str, *, standalone: bool, alone: bool) -> AuditFinished:
        """Give the event. `alone`: audits ran without evaluating anything, so that no data was withheld or published."""
        worst = self.worst
        interval = self.span if self.passed else worst.interval
        note = None
        if worst.blocking and self.failing_rows and not alone:
            note = _PUBLISHED if worst.write_audit_publish else _NOT_WITHHELD
        return AuditFinished(
            model=model,
            standalone=standalone,
            audit_id=worst.id,
            audit=worst.name,
            args=worst.args,
            blocking=worst.blocking,
            passed=self.passed,
            failing_rows=self.failing_rows,
            batches=self.runs,
            duration=round(self.duration, 3),
            interval_start=from_epoch_ms(interval[0]) if interval else None,
            interval_end=from_epoch_ms(interval[1]) if interval else None,
            query=worst.query,
            dialect=worst.dialect,
            error=worst.error,
            note=note,
        )


@dataclass
class ModelRun:
    """What one model has done in this run so far, over all attempts."""

    snapshot: Any
    planned: int = 0  # batches, those recorded in given-up attempts included
    batches: Sequence[Interval] = ()  # of this attempt
    ahead: set[Interval] = field(default_factory=set)  # those of them that have not ended and still can run
    started: bool = False  # in this attempt
    recorded: list[Interval] = field(default_factory=list)
    recorded_at: int = 0  # epoch milliseconds
    duration: float = 0.0  # seconds
    rows: int | None = None
    bytes: int | None = None
    row_count: int | None = None
    restated_by: list[str] = field(default_factory=list)
    audits: dict[str, AuditFold] = field(default_factory=dict)
    skipped_audits: dict[str, AuditRun] = field(default_factory=dict)
    materialized: bool = False  # reported
    failed: bool = False  # in this attempt; reported
    closed: bool = False  # results were reported; they are never reported again

    def give_up_attempt(self) -> None:
        """Forget what an attempt had planned or failed at; what it recorded stays."""
        self.batches, self.ahead, self.started, self.failed = (), set(), False, False

    def plan(self, batches: Sequence[Interval]) -> None:
        """Take what SQLMesh plans for this attempt."""
        self.planned = len(self.recorded) + len(batches)
        self.batches, self.ahead = batches, set(batches)

    def end_batch(self, interval: Interval, *, failed: bool) -> None:
        """Note a batch's end. One that failed takes with it those that would have waited for it (`Scheduler._dag`)."""
        self.ahead.discard(interval)
        step = 1 if self.snapshot.depends_on_past else self.snapshot.node.batch_concurrency
        if failed and step and interval in self.batches:
            self.ahead.difference_update(self.batches[self.batches.index(interval) :: step])

    def add_audits(self, runs: list[AuditRun]) -> None:
        """Fold in a batch's audits. Two identical uses of one audit on a model count once, as blocking if one of them is."""
        uses: dict[str, AuditRun] = {}
        for run in runs:
            if run.id not in uses or run.blocking:
                uses[run.id] = run
        for run in uses.values():
            if run.skipped:
                self.skipped_audits[run.id] = run
            else:
                self.audits.setdefault(run.id, AuditFold(worst=run)).add(run)

    def blocking_error(self) -> AuditsFailedError | None:
        """Give what SQLMesh would have failed the model with, had it evaluated it."""
        failed = [fold.worst for fold in self.audits.values() if not fold.passed and (fold.worst.blocking or fold.worst.error)]
        return AuditsFailedError(failed) if failed else None

    def add_recorded(self, interval: Interval, *, duration: float, rows: int | None, size: int | None, at: int) -> None:
        """Take a batch that SQLMesh has recorded."""
        self.recorded.append(interval)
        self.recorded_at = at
        self.duration += duration
        if rows is not None:
            self.rows = (self.rows or 0) + rows
        if size is not None:
            self.bytes = (self.bytes or 0) + size
