"""Events as JSON lines, for programs that are not Dagster."""

import json
from typing import TextIO

from sqlmesh_runner.events import Event
from sqlmesh_runner.sinks.base import Sink

__all__ = ["JsonLinesSink"]


class JsonLinesSink(Sink):
    """Write one JSON object a line: an event's fields, its `type` first."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def emit(self, event: Event) -> None:
        """Write a line."""
        self._stream.write(json.dumps(event.payload()) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()
