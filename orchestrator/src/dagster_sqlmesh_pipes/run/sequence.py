"""The sequence of the runner's numbered messages: each is read once, and the missing are known."""

import bisect
import json
import math
from collections.abc import Mapping
from typing import Any

from dagster_sqlmesh_pipes.contract import list_names

__all__ = ["MessageSequence"]

_MAX_GAPS = 1000  # further ones are counted, and not filled if they come later
_MAX_MALFORMED = 1000


class MessageSequence:
    """Decode message lines, and find repeats and gaps by their `seq`.

    A log stream that was cut and reopened repeats lines, and an engine may lose some: repeats are
    dropped, gaps are kept until they are filled. Messages without `seq` are another writer's; they
    are returned as they come.
    """

    def __init__(self, *, first: int = 0) -> None:
        self._next = first
        self._gaps: list[tuple[int, int]] = []  # first and last number, ascending
        self._uncounted = 0  # missing messages after the last gap that is kept
        self.malformed: list[str] = []
        """The beginnings of lines that are no messages."""

    def accept(self, line: bytes) -> Mapping[str, Any] | None:
        """Decode a line; None for a repeat, and for a line that is no message."""
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, Mapping) or not _is_valid_seq(message.get("seq")):
            if len(self.malformed) < _MAX_MALFORMED:
                self.malformed.append(line[:200].decode(errors="replace"))
            return None
        seq = message.get("seq")
        return message if seq is None or self._is_new(seq) else None

    @property
    def missing(self) -> list[range]:
        """The numbers that never came."""
        return [range(first, last + 1) for first, last in self._gaps]

    def describe_missing(self) -> str:
        """Return the numbers that never came, for people; empty when none."""
        if not self._gaps:
            return ""
        ranges = (
            str(first) if first == last else f"{first} to {last}" for first, last in self._gaps
        )
        more = f" and {self._uncounted} after these" if self._uncounted else ""
        return f"messages number {list_names(ranges)}{more}"

    def _is_new(self, seq: int) -> bool:
        if seq >= self._next:
            if seq > self._next:
                self._add_gap(self._next, seq - 1)
            self._next = seq + 1
            return True
        index = bisect.bisect_right(self._gaps, (seq, math.inf)) - 1
        if index < 0 or seq > self._gaps[index][1]:
            return False
        first, last = self._gaps[index]
        rest = [(first, seq - 1), (seq + 1, last)]
        self._gaps[index : index + 1] = [gap for gap in rest if gap[0] <= gap[1]]
        return True

    def _add_gap(self, first: int, last: int) -> None:
        if len(self._gaps) < _MAX_GAPS:
            self._gaps.append((first, last))
        else:
            self._uncounted += last - first + 1


def _is_valid_seq(seq: Any) -> bool:
    return seq is None or (isinstance(seq, int) and not isinstance(seq, bool) and seq >= 0)
