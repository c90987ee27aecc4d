"""The runner's custom messages as typed values (docs/reference/messages.md)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError

from dagster_sqlmesh_pipes.contract import PROTOCOL_VERSION
from dagster_sqlmesh_pipes.errors import ProtocolError
from dagster_sqlmesh_pipes.run.recorded import RecordedModel

__all__ = [
    "AuditSkipped",
    "BatchFinished",
    "Message",
    "ModelFailed",
    "ModelSkipped",
    "ModelStarted",
    "ModelsRecorded",
    "RecordedEntry",
    "RunFinished",
    "RunRestarted",
    "RunStarted",
    "parse_message",
]


class Message(BaseModel):
    """A custom message. A missing key is an error; further keys are a newer runner's."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: ClassVar[str]
    _payload: Mapping[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def raw(self) -> Mapping[str, Any]:
        """The Pipes message as the runner sent it, further keys included."""
        return {"method": "report_custom_message", "params": {"payload": self._payload}}


class RunStarted(Message):
    """The environment is there and can be run."""

    type = "run_started"
    protocol_version: int
    runner_version: str
    sqlmesh_version: str
    environment: str
    gateway: str | None
    plan_id: str
    environment_models: Mapping[str, str]
    """The data hash of each model in the environment, by FQN."""


class RecordedEntry(RecordedModel):
    """What SQLMesh's state has recorded of a requested model that has nothing to do in this run."""

    asset_key: str
    upstream_runs: bool
    """Whether a model that it reads is run in this run, and so reported after it."""


class ModelsRecorded(Message):
    """What is recorded of the models that this run leaves alone, in topological order."""

    type = "models_recorded"
    environment: str
    plan_id: str
    models: Sequence[RecordedEntry]


class _ModelMessage(Message):
    model: str
    asset_key: str | None
    """None for a model that the request did not name."""


class ModelStarted(_ModelMessage):
    """A model's first batch starts."""

    type = "model_started"
    attempt: int
    batches: int
    interval_start: str
    interval_end: str


class BatchFinished(_ModelMessage):
    """A batch is recorded in SQLMesh's state."""

    type = "batch_finished"
    batch: int
    """How many batches have finished, this one included."""
    batches: int
    interval_start: str
    interval_end: str
    duration: float  # seconds
    rows: int | None
    bytes: int | None
    audits_passed: int
    audits_failed: int
    auto_restated_by: Sequence[str]


class ModelSkipped(_ModelMessage):
    """A model was requested and did not run, or not to its end."""

    type = "model_skipped"
    reason: str
    upstream: Sequence[str]
    signals: Sequence[str]
    next_due: str | None


class ModelFailed(_ModelMessage):
    """A batch of a model failed; the first error counts."""

    type = "model_failed"
    error: str
    error_type: str
    query: str | None
    path: str | None
    interval_start: str | None
    interval_end: str | None
    batches_done: int
    batches: int
    audit: str | None


class AuditSkipped(_ModelMessage):
    """An audit is marked `skip` in the project."""

    type = "audit_skipped"
    check_name: str
    audit: str


class RunRestarted(Message):
    """A plan changed the environment, and SQLMesh began again: failures before it are void."""

    type = "run_restarted"
    attempt: int
    reason: str


class RunFinished(Message):
    """The run's outcome."""

    type = "run_finished"
    outcome: Literal["success", "nothing_to_do", "failed", "interrupted", "error"]
    exit_code: int
    duration: float  # seconds
    materialized: Sequence[str]
    failed: Sequence[str]
    skipped: Sequence[str]
    unknown_models: Sequence[str]
    next_due: str | None
    error: str | None


_TYPES: Mapping[str, type[Message]] = {
    each.type: each
    for each in (
        RunStarted,
        ModelsRecorded,
        ModelStarted,
        BatchFinished,
        ModelSkipped,
        ModelFailed,
        AuditSkipped,
        RunRestarted,
        RunFinished,
    )
}


def parse_message(payload: Any) -> Message | None:
    """Return a custom message's payload as a typed message.

    None for other types: a newer runner's, or what a Python model reports by Pipes.

    Raises:
        ProtocolError: the runner speaks another protocol version, or a key is missing or wrong.
    """
    kind = payload.get("type") if isinstance(payload, Mapping) else None
    message_type = _TYPES.get(kind) if isinstance(kind, str) else None
    if message_type is None:
        return None
    if message_type is RunStarted:
        _check_version(payload.get("protocol_version", PROTOCOL_VERSION))
    try:
        message = message_type.model_validate(payload)
    except ValidationError as exc:
        wrong = "; ".join(
            f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in exc.errors()
        )
        msg = (
            f"The runner's message {kind} could not be read ({wrong}). Use versions of "
            "sqlmesh-runner and dagster-sqlmesh-pipes that fit together."
        )
        raise ProtocolError(msg) from exc
    message._payload = payload  # noqa: SLF001
    return message


def _check_version(version: Any) -> None:
    if version != PROTOCOL_VERSION:
        is_newer = isinstance(version, int) and version > PROTOCOL_VERSION
        upgrade = "dagster-sqlmesh-pipes" if is_newer else "sqlmesh-runner"
        msg = (
            f"The runner speaks protocol version {version}, this package version "
            f"{PROTOCOL_VERSION}. Upgrade {upgrade}."
        )
        raise ProtocolError(msg)
