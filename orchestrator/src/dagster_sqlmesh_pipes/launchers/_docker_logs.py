"""A container's output, read from its first byte to its last however often the connection to the engine is cut."""

import threading
import time
from collections.abc import Iterator
from typing import Any, Literal

from docker.errors import APIError, DockerException, NotFound
from docker.models.containers import Container

from dagster_sqlmesh_pipes.launchers._docker_engine import ENGINE_ERRORS

__all__ = ["ContainerLostError", "HighWater", "LogStream", "container_state"]

_RETRY = 0.5  # seconds between two attempts to reach the engine
_OVER = frozenset({"exited", "dead", "removing"})


class ContainerLostError(Exception):
    """The container, or its engine, cannot be reached any more. The message says which."""


def container_state(container: Container, *, patience: float, abandoned: threading.Event) -> dict[str, Any]:
    """Ask for a container's `State`, again and again for `patience` seconds where the engine does not answer.

    Raises:
        ContainerLostError: the container is gone, or the engine was silent for that long.
    """
    give_up = time.monotonic() + patience
    while True:
        try:
            state: dict[str, Any] = container.client.api.inspect_container(str(container.id))["State"]  # type: ignore[union-attr]
        except NotFound as exc:
            msg = "the container was removed from outside while it was at work"
            raise ContainerLostError(msg) from exc
        except ENGINE_ERRORS as exc:
            if time.monotonic() > give_up or abandoned.wait(_RETRY):
                msg = f"its engine did not answer for {patience:g} seconds ({exc}); the container may still be at work"
                raise ContainerLostError(msg) from exc
        else:
            return state


class LogStream:
    """One output of a container, as a series of passes over it.

    Each pass begins at the first byte: what an engine repeats after a cut is known by Pipes' `seq` for messages, and by its place for the
    rest. A pass that begins after the container's end and is not cut has everything, and is the last. Two outputs are two
    streams, because the SDK's followed logs do not tell stdout from stderr.
    """

    def __init__(self, container: Container, output: Literal["stdout", "stderr"], *, patience: float) -> None:
        self._container = container
        self._output = output
        self._patience = patience
        self._following: Any = None
        self._whole = False  # whether the last pass came to the output's end
        self._received = self._seen = 0  # bytes over all passes: now, and when last looked at
        self._abandoned = threading.Event()
        self.complete = False
        """Set by the reader that knows from the content that nothing more will come."""

    def passes(self) -> Iterator[Iterator[bytes]]:
        """Read until the end. Each item reads the output from its beginning, until the end or a cut.

        Raises:
            ContainerLostError: see `container_state`; or the container's log cannot be read at all, or for `patience` seconds not to its end.
        """
        give_up = None
        while not (self.complete or self._abandoned.is_set()):
            state = container_state(self._container, patience=self._patience, abandoned=self._abandoned)
            over = state["Status"] in _OVER
            self._whole = False
            yield self._chunks(follow=not over)
            if not over:
                continue
            give_up = give_up or time.monotonic() + self._patience
            if self._whole:
                return
            if time.monotonic() >= give_up:
                msg = f"its log could not be read to the end for {self._patience:g} seconds: the connection to the engine was cut each time"
                raise ContainerLostError(msg)

    def _chunks(self, *, follow: bool) -> Iterator[bytes]:
        outputs = {"stdout": self._output == "stdout", "stderr": self._output == "stderr"}
        try:
            self._following = self._container.logs(stream=True, follow=follow, **outputs)
            for chunk in self._following._stream:  # noqa: SLF001 - the SDK's own iterator around it takes a cut for the end
                self._received += len(chunk)
                yield chunk
            self._whole = True
        except APIError as exc:
            if "support reading" not in str(exc):  # a hiccup: the next pass will do
                self._abandoned.wait(_RETRY)
                return
            msg = f"its log cannot be read ({exc.explanation}): choose a log driver that can, such as json-file"
            raise ContainerLostError(msg) from exc
        except ENGINE_ERRORS:
            self._abandoned.wait(_RETRY)

    def cut_if_silent(self) -> None:
        """Cut the current pass, unless a byte has come since this was last called."""
        if self._received == self._seen:
            self.cut()
        self._seen = self._received

    def cut(self) -> None:
        """End the current pass, from another thread. A pass that hangs on a dead connection is brought to its next one."""
        try:
            if self._following is not None:
                self._following.close()
        except (DockerException, OSError, AttributeError):
            pass  # closed already, or a transport (ssh) that cannot be closed from here

    def abandon(self) -> None:
        """End this pass and begin no other."""
        self._abandoned.set()
        self.cut()


class HighWater:
    """How far an output has been passed on, over all passes."""

    def __init__(self) -> None:
        self._mark = 0
        self._at = 0

    def rewind(self) -> None:
        """Begin a new pass."""
        self._at = 0

    def fresh(self, chunk: bytes) -> bytes:
        """Give the part of the chunk that no earlier pass had."""
        self._at += len(chunk)
        new = max(self._at - self._mark, 0)
        self._mark = max(self._at, self._mark)
        return chunk[max(len(chunk) - new, 0) :]
