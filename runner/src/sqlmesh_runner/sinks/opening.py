"""The sinks of a process: the orchestrator, a terminal, a file. All get the same events."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from sqlmesh_runner.errors import ConfigurationError
from sqlmesh_runner.sinks.base import Sink
from sqlmesh_runner.sinks.jsonl import JsonLinesSink
from sqlmesh_runner.sinks.lines import LinesSink
from sqlmesh_runner.sinks.pipes import is_pipes_process, open_pipes
from sqlmesh_runner.sinks.stdio import take_stdout
from sqlmesh_runner.sinks.terminal import TerminalSink

__all__ = ["OpenSinks", "open_sinks"]


@dataclass(frozen=True, kw_only=True)
class OpenSinks:
    """A process's sinks."""

    sinks: Sequence[Sink]
    extras: Mapping[str, Any] | None = None  # of the orchestrator; None if there is none
    on_terminal: bool = False  # SQLMesh's own display is wanted


def open_sinks(events: str | None, environ: Mapping[str, str]) -> OpenSinks:
    """Open the sinks. `events` is the file to write JSON lines to, `-` for stdout.

    Raises:
        ConfigurationError: a sink can't be opened.
    """
    also = [] if events is None else [JsonLinesSink(_open_events(events))]
    if is_pipes_process(environ):
        pipes = open_pipes(environ)
        return OpenSinks(sinks=[pipes, LinesSink(sys.stderr), *also], extras=pipes.extras)
    if events == "-":
        return OpenSinks(sinks=[LinesSink(sys.stderr), *also])
    return OpenSinks(sinks=[TerminalSink(Console()), *also], on_terminal=True)


def _open_events(name: str) -> TextIO:
    if name == "-":
        return TextIOWrapper(take_stdout(), encoding="utf-8", write_through=True)
    try:
        return Path(name).open("w", encoding="utf-8")
    except OSError as exc:
        msg = (
            f"Events can't be written to {name}: {exc.strerror}. Give --events a file in a "
            "directory that exists."
        )
        raise ConfigurationError(msg) from exc
