"""What SQLMesh's state has recorded of a model, whoever recorded it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from sqlmesh_runner.recording.events import Event, as_json, from_epoch_ms

__all__ = ["Interval", "ModelsRecorded", "RecordedModel"]

Interval = tuple[int, int]
"""Half-open, epoch milliseconds, as SQLMesh has it."""


@dataclass(frozen=True, kw_only=True)
class RecordedModel:
    """A model's recorded intervals, merged and sorted."""

    model: str  # FQN
    version: str  # of its table in this environment
    fingerprint: str
    physical_table: str | None
    intervals: Sequence[Interval]
    recorded_at: int | None
    """Epoch milliseconds. None if unknown: old SQLMesh loses it when it compacts its rows."""
    pending_restatement: bool = False

    @property
    def start(self) -> datetime | None:
        """Return the begin of the first interval."""
        return from_epoch_ms(self.intervals[0][0]) if self.intervals else None

    @property
    def end(self) -> datetime | None:
        """Return the end of the last interval."""
        return from_epoch_ms(self.intervals[-1][1]) if self.intervals else None

    @property
    def recorded_time(self) -> datetime | None:
        """Return SQLMesh's time of the last recording."""
        return from_epoch_ms(self.recorded_at) if self.recorded_at else None

    @property
    def gaps(self) -> int:
        """Return the number of gaps between the intervals."""
        return sum(end < start for (_, end), (start, _) in pairwise(self.intervals))

    @property
    def complete(self) -> bool:
        """Return whether nothing between the first and the last interval is missing."""
        return bool(self.intervals) and not self.gaps and not self.pending_restatement

    @property
    def data_version(self) -> str | None:
        """Return what changes whenever SQLMesh records something."""
        if not self.intervals:
            return None
        return f"{self.version}:{self.intervals[-1][1]}:{self.recorded_at or 0}"

    def payload(self) -> dict[str, Any]:
        """Return the model as the contract has it, times as values."""
        return {
            "model": self.model,
            "version": self.version,
            "fingerprint": self.fingerprint,
            "interval_start": self.start,
            "interval_end": self.end,
            "gaps": self.gaps,
            "complete": self.complete,
            "recorded_at": self.recorded_time,
            "physical_table": self.physical_table,
            "data_version": self.data_version,
        }


@dataclass(frozen=True, kw_only=True)
class ModelsRecorded(Event):
    """What is recorded of models that this run leaves alone, in topological order."""

    type = "models_recorded"
    environment: str
    plan_id: str
    models: Sequence[RecordedModel]
    upstream_runs: Collection[str]  # FQNs of those that read a model with batches in this run

    def payload(self) -> dict[str, Any]:
        """Return the event as JSON-able data."""
        entries = [
            {**model.payload(), "upstream_runs": model.model in self.upstream_runs}
            for model in self.models
        ]
        return {
            "type": self.type,
            "environment": self.environment,
            "plan_id": self.plan_id,
            "models": as_json(entries),
        }
