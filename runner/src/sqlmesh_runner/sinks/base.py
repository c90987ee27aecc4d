"""What a sink is."""

import abc
import logging
from collections.abc import Sequence

from sqlmesh_runner.events import Event

__all__ = ["Fanout", "Sink"]

logger = logging.getLogger(__name__)


class Sink(abc.ABC):
    """Take events, in order, one at a time, from several threads."""

    @abc.abstractmethod
    def emit(self, event: Event) -> None:
        """Take an event. It has been passed on when this returns: nothing is kept back in a buffer."""

    def close(self) -> None:  # noqa: B027 - not every sink has something to close
        """Take note that no more will come."""


class Fanout(Sink):
    """Give events to several sinks. One that fails costs neither SQLMesh nor the other sinks anything."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = list(sinks)

    def emit(self, event: Event) -> None:
        """Give the event to each."""
        for sink in self._sinks:
            try:
                sink.emit(event)
            except Exception:
                logger.exception("%s did not take %s", type(sink).__name__, event.type)

    def close(self) -> None:
        """Close each."""
        for sink in self._sinks:
            try:
                sink.close()
            except Exception:
                logger.exception("%s did not close", type(sink).__name__)
