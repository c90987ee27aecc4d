"""A container's log, read without loss or repeats however often the connection breaks."""

import re
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

from dagster_sqlmesh_pipes.launchers.framing import LineBuffer
from dagster_sqlmesh_pipes.launchers.kubernetes.api import (
    API_ERRORS,
    ApiError,
    Cluster,
    explanation,
    is_status,
    is_transient,
)
from dagster_sqlmesh_pipes.launchers.kubernetes.pod import CONTAINER
from dagster_sqlmesh_pipes.launchers.kubernetes.status import PodState, pod_state

__all__ = ["PodLog", "PodLostError", "TimestampFilter"]

_PIECE = 16 * 1024  # bytes; the container runtime cuts longer lines
_TIMESTAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(?:Z|[+-]\d\d:\d\d) ")

_PAUSE = 0.2  # seconds after an attempt that had nothing new
_RETRY = 0.5  # seconds between two attempts to reach the API server


class PodLostError(Exception):
    """The pod, or its API server, cannot be reached any more. The message says which."""


class TimestampFilter:
    """Remove timestamps from a log's lines, and lines that an earlier attempt has had.

    `sinceTime` has whole seconds, so each attempt begins some lines too early. Lines are not known
    by their place: the log's beginning moves when it is rotated.
    """

    def __init__(self) -> None:
        self._last = ""
        self._seen: dict[str, set[tuple[str, int]]] = {}  # by second

    @property
    def since(self) -> str | None:
        """Where the next attempt begins: a second before the last line."""
        if not self._last:
            return None
        last = datetime.strptime(self._last, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
        return (last - timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")

    def accept(self, line: bytes) -> bytes | None:
        """Return a line without its timestamp; None if it was had before."""
        timestamp, _, text = line.partition(b" ")
        time_text = timestamp.decode("ascii", errors="replace")
        second = time_text[:19]
        if len(time_text) < len("2026-01-01T00:00:00Z") or time_text[10] != "T":
            return line  # not a log's line: an error of the runtime
        lines = self._seen.setdefault(second, set())
        key = (time_text, hash(text))
        if key in lines:
            return None
        lines.add(key)
        if second > self._last:
            self._last = second
            oldest = self.since or ""
            self._seen = {at: had for at, had in self._seen.items() if at >= oldest[:19]}
        return text if len(text) <= _PIECE else _joined(text)


def _joined(text: bytes) -> bytes:
    """Remove the timestamps that Kubernetes before 1.23 has before each piece of a long line."""
    pieces = [text[:_PIECE]]
    rest = text[_PIECE:]
    while timestamp := _TIMESTAMP.match(rest):
        start = timestamp.end()
        pieces.append(rest[start : start + _PIECE])
        rest = rest[start + _PIECE :]
    return b"".join([*pieces, rest])


def _is_read_timeout(exc: BaseException) -> bool:
    return not isinstance(exc, ApiError) and "timed out" in str(exc).lower()


class PodLog:
    """A container's log, read in as many attempts as it takes.

    The end of an attempt means nothing: the kubelet ends it after four hours, old ones at a
    rotation, and a connection may die. The log has ended when the container has, and then one
    attempt without `follow` came to its end.
    """

    def __init__(self, cluster: Cluster, name: str, *, patience: float) -> None:
        self._cluster = cluster
        self._name = name
        self._patience = patience
        self._filter = TimestampFilter()
        self._abandoned = threading.Event()
        self._reached = time.monotonic()
        self._is_whole = False  # whether the last attempt came to its end
        self._has_news = False  # whether it had a line that none had before
        self.is_complete = False
        """Set by the reader that knows from the content that nothing more will come."""

    def lines(self) -> Iterator[bytes]:
        """Read the log until its end.

        Raises:
            PodLostError: the pod is gone, or its log could not be read for `patience` seconds.
        """
        while not (self.is_complete or self._abandoned.is_set()):
            state = self.pod_state()
            has_ended = state.has_ended or (state.has_pod_failed and self._is_silent)
            yield from self._attempt(follow=not has_ended)
            if has_ended and self._is_whole:
                return
            if self._is_silent:  # the container has just ended, or a kubelet ends each follow
                self._abandoned.wait(_PAUSE)
            self._check_patience(state)

    @property
    def _is_silent(self) -> bool:
        """Whether the last attempt came to its end without a new line."""
        return self._is_whole and not self._has_news

    def _attempt(self, *, follow: bool) -> Iterator[bytes]:
        self._is_whole = self._has_news = False
        buffer = LineBuffer()
        try:
            with self._cluster.open_log(
                self._name, CONTAINER, follow=follow, since=self._filter.since
            ) as chunks:
                try:
                    for chunk in chunks:
                        yield from self._new(*buffer.feed(chunk))
                        if self.is_complete or self._abandoned.is_set():
                            return
                    self._is_whole = True
                finally:
                    self._reached = time.monotonic()  # it could be read until now
        except API_ERRORS as exc:
            self._raise_if_unreadable(exc)
            return
        if not follow:  # else the next attempt has the line whole
            yield from self._new(*filter(None, [buffer.flush()]))

    def _new(self, *lines: bytes) -> Iterator[bytes]:
        for line in lines:
            text = self._filter.accept(line)
            if text is not None:
                self._has_news = True
                yield text

    def _raise_if_unreadable(self, exc: BaseException) -> None:
        if is_status(exc, HTTPStatus.FORBIDDEN, HTTPStatus.UNAUTHORIZED):
            msg = f"its log can't be read: {explanation(exc)}"
            raise PodLostError(msg) from exc
        if is_status(exc, HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND):
            self._is_whole = True  # there is no log, and will be none: its container has gone
        if not _is_read_timeout(exc):
            self._abandoned.wait(_RETRY)

    def _check_patience(self, state: PodState) -> None:
        silent = time.monotonic() - self._reached
        if silent > self._patience:
            where = f" on node {state.node}" if state.node else ""
            msg = f"its log{where} could not be read for {self._patience:g} seconds"
            if state.is_deleted:
                msg += "; somebody deleted the pod, and its node does not answer"
            raise PodLostError(msg)

    def pod_state(self, *, patience: float | None = None) -> PodState:
        """Return the pod's state; ask again for `patience` seconds while nobody answers.

        Raises:
            PodLostError: the pod is gone, or nobody answered for that long.
        """
        return pod_state(self._read_pod(self._patience if patience is None else patience))

    def _read_pod(self, patience: float) -> Mapping[str, Any]:
        give_up = time.monotonic() + patience
        while True:
            try:
                return self._cluster.read_pod(self._name)
            except API_ERRORS as exc:
                if is_status(exc, HTTPStatus.NOT_FOUND):
                    msg = "the pod was deleted from outside while it was running"
                    raise PodLostError(msg) from exc
                if not is_transient(exc):
                    msg = f"the pod can't be read: {explanation(exc)}"
                    raise PodLostError(msg) from exc
                if time.monotonic() > give_up or self._abandoned.wait(_RETRY):
                    msg = (
                        f"its API server did not answer for {self._patience:g} seconds "
                        f"({explanation(exc)}); the pod may still be running"
                    )
                    raise PodLostError(msg) from exc

    def abandon(self) -> None:
        """End this attempt and begin no other."""
        self._abandoned.set()
