"""Fakes of SQLMesh's objects, with only the attributes that the runner reads."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from sqlmesh_runner.recording.events import Event
from sqlmesh_runner.sinks.base import Sink

DAY = 86_400_000  # milliseconds
NEXT_DUE = datetime(2026, 1, 6, tzinfo=UTC)


class ListSink(Sink):
    """Keep events."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.closed = False

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        self.closed = True

    def of(self, kind: str) -> list[Any]:
        return [event for event in self.events if event.type == kind]


@dataclass(eq=False)
class FakeSnapshot:
    name: str
    reads: Iterable["FakeSnapshot"] = ()
    is_audit: bool = False
    is_symbolic: bool = False
    is_seed: bool = False
    version: str = "v1"
    signals: list[Any] = field(default_factory=list)
    depends_on_past: bool = False
    batch_concurrency: int | None = None

    @property
    def is_model(self) -> bool:
        return not self.is_audit

    @property
    def parents(self) -> list[Any]:
        return [SimpleNamespace(name=parent.name) for parent in self.reads]

    @property
    def fingerprint(self) -> Any:
        return SimpleNamespace(to_identifier=lambda: "f1", data_hash="h1")

    @property
    def node(self) -> Any:
        return SimpleNamespace(
            start=None,
            end=None,
            cron_next=lambda _now: NEXT_DUE,
            signals=self.signals,
            batch_concurrency=self.batch_concurrency,
        )


def days(count: int) -> list[tuple[int, int]]:
    """Return that many intervals of a day, from the epoch on."""
    return [(day * DAY, (day + 1) * DAY) for day in range(count)]
