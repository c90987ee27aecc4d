"""Framing: chunks as an engine cuts them become lines, log lines are separated from messages, and
long messages that came in parts become whole again (docs/reference/messages.md).
"""

import json
from collections.abc import Iterator

__all__ = ["MAX_LINE", "LineBuffer", "PartJoiner", "is_closed", "split_message"]

MAX_LINE = 8000
"""Bytes of the longest line that an engine's log passes on as it is. Docker and containerd cut at
16 KiB, CRI-O at 8 KiB. Runners cut longer messages into parts."""

_MESSAGE_START = b'{"__dagster_pipes_version"'
_PART = b'"part"'
_HEAD = 100  # bytes of a message within which its method is


class LineBuffer:
    """Join chunks to lines, however they were cut.

    Lines are bytes until they are whole, so a character cut in two survives.
    """

    def __init__(self) -> None:
        self._chunks: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the lines that a chunk completes, without their newlines."""
        first, newline, rest = chunk.partition(b"\n")
        self._chunks.append(first)
        while newline:
            yield b"".join(self._chunks)
            first, newline, rest = rest.partition(b"\n")
            self._chunks = [first]

    def flush(self) -> bytes:
        """Return what came after the last newline, once the stream has ended."""
        rest, self._chunks = b"".join(self._chunks), []
        return rest


class PartJoiner:
    """Join the parts of long messages. Parts may be repeated, and may come in any order."""

    def __init__(self) -> None:
        self._parts: dict[int, dict[int, str]] = {}

    def accept(self, line: bytes) -> bytes | None:
        """Return a message as it is, or the message that this part completes; else None.

        A message of which a part was lost never comes: the next one's number shows the gap.
        """
        if _PART not in line[:_HEAD]:
            return line
        try:
            message = json.loads(line)
            if message["method"] != "part":
                return line
            params = message["params"]
            number, part, count = params["of"], params["part"], params["parts"]
            parts = self._parts.setdefault(number, {})
            parts[part] = params["data"]
        except (ValueError, KeyError, TypeError):
            return line  # the reader of messages reports it as malformed
        if len(parts) < count:
            return None
        del self._parts[number]
        return "".join(parts[index] for index in range(count)).encode()


def split_message(line: bytes) -> tuple[bytes, bytes | None]:
    """Return the log and the message on a line of a stream that carries both.

    Output without a newline (a progress bar, a `print(end="")`) may stand on a message's line,
    before it.
    """
    start = line.find(_MESSAGE_START)
    return (line, None) if start < 0 else (line[:start], line[start:])


def is_closed(message: bytes) -> bool:
    """Return whether a message is the runner's last."""
    if b'"closed"' not in message:
        return False
    try:
        return bool(json.loads(message)["method"] == "closed")
    except (ValueError, KeyError, TypeError):
        return False
