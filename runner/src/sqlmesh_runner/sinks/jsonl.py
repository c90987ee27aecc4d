"""Events as JSON lines, for programs that are not Dagster."""

import json
import logging
from contextlib import suppress
from typing import TextIO

from sqlmesh_runner.recording.events import Event
from sqlmesh_runner.sinks.base import Sink

__all__ = ["JsonLinesSink"]


logger = logging.getLogger(__name__)


class JsonLinesSink(Sink):
    """Write one JSON object for each event, its `type` first, each on a line.

    A reader that goes away (`| head`) is no error.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_read = True

    def emit(self, event: Event) -> None:
        """Write the event as a line."""
        if not self._is_read:
            return
        try:
            self._stream.write(json.dumps(event.payload()) + "\n")
            self._stream.flush()
        except BrokenPipeError:
            self._is_read = False
            logger.warning("The reader of the events has gone; the run goes on without it.")

    def close(self) -> None:
        """Close the stream."""
        with suppress(BrokenPipeError):
            self._stream.close()
