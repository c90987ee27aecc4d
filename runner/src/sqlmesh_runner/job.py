"""A command that reports results while it works: what was asked for, who is told, and how it ends.

It imports no SQLMesh, so that a request to stop is heard while SQLMesh is imported.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from sqlmesh_runner.errors import EXIT_DONE, RunError, RunnerError, describe
from sqlmesh_runner.options import JobOptions
from sqlmesh_runner.recording.recorder import Recorder
from sqlmesh_runner.selection import Selection
from sqlmesh_runner.sinks.base import Fanout, Sink
from sqlmesh_runner.sinks.opening import open_sinks
from sqlmesh_runner.stop import StopRequest, supervise

__all__ = ["Job", "open_job"]

OptionsT_co = TypeVar("OptionsT_co", bound=JobOptions, covariant=True)


@dataclass(kw_only=True)
class Job(Generic[OptionsT_co]):
    """One execution of a command, and those who watch it."""

    options: OptionsT_co
    selection: Selection
    recorder: Recorder
    sink: Sink
    stop: StopRequest
    show_progress: bool = False
    """Show SQLMesh's own progress display."""
    expected_variables: Mapping[str, Any] = field(default_factory=dict)
    """Environment variables that the project reads, from the extras."""
    cancel: Callable[[], None] = lambda: None
    """Cancel the queries of running batches. There are none before SQLMesh evaluates."""
    error: BaseException | None = None
    """What ended the job, if it was no model."""

    def run(self, work: "Callable[[Job[OptionsT_co]], None]") -> int | None:
        """Do the work in a thread of its own, report its end, and close the sinks.

        Returns the exit code, or None if the work was abandoned: its threads still run.
        """
        code = supervise(
            partial(self._execute, work),
            stop=self.stop,
            cancel=lambda: self.cancel(),  # noqa: PLW0108 - the work replaces it
            abandon=self.recorder.abandon,
            grace=self.options.cancel_grace,
        )
        self.sink.close()
        return code

    def _execute(self, work: "Callable[[Job[OptionsT_co]], None]") -> int:
        try:
            work(self)
        except BaseException as exc:  # noqa: BLE001 - SystemExit of the project's code must be reported, too
            if not self.stop.requested:
                error = exc if isinstance(exc, RunnerError) else _unexpected(exc)
                self.error = error
                return self.recorder.finish("error", error.exit_code, error=str(error))
        if self.stop.requested:
            return self.recorder.finish("interrupted", self.stop.exit_code)
        code = self.recorder.finish(None, EXIT_DONE)
        self.error = self.recorder.error
        return code


def open_job(options: JobOptions, environ: Mapping[str, str]) -> Job[JobOptions]:
    """Listen for requests to stop, open the sinks, and read what is selected. Main thread only.

    Raises:
        ConfigurationError: a sink can't be opened, or the orchestrator's protocol version is not
            supported (the orchestrator receives that as an event, too).
    """
    stop = StopRequest()
    stop.watch_signals()
    if options.stop_when_stdin_closes:
        stop.watch_starter()
    opened = open_sinks(options.events, environ)
    sink = Fanout(opened.sinks)
    recorder = Recorder(sink, stop)
    try:
        selection = (
            Selection.from_names(options.select)
            if opened.extras is None
            else Selection.from_extras(opened.extras)
        )
    except RunnerError as exc:
        recorder.finish("error", exc.exit_code, error=str(exc))
        sink.close()
        raise
    return Job(
        options=options,
        selection=selection,
        recorder=recorder,
        sink=sink,
        stop=stop,
        show_progress=opened.on_terminal,
        expected_variables=(opened.extras or {}).get("environment_variables") or {},
    )


def _unexpected(exc: BaseException) -> RunnerError:
    if isinstance(exc, SystemExit):
        msg = (
            f"The project's code ended the run: {describe(exc)}. Let it raise an error; --debug "
            "shows where it is."
        )
    else:
        msg = (
            f"The runner broke: {type(exc).__name__}: {describe(exc)}. Run it again with --debug, "
            "and report the traceback."
        )
    error = RunError(msg)
    error.__cause__ = exc
    return error
