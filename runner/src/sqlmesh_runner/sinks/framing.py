"""Messages as lines, long ones in parts (docs/reference/messages.md)."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

__all__ = ["message_lines"]

_PART_OVERHEAD: Final = 200  # bytes of a part besides its data, at most


def message_lines(message: Mapping[str, Any], seq: int, max_line: int | None) -> Iterator[bytes]:
    """Encode a message with its number: one line, or parts where that exceeds `max_line` bytes.

    A container's log cuts long lines, and puts lines of the other stream between the pieces.
    """
    text = json.dumps({**message, "seq": seq})
    if max_line is None or len(text) < max_line:
        yield _line(text)
        return
    size = (max_line - _PART_OVERHEAD) // 2  # in JSON, each character of JSON is at most two
    parts = [text[start : start + size] for start in range(0, len(text), size)]
    for number, data in enumerate(parts):
        part = {"of": seq, "part": number, "parts": len(parts), "data": data}
        version = message["__dagster_pipes_version"]
        yield _line(
            json.dumps({"__dagster_pipes_version": version, "method": "part", "params": part})
        )


def _line(text: str) -> bytes:
    return f"{text}\n".encode("ascii")
