"""Framing: bytes as an engine cuts them in, whole lines and messages out."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from dagster_sqlmesh_pipes.launchers.framing import LineBuffer, split_message


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n"))),
    st.lists(st.integers(0, 200)),
)
def test_lines_are_whole_wherever_the_stream_was_cut(lines: list[str], cuts: list[int]) -> None:
    stream = "".join(f"{line}\n" for line in lines).encode() + b"rest"
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    buffer = LineBuffer()
    found = [
        line for start, end in itertools.pairwise(places) for line in buffer.feed(stream[start:end])
    ]
    assert [line.decode() for line in found] == lines
    assert buffer.flush() == b"rest"


def test_a_message_is_found_behind_output_without_a_newline() -> None:
    message = b'{"__dagster_pipes_version": "0.1", "method": "closed"}'
    assert split_message(message) == (b"", message)
    assert split_message(b"50 % done" + message) == (b"50 % done", message)
    assert split_message(b'{"some": "json"}') == (b'{"some": "json"}', None)
