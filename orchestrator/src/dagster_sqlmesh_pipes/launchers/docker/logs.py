"""A container's output, read from its first byte to its last however often the connection to the
engine is cut.
"""

import threading
import time
from collections.abc import Iterator
from typing import Any, Literal

from docker.errors import APIError, DockerException, NotFound
from docker.models.containers import Container

from dagster_sqlmesh_pipes.launchers.docker.engine import ENGINE_ERRORS

__all__ = ["ContainerLostError", "LogStream", "ReplayFilter", "container_state"]

_RETRY = 0.5  # seconds between two attempts to reach the engine
_OVER = frozenset({"exited", "dead", "removing"})


class ContainerLostError(Exception):
    """The container, or its engine, cannot be reached any more."""


def container_state(
    container: Container, *, patience: float, abandoned: threading.Event
) -> dict[str, Any]:
    """Return a container's `State`; ask again for `patience` seconds while the engine does not
    answer.

    Raises:
        ContainerLostError: the container is gone, or the engine was silent for that long.
    """
    give_up = time.monotonic() + patience
    while True:
        try:
            inspect = container.client.api.inspect_container  # type: ignore[union-attr]
            state: dict[str, Any] = inspect(str(container.id))["State"]
        except NotFound as exc:
            msg = "the container was removed from outside while it was running"
            raise ContainerLostError(msg) from exc
        except ENGINE_ERRORS as exc:
            if time.monotonic() > give_up or abandoned.wait(_RETRY):
                msg = (
                    f"its engine did not answer for {patience:g} seconds ({exc}); the container "
                    "may still be running"
                )
                raise ContainerLostError(msg) from exc
        else:
            return state


class LogStream:
    """One output of a container, read in as many attempts as it takes.

    Each attempt begins at the first byte: what an engine repeats after a cut is recognized by
    Pipes' `seq` for messages, and by its place for the rest. An attempt that begins after the
    container's end and is not cut has everything, and is the last. Two outputs are two streams,
    because the SDK's followed logs do not separate stdout from stderr.
    """

    def __init__(
        self, container: Container, output: Literal["stdout", "stderr"], *, patience: float
    ) -> None:
        self._container = container
        self._output = output
        self._patience = patience
        self._following: Any = None
        self._whole = False  # whether the last attempt came to the output's end
        self._received = self._checked = 0  # bytes over all attempts: now, and when last checked
        self._abandoned = threading.Event()
        self.complete = False
        """Set by the reader that knows from the content that nothing more will come."""

    def read_attempts(self) -> Iterator[Iterator[bytes]]:
        """Read until the end. Each item reads the output from its beginning, until the end or a
        cut.

        Raises:
            ContainerLostError: see `container_state`; or the container's log cannot be read at all,
                or for `patience` seconds not to its end.
        """
        give_up = None
        while not (self.complete or self._abandoned.is_set()):
            state = container_state(
                self._container, patience=self._patience, abandoned=self._abandoned
            )
            over = state["Status"] in _OVER
            self._whole = False
            yield self._chunks(follow=not over)
            if not over:
                continue
            give_up = give_up or time.monotonic() + self._patience
            if self._whole:
                return
            if time.monotonic() >= give_up:
                msg = (
                    f"its log could not be read to the end for {self._patience:g} seconds: the "
                    "connection to the engine was cut each time"
                )
                raise ContainerLostError(msg)

    def _chunks(self, *, follow: bool) -> Iterator[bytes]:
        outputs = {"stdout": self._output == "stdout", "stderr": self._output == "stderr"}
        try:
            self._following = self._container.logs(stream=True, follow=follow, **outputs)
            # Not the SDK's own iterator around it, which takes a cut for the end.
            for chunk in self._following._stream:  # noqa: SLF001
                self._received += len(chunk)
                yield chunk
            self._whole = True
        except APIError as exc:
            if "support reading" not in str(exc):  # a hiccup: the next attempt will do
                self._abandoned.wait(_RETRY)
                return
            msg = (
                f"its log cannot be read ({exc.explanation}): choose a log driver that can, such "
                "as json-file"
            )
            raise ContainerLostError(msg) from exc
        except ENGINE_ERRORS:
            self._abandoned.wait(_RETRY)

    def cut_if_silent(self) -> None:
        """Cut the current attempt, unless a byte has come since this was last called."""
        if self._received == self._checked:
            self.cut()
        self._checked = self._received

    def cut(self) -> None:
        """End the current attempt from another thread, even one on a dead connection."""
        try:
            if self._following is not None:
                self._following.close()
        except (DockerException, OSError, AttributeError):
            pass  # closed already, or a transport (ssh) that cannot be closed from here

    def abandon(self) -> None:
        """End this attempt and begin no other."""
        self._abandoned.set()
        self.cut()


class ReplayFilter:
    """Drop what an earlier attempt at reading an output has had, by its place."""

    def __init__(self) -> None:
        self._end = 0  # of what all attempts have had
        self._position = 0  # of this attempt

    def rewind(self) -> None:
        """Begin a new attempt."""
        self._position = 0

    def unseen(self, chunk: bytes) -> bytes:
        """Return the part of the chunk that no earlier attempt had."""
        self._position += len(chunk)
        new = max(self._position - self._end, 0)
        self._end = max(self._position, self._end)
        return chunk[max(len(chunk) - new, 0) :]
