"""The sequence of numbered messages: each once, gaps known, bounded memory."""

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_sqlmesh_pipes.run.sequence import MessageSequence


def numbered(seq: Any, **other: Any) -> bytes:
    return json.dumps({"method": "log", **other, **({} if seq is None else {"seq": seq})}).encode()


@given(st.data())
def test_repeated_stream_returns_each_message_once(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 30))
    sequence = MessageSequence()
    seen: list[int] = []
    for _ in range(data.draw(st.integers(1, 4))):
        again_from = data.draw(st.integers(0, len(seen)))
        until = data.draw(st.integers(again_from, count))
        for seq in range(again_from, until):
            message = sequence.accept(numbered(seq))
            if message is not None:
                seen.append(message["seq"])
    assert seen == list(range(len(seen)))
    assert sequence.missing == []


@given(st.lists(st.integers(0, 40), max_size=60))
def test_any_order_returns_each_message_once(numbers: list[int]) -> None:
    sequence = MessageSequence()
    accepted = [seq for seq in numbers if sequence.accept(numbered(seq)) is not None]
    assert accepted == list(dict.fromkeys(numbers))
    missing = {seq for gap in sequence.missing for seq in gap}
    assert missing == set(range(max(numbers, default=-1) + 1)) - set(numbers)


def test_gap_is_named_as_ranges_until_it_is_filled() -> None:
    sequence = MessageSequence()
    for seq in (0, 3, 5, 1_000_000):
        assert sequence.accept(numbered(seq)) is not None
    assert sequence.describe_missing() == "messages number 1 to 2, 4, 6 to 999999"
    assert sequence.accept(numbered(2)) is not None
    assert sequence.accept(numbered(2)) is None
    assert sequence.accept(numbered(4)) is not None
    assert sequence.describe_missing() == "messages number 1, 6 to 999999"


def test_number_far_ahead_costs_no_memory() -> None:
    sequence = MessageSequence()
    assert sequence.accept(numbered(10**15)) is not None
    assert sys.getsizeof(sequence.missing) < 1000


def test_gaps_are_bounded_and_the_rest_is_counted() -> None:
    sequence = MessageSequence()
    for seq in range(1, 10_001, 2):
        assert sequence.accept(numbered(seq)) is not None
    assert len(sequence.missing) == 1000
    assert sequence.describe_missing().endswith(", 38 and 980 more and 4000 after these")


def test_messages_without_number_are_returned_as_they_come() -> None:
    sequence = MessageSequence()
    assert sequence.accept(numbered(None)) == {"method": "log"}
    assert sequence.accept(numbered(None)) == {"method": "log"}


@pytest.mark.parametrize(
    "line", [b"{", b"[1]", b'"text"', b"\xff", numbered("1"), numbered(-1), numbered(seq=True)]
)
def test_line_that_is_no_message_is_kept_for_the_error(line: bytes) -> None:
    sequence = MessageSequence()
    assert sequence.accept(line) is None
    assert sequence.malformed == [line.decode(errors="replace")]
