"""The events of a run. Sinks decide what becomes of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

from sqlmesh_runner import PROTOCOL_VERSION, __version__

__all__ = [
    "AuditFinished",
    "AuditSkipped",
    "BatchFinished",
    "Event",
    "Log",
    "LogLevel",
    "ModelFailed",
    "ModelMaterialized",
    "ModelSkipped",
    "ModelStarted",
    "Outcome",
    "RunFinished",
    "RunRestarted",
    "RunStarted",
    "RunnerLog",
    "SkipReason",
    "as_json",
    "from_epoch_ms",
]

LogLevel = Literal["INFO", "WARNING", "ERROR"]
Outcome = Literal["success", "nothing_to_do", "failed", "interrupted", "error"]
SkipReason = Literal[
    "upstream_failed", "nothing_due", "signal_not_ready", "not_planned", "interrupted"
]


def from_epoch_ms(value: int) -> datetime:
    """Return SQLMesh's epoch milliseconds as a time in UTC."""
    return datetime.fromtimestamp(value / 1000, tz=UTC)


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened in a run. `type` is its name in the contract."""

    type: ClassVar[str]

    def payload(self) -> dict[str, Any]:
        """Return the event as JSON-able data, its `type` first. Times become ISO 8601 in UTC."""
        return {
            "type": self.type,
            **{field.name: as_json(getattr(self, field.name)) for field in fields(self)},
        }


def as_json(value: Any) -> Any:
    """Return a value as JSON-able data. Times become ISO 8601 in UTC."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [as_json(item) for item in value]
    return value


@dataclass(frozen=True, kw_only=True)
class RunStarted(Event):
    """The environment was found and can be run. Emitted before any evaluation."""

    type = "run_started"
    sqlmesh_version: str
    environment: str
    gateway: str | None
    plan_id: str
    environment_models: Mapping[str, str]  # FQN -> data hash
    protocol_version: int = PROTOCOL_VERSION
    runner_version: str = __version__


@dataclass(frozen=True, kw_only=True)
class ModelStarted(Event):
    """A model's first batch of this attempt starts."""

    type = "model_started"
    attempt: int
    model: str
    batches: int
    interval_start: datetime
    interval_end: datetime


@dataclass(frozen=True, kw_only=True)
class BatchFinished(Event):
    """A batch is evaluated, audited and recorded in SQLMesh's state."""

    type = "batch_finished"
    model: str
    batch: int  # how many have finished, this one included
    batches: int
    interval_start: datetime
    interval_end: datetime
    duration: float  # seconds
    rows: int | None
    bytes: int | None
    audits_passed: int
    audits_failed: int
    auto_restated_by: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class ModelMaterialized(Event):
    """A model's last batch has ended, and at least one interval was recorded."""

    type = "model_materialized"
    model: str
    environment: str
    complete: bool
    batches: int  # recorded
    batches_planned: int
    duration: float  # seconds, sum of the recorded batches
    interval_start: datetime
    interval_end: datetime
    rows_processed: int | None
    bytes_processed: int | None
    row_count: int | None
    physical_table: str | None
    fingerprint: str
    plan_id: str
    auto_restated_by: Sequence[str]
    recorded_at: datetime | None  # SQLMesh's time of the last recording
    recorded_begin: datetime | None  # of all recorded intervals
    recorded_end: datetime | None
    gaps: int | None
    data_version: str


@dataclass(frozen=True, kw_only=True)
class AuditFinished(Event):
    """The result of one audit of one model over all its batches."""

    type = "audit_finished"
    model: str  # the FQN of the standalone audit itself, where `standalone`
    standalone: bool
    audit_id: str
    audit: str
    args: Mapping[str, str]
    blocking: bool
    passed: bool
    failing_rows: int
    batches: int  # audited
    duration: float  # seconds
    interval_start: datetime | None  # the worst batch's
    interval_end: datetime | None
    query: str | None
    dialect: str | None
    error: str | None
    note: str | None


@dataclass(frozen=True, kw_only=True)
class AuditSkipped(Event):
    """An audit is marked `skip` in the project."""

    type = "audit_skipped"
    model: str
    audit_id: str
    audit: str


@dataclass(frozen=True, kw_only=True)
class ModelSkipped(Event):
    """A selected model did not run, or not to its end (`interrupted`)."""

    type = "model_skipped"
    model: str
    reason: SkipReason
    upstream: Sequence[str] = ()  # that failed, or to which the signals belong
    signals: Sequence[str] = ()
    next_due: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class ModelFailed(Event):
    """A batch of a model failed. Emitted once for each model, with the first error."""

    type = "model_failed"
    model: str
    error: str
    error_type: str
    query: str | None
    path: str | None
    interval_start: datetime | None
    interval_end: datetime | None
    batches_done: int
    batches: int
    audit: str | None


@dataclass(frozen=True, kw_only=True)
class RunRestarted(Event):
    """A plan changed the environment, and SQLMesh starts again. Earlier failures are void."""

    type = "run_restarted"
    attempt: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class RunFinished(Event):
    """The run has ended."""

    type = "run_finished"
    outcome: Outcome
    exit_code: int
    duration: float  # seconds
    materialized: Sequence[str] = ()
    failed: Sequence[str] = ()
    skipped: Sequence[str] = ()
    next_due: datetime | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Log(Event):
    """A message of SQLMesh's or the runner's that no other event contains."""

    type = "log"
    level: LogLevel
    message: str


@dataclass(frozen=True, kw_only=True)
class RunnerLog(Log):
    """A message of the runner's, which SQLMesh's own display does not show."""
