"""The sink: where a run's events go."""

import abc
import logging
from collections.abc import Sequence

from sqlmesh_runner.recording.events import Event

__all__ = ["Fanout", "Sink"]

logger = logging.getLogger(__name__)


class Sink(abc.ABC):
    """Pass events on, in order, one at a time, from several threads."""

    @abc.abstractmethod
    def emit(self, event: Event) -> None:
        """Pass on an event at once: nothing is buffered when this returns.

        Raises an error if whoever watches the run through this sink misses the event.
        """

    def close(self) -> None:  # noqa: B027 - not every sink has something to close
        """Release what the sink holds. No event follows."""


class Fanout(Sink):
    """Pass events to several sinks, the others too if one of them fails."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = list(sinks)

    def emit(self, event: Event) -> None:
        """Pass the event to each sink, then raise the first error."""
        failures: list[Exception] = []
        for sink in self._sinks:
            try:
                sink.emit(event)
            except Exception as exc:  # noqa: BLE001 - raised below
                failures.append(exc)
        if failures:
            raise failures[0]

    def close(self) -> None:
        """Close each sink."""
        for sink in self._sinks:
            try:
                sink.close()
            except Exception:
                logger.exception("%s could not be closed", type(sink).__name__)
