"""Events as JSON lines, for programs that are not Dagster."""

import json
import logging
from contextlib import suppress
from typing import TextIO

from sqlmesh_runner.events import Event
from sqlmesh_runner.sinks.base import Sink

__all__ = ["JsonLinesSink"]


logger = logging.getLogger(__name__)


class JsonLinesSink(Sink):
    """Write one JSON object a line: an event's fields, its `type` first. A reader that goes away (`| head`) stops nothing."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_read = True

    def emit(self, event: Event) -> None:
        """Write a line."""
        if not self._is_read:
            return
        try:
            self._stream.write(json.dumps(event.payload()) + "\n")
            self._stream.flush()
        except BrokenPipeError:
            self._is_read = False
            logger.warning("Nobody reads the events any more; the run goes on.")

    def close(self) -> None:
        """Close the stream."""
        with suppress(BrokenPipeError):
            self._stream.close()
