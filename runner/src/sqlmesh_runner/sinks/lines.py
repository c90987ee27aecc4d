"""Events as lines of plain text, for the log of a process that nobody watches on a terminal."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import TextIO

from sqlmesh_runner import events
from sqlmesh_runner.events import Event
from sqlmesh_runner.sinks.base import Sink

__all__ = ["LinesSink", "sentence"]


class LinesSink(Sink):
    """Write a sentence an event, with the time in UTC."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def emit(self, event: Event) -> None:
        """Write a line, if the event has something to say."""
        text = sentence(event)
        if text:
            with suppress(OSError):  # whoever read this log is gone, which stops nothing
                self._stream.write(f"{datetime.now(tz=UTC):%H:%M:%S} {text}\n")
                self._stream.flush()


def sentence(event: Event) -> str | None:
    """Say an event in one sentence; None for those that repeat others."""
    match event:
        case events.RunStarted():
            return f"SQLMesh {event.sqlmesh_version} runs environment {event.environment} (plan {event.plan_id}, gateway {event.gateway})"
        case events.ModelStarted():
            return f"{event.model} starts: {event.batches} {'batch' if event.batches == 1 else 'batches'}"
        case events.BatchFinished():
            return _batch(event)
        case events.AuditFinished(passed=False):
            what = f"broke: {event.error}" if event.error else f"{event.failing_rows} rows failed"
            return f"{event.model}: {'blocking ' if event.blocking else ''}audit {event.audit}: {what}"
        case events.ModelSkipped(reason="nothing_due"):
            return None  # said once, at the end
        case events.ModelSkipped():
            because = ", ".join([*event.upstream, *event.signals])
            return f"{event.model} skipped: {event.reason.replace('_', ' ')}{f' ({because})' if because else ''}"
        case events.ModelFailed():
            return f"{event.model} failed: {event.error}"
        case events.RunRestarted():
            return f"The run begins again (attempt {event.attempt}): {event.reason}"
        case events.RunFinished():
            return _end(event)
        case events.Log():
            return f"{event.level} {event.message}"
        case _:
            return None


def _batch(event: events.BatchFinished) -> str:
    rows = "" if event.rows is None else f", {event.rows} rows"
    failed = f", {event.audits_failed} audits failed" if event.audits_failed else ""
    span = f"{event.interval_start:%Y-%m-%d %H:%M} to {event.interval_end:%Y-%m-%d %H:%M}"
    return f"{event.model}: batch {event.batch} of {event.batches} ({span}) done in {event.duration:.1f} s{rows}{failed}"


def _end(event: events.RunFinished) -> str:
    counts = f"{len(event.materialized)} materialized, {len(event.failed)} failed, {len(event.skipped)} skipped"
    due = f"; next due {event.next_due:%Y-%m-%d %H:%M}" if event.next_due and event.outcome == "nothing_to_do" else ""
    return f"{event.outcome.replace('_', ' ').capitalize()} in {event.duration:.1f} s: {counts}{due}"
