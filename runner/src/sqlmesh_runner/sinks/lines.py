"""Events as lines of plain text, for the log of a process without a terminal."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import TextIO

from sqlmesh_runner.recording import events
from sqlmesh_runner.recording.events import Event
from sqlmesh_runner.sinks.base import Sink

__all__ = ["LinesSink", "is_not_due", "sentence"]


class LinesSink(Sink):
    """Write a sentence for each event, with the time in UTC."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._not_due = 0

    def emit(self, event: Event) -> None:
        """Write a line, if there is a sentence for the event."""
        self._not_due += is_not_due(event)
        text = sentence(event, not_due=self._not_due)
        if text:
            with suppress(OSError):  # the reader of this log may be gone
                self._stream.write(f"{datetime.now(tz=UTC):%H:%M:%S} {text}\n")
                self._stream.flush()


def is_not_due(event: Event) -> bool:
    """Return whether the event is of a model that had nothing to do."""
    return isinstance(event, events.ModelSkipped) and event.reason == "nothing_due"


def sentence(event: Event, *, not_due: int = 0) -> str | None:
    """Return an event as one sentence; None for events that repeat others.

    Args:
        event: the event.
        not_due: how many models had nothing to do, for the run's end: those were not skipped.
    """
    match event:
        case events.AuditFinished(passed=False):
            return _failed_audit(event)
        case events.ModelStarted() | events.BatchFinished():
            return _progress(event)
        case events.ModelSkipped():
            return _skip(event)
        case events.ModelFailed():
            return f"{event.model} failed: {event.error}"
        case events.RunStarted() | events.RunRestarted() | events.RunFinished():
            return _run(event, not_due)
        case events.Log():
            return f"{event.level} {event.message}"
        case _:
            return None


def _run(event: events.RunStarted | events.RunRestarted | events.RunFinished, not_due: int) -> str:
    match event:
        case events.RunStarted():
            return (
                f"SQLMesh {event.sqlmesh_version} runs environment {event.environment} "
                f"(plan {event.plan_id}, gateway {event.gateway})"
            )
        case events.RunRestarted():
            return f"The run starts again (attempt {event.attempt}): {event.reason}"
        case events.RunFinished():
            return _end(event, not_due)


def _progress(event: events.ModelStarted | events.BatchFinished) -> str:
    if isinstance(event, events.ModelStarted):
        return f"{event.model} starts: {_count(event.batches, 'batch', 'batches')}"
    rows = "" if event.rows is None else f", {_count(event.rows, 'row')}"
    failed = f", {_count(event.audits_failed, 'audit')} failed" if event.audits_failed else ""
    interval = f"{event.interval_start:%Y-%m-%d %H:%M} to {event.interval_end:%Y-%m-%d %H:%M}"
    return (
        f"{event.model}: batch {event.batch} of {event.batches} ({interval}) done in "
        f"{event.duration:.1f} s{rows}{failed}"
    )


def _failed_audit(event: events.AuditFinished) -> str:
    failure = event.error or f"{_count(event.failing_rows, 'row')} failed"
    blocking = "blocking " if event.blocking else ""
    return f"{event.model}: {blocking}audit {event.audit}: {failure}"


def _skip(event: events.ModelSkipped) -> str | None:
    if event.reason == "nothing_due":
        return None  # the end has their number
    causes = ", ".join([*event.upstream, *event.signals])
    return (
        f"{event.model} skipped: {event.reason.replace('_', ' ')}{f' ({causes})' if causes else ''}"
    )


def _end(event: events.RunFinished, not_due: int) -> str:
    outcome = event.outcome.replace("_", " ").capitalize()
    counts = (
        f"{len(event.materialized)} materialized, {len(event.failed)} failed, "
        f"{len(event.skipped) - not_due} skipped{f', {not_due} not due' if not_due else ''}"
    )
    due = ""
    if event.next_due and event.outcome == "nothing_to_do":
        due = f"; next due {event.next_due:%Y-%m-%d %H:%M}"
    return f"{outcome} in {event.duration:.1f} s: {counts}{due}"


def _count(number: int, singular: str, plural: str | None = None) -> str:
    return f"{number} {singular if number == 1 else plural or f'{singular}s'}"
