"""A runner's output: messages for the step, the rest for Dagster's compute logs and error
messages.
"""

import os
import re
import sys
import threading
from collections import deque

from dagster_sqlmesh_pipes.launchers.framing import PartJoiner, is_closed, split_message

__all__ = ["LogTail", "RunnerOutput"]

STDOUT, STDERR = 1, 2


_ESCAPE_CODE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
"""A terminal's control sequence or operating system command: a color, a link."""


class LogTail:
    """The last lines of a log; of each as much as an error message has room for. Thread-safe."""

    def __init__(self, lines: int = 30, *, width: int = 2000) -> None:
        self._lines: deque[bytes] = deque(maxlen=lines)
        self._rest: dict[str, bytes] = {}
        self._width = width
        self._lock = threading.Lock()

    def feed(self, chunk: bytes, stream: str = "") -> None:
        """Add what came on a stream, wherever it was cut."""
        with self._lock:
            *lines, rest = (self._rest.get(stream, b"") + chunk).split(b"\n")
            self._rest[stream] = self._cut(rest)
            self._lines.extend(self._cut(line) for line in lines)

    def _cut(self, line: bytes) -> bytes:
        # Its end: what an endless progress bar shows now, and what an exception says.
        return line[-self._width :]

    def __str__(self) -> str:
        with self._lock:
            lines = [*self._lines, *filter(None, self._rest.values())]
        text = "\n".join(line.decode(errors="replace") for line in lines)
        return _ESCAPE_CODE.sub("", text)


class RunnerOutput:
    """What a runner writes, from the threads that read it to the one that takes its messages."""

    def __init__(self) -> None:
        self._messages: deque[bytes] = deque()
        self._parts = PartJoiner()
        self._tail = LogTail()
        self._changed = threading.Condition()
        self._ended = False
        self.has_messages = False
        """Whether at least one message has come."""
        self.is_closed = False
        """Whether the runner's last message has come."""

    def read(self) -> bytes | None:
        """Wait for the next message; None after the last one."""
        with self._changed:
            self._changed.wait_for(lambda: self._messages or self._ended)
        return self._messages.popleft() if self._messages else None

    def add_message(self, line: bytes) -> None:
        """Add a message, or a part of one."""
        message = self._parts.accept(line)
        if message is None:
            return
        with self._changed:
            self.has_messages = True
            self.is_closed = self.is_closed or is_closed(message)
            self._messages.append(message)
            self._changed.notify()

    def add_line(self, line: bytes, unseen: bytes) -> None:
        """Add a line of a stream that carries messages and log.

        `unseen` is what of the line, its newline included, no earlier reading of the stream has
        passed
        on: messages have numbers, and may come again.
        """
        printed, message = split_message(line)
        if message is None:
            self.add_log(STDOUT, unseen)
            return
        if unseen and printed:
            self.add_log(STDOUT, printed + b"\n")
        self.add_message(message)

    def add_log(self, fd: int, chunk: bytes) -> None:
        """Pass a chunk of the log on to stdout (1) or stderr (2)."""
        self._tail.feed(chunk, str(fd))
        _write(fd, chunk)

    def end(self) -> None:
        """Let `read` return None once all messages have been read."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def log_tail(self) -> str:
        """Return the log's last lines."""
        return str(self._tail)


def _write(fd: int, chunk: bytes) -> None:
    """Write to a descriptor, not to sys.stdout: that is what Dagster's compute log manager
    captures.
    """
    stream = sys.stdout if fd == STDOUT else sys.stderr
    stream.flush()
    rest = memoryview(chunk)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except OSError:  # nobody reads our output any more; the runner must not block on that
            return
