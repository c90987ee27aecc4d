"""What a command prints for programs: on stdout, or as a message for an orchestrator."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from typing import Final

from dagster_pipes import (
    DAGSTER_PIPES_MESSAGES_ENV_VAR,
    PIPES_PROTOCOL_VERSION,
    PIPES_PROTOCOL_VERSION_FIELD,
    PipesParams,
    decode_param,
)

from sqlmesh_runner.sinks.framing import message_lines
from sqlmesh_runner.sinks.stdio import take_stdout

__all__ = ["Output", "open_output"]

_METHOD: Final = "output"


class Output:
    """Standard output, kept for one text."""

    def __init__(self, stream: FileIO, params: PipesParams | None) -> None:
        self._stream = stream
        self._params = params

    def write(self, text: str) -> None:
        """Write the whole text."""
        if self._params is None:
            self._write(text.encode())
            return
        message = {
            PIPES_PROTOCOL_VERSION_FIELD: PIPES_PROTOCOL_VERSION,
            "method": _METHOD,
            "params": {"text": text},
        }
        for line in message_lines(message, 0, self._params.get("max_line")):
            self._write(line)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._stream.write(rest) :]


@contextmanager
def open_output(environ: Mapping[str, str]) -> Iterator[Output]:
    """Reserve stdout before the project's code can print there (dbt does).

    A launcher whose engine can't separate stdout from stderr asks for a message instead
    (docs/reference/messages.md): it sets `DAGSTER_PIPES_MESSAGES` to stdout.
    """
    encoded = environ.get(DAGSTER_PIPES_MESSAGES_ENV_VAR)
    params: PipesParams | None = decode_param(encoded) if encoded else None
    if params is not None and params.get("stdio") != "stdout":
        params = None
    with take_stdout() as stream:
        yield Output(stream, params)
