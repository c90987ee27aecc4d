"""Framing: bytes as an engine cuts them in, whole messages out, each once."""

import itertools
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dagster_sqlmesh_pipes._messages import LineBuffer, MessageSequence, split_message


def numbered(seq: int | None, **other: Any) -> bytes:
    return json.dumps({"method": "log", **other, **({} if seq is None else {"seq": seq})}).encode()


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n"))), st.lists(st.integers(0, 200)))
def test_lines_are_whole_wherever_the_stream_was_cut(lines: list[str], cuts: list[int]) -> None:
    stream = "".join(f"{line}\n" for line in lines).encode() + b"rest"
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    buffer = LineBuffer()
    found = [line for start, end in itertools.pairwise(places) for line in buffer.feed(stream[start:end])]
    assert [line.decode() for line in found] == lines
    assert buffer.flush() == b"rest"


@given(st.data())
def test_a_stream_that_was_read_again_gives_each_message_once(data: st.DataObject) -> None:
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


def test_what_is_missing_is_known_until_it_comes() -> None:
    sequence = MessageSequence()
    assert sequence.accept(numbered(0)) is not None
    assert sequence.accept(numbered(3)) is not None
    assert sequence.missing == [1, 2]
    assert sequence.accept(numbered(2)) is not None
    assert sequence.accept(numbered(2)) is None
    assert sequence.missing == [1]


def test_messages_of_a_plain_pipes_process_have_no_number_and_are_passed_on() -> None:
    sequence = MessageSequence()
    assert sequence.accept(numbered(None)) == {"method": "log"}
    assert sequence.accept(numbered(None)) == {"method": "log"}


def test_what_is_no_message_is_kept_for_the_error() -> None:
    sequence = MessageSequence()
    assert [sequence.accept(line) for line in (b"{", b"[1]", b'"text"', b"\xff")] == [None] * 4
    assert len(sequence.malformed) == 4


def test_a_message_is_found_behind_output_without_a_newline() -> None:
    message = b'{"__dagster_pipes_version": "0.1", "method": "closed"}'
    assert split_message(message) == (b"", message)
    assert split_message(b"50 % done" + message) == (b"50 % done", message)
    assert split_message(b'{"some": "json"}') == (b'{"some": "json"}', None)
