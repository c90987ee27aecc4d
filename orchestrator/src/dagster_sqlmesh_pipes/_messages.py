"""Framing: bytes as an engine cuts them in, whole numbered messages out, each once."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["LineBuffer", "MessageSequence", "split_message"]

_MESSAGE_START = b'{"__dagster_pipes_version"'


class LineBuffer:
    """Join chunks to lines, however they were cut.

    Lines are bytes until they are whole, so a character cut in two survives.
    """

    def __init__(self) -> None:
        self._chunks: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Take a chunk and give the lines that it completes, without their newlines."""
        first, newline, rest = chunk.partition(b"\n")
        self._chunks.append(first)
        while newline:
            yield b"".join(self._chunks)
            first, newline, rest = rest.partition(b"\n")
            self._chunks = [first]

    def flush(self) -> bytes:
        """Give what came after the last newline, once the stream has ended."""
        rest, self._chunks = b"".join(self._chunks), []
        return rest


def split_message(line: bytes) -> tuple[bytes, bytes | None]:
    """Tell log from message on a stream that carries both: what stands before a Pipes message, and the message.

    Output without a newline (a progress bar, a `print(end="")`) may stand on a message's line, before it.
    """
    at = line.find(_MESSAGE_START)
    return (line, None) if at < 0 else (line[:at], line[at:])


class MessageSequence:
    """Decode message lines and see that none is missing, by their `seq`.

    A log stream that was cut and reopened repeats lines, and an engine may lose some: repeats are dropped, what is
    missing is kept in `missing`. Messages without `seq` (from a plain Pipes process) are passed on as they come.
    """

    def __init__(self) -> None:
        self._next = 0
        self.missing: list[int] = []
        self.malformed: list[str] = []

    def accept(self, line: bytes) -> Mapping[str, Any] | None:
        """Decode a line; None for a repeat or a line that is no message (kept in `malformed`)."""
        try:
            message: Mapping[str, Any] = json.loads(line)
            seq = message.get("seq")
        except (ValueError, AttributeError):
            self.malformed.append(line[:200].decode(errors="replace"))
            return None
        if seq is None:
            return message
        if seq < self._next:
            if seq not in self.missing:
                return None
            self.missing.remove(seq)
            return message
        self.missing.extend(range(self._next, seq))
        self._next = seq + 1
        return message
