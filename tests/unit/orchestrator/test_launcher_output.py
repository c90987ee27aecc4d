"""A runner's output: messages for the step, the rest for the compute logs and for errors."""

import json
import os

import pytest

from dagster_sqlmesh_pipes.launchers.framing import PartJoiner
from dagster_sqlmesh_pipes.launchers.output import LogTail, RunnerOutput

OPENED = b'{"__dagster_pipes_version": "0.1", "method": "opened", "params": {}, "seq": 0}'
CLOSED = b'{"__dagster_pipes_version": "0.1", "method": "closed", "params": null, "seq": 2}'


def part(number: int, index: int, count: int, data: str) -> bytes:
    params = {"of": number, "part": index, "parts": count, "data": data}
    message = {"__dagster_pipes_version": "0.1", "method": "part", "params": params}
    return json.dumps(message).encode()


def test_log_tail_cuts_long_lines_at_their_start() -> None:
    tail = LogTail()
    for chunk in (b"first\n", b"x" * 3_000_000, b" the end\n", b"y" * 3_000_000):
        tail.feed(chunk)
    first, long, unfinished = str(tail).splitlines()
    assert first == "first"
    assert long.endswith("x the end")
    assert (len(long), len(unfinished)) == (2000, 2000)


# Messages


def test_output_separates_messages_from_log(capfd: pytest.CaptureFixture[str]) -> None:
    output = RunnerOutput()
    for line in (b"starting", b"50 % " + OPENED, CLOSED):
        output.add_line(line, line + b"\n")
    output.add_log(2, b"on stderr\n")
    output.end()
    assert [output.read(), output.read(), output.read()] == [OPENED, CLOSED, None]
    assert (output.has_messages, output.is_closed) == (True, True)
    assert capfd.readouterr() == ("starting\n50 % \n", "on stderr\n")
    assert output.log_tail() == "starting\n50 % \non stderr"


def test_output_without_reader_is_dropped() -> None:
    """The step's own stdout is closed: the runner must not block, nor the step fail."""
    reading, writing = os.pipe()
    os.close(reading)
    output = RunnerOutput()
    output.add_log(writing, b"lost\n")
    os.close(writing)
    assert output.log_tail() == "lost"


# Parts


def test_parts_are_joined_in_any_order_and_repeated() -> None:
    joiner = PartJoiner()
    text = '{"method": "log", "params": {"text": "ä"}, "seq": 7}'
    first, second, third = text[:10], text[10:20], text[20:]
    arrived = [(2, third), (0, first), (2, third), (1, second)]
    found = [joiner.accept(part(7, index, 3, data)) for index, data in arrived]
    assert found == [None, None, None, text.encode()]


def test_parts_of_several_messages_are_kept_apart() -> None:
    joiner = PartJoiner()
    assert joiner.accept(part(1, 0, 2, "a")) is None
    assert joiner.accept(part(2, 0, 2, "c")) is None
    assert joiner.accept(part(1, 1, 2, "b")) == b"ab"
    assert joiner.accept(part(2, 1, 2, "d")) == b"cd"


@pytest.mark.parametrize("line", [OPENED, b'{"method": "part"', b'{"method": "part", "params": 3}'])
def test_line_that_is_no_part_is_passed_on(line: bytes) -> None:
    assert PartJoiner().accept(line) == line


def test_log_tail_has_no_escape_codes() -> None:
    tail = LogTail()
    tail.feed(b"\x1b[31mError\x1b[0m: \x1b[1mno\x1b[22m\n")
    assert str(tail) == "Error: no"
