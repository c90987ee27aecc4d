"""Who is told of a run: the orchestrator, a person at a terminal, a file. Same events for all."""

import argparse
import sys
from collections.abc import Mapping
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from sqlmesh_runner.errors import ConfigurationError, RunnerError
from sqlmesh_runner.job import Job, RunOptions
from sqlmesh_runner.recorder import Recorder
from sqlmesh_runner.selection import Selection
from sqlmesh_runner.sinks.base import Fanout, Sink
from sqlmesh_runner.sinks.jsonl import JsonLinesSink
from sqlmesh_runner.sinks.lines import LinesSink
from sqlmesh_runner.sinks.pipes import is_pipes_process, open_pipes
from sqlmesh_runner.sinks.stdio import take_stdout
from sqlmesh_runner.sinks.terminal import TerminalSink
from sqlmesh_runner.stop import StopRequest

__all__ = ["prepare_job"]


def prepare_job(options: argparse.Namespace, directories: list[Path], stop: StopRequest, environ: Mapping[str, str]) -> Job:
    """Open the sinks and put together what is to be done.

    Raises:
        ConfigurationError: a sink can't be opened, or the orchestrator speaks another protocol (it is told so, too).
    """
    extras, sinks, on_terminal = _open_sinks(options, environ)
    sink = Fanout(sinks)
    recorder = Recorder(sink, stop)
    try:
        selection = Selection.from_names(options.select) if extras is None else Selection.from_extras(extras)
    except RunnerError as exc:
        recorder.finish("error", exc.exit_code, error=str(exc))
        sink.close()
        raise
    run_options = RunOptions(
        directories=directories,
        gateway=options.gateway,
        environment=options.environment,
        selection=selection,
        start=options.start,
        end=options.end,
        execution_time=options.execution_time,
        ignore_cron=getattr(options, "ignore_cron", False),
        skip_janitor=getattr(options, "skip_janitor", False),
        row_counts=getattr(options, "row_counts", False),
    )
    return Job(options=run_options, recorder=recorder, sink=sink, stop=stop, show_progress=on_terminal)


def _open_sinks(options: argparse.Namespace, environ: Mapping[str, str]) -> tuple[Mapping[str, Any] | None, list[Sink], bool]:
    """Give the orchestrator's extras (None without one), the sinks, and whether SQLMesh's own display is to be shown."""
    sinks: list[Sink] = []
    if options.events:
        sinks.append(JsonLinesSink(_open_events(options.events)))
    if is_pipes_process(environ):
        pipes = open_pipes(environ)
        return pipes.extras, [pipes, LinesSink(sys.stderr), *sinks], False
    if options.events == "-":
        return None, [LinesSink(sys.stderr), *sinks], False
    return None, [TerminalSink(Console()), *sinks], True


def _open_events(name: str) -> TextIO:
    if name == "-":
        return TextIOWrapper(take_stdout(), encoding="utf-8", write_through=True)
    try:
        return Path(name).open("w", encoding="utf-8")
    except OSError as exc:
        msg = f"Events can't be written to {name}: {exc.strerror}. Give --events a file in a directory that exists."
        raise ConfigurationError(msg) from exc
