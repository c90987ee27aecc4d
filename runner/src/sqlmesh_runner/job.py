"""A run as it was asked for, those who watch it, and how it ends whatever happens. Imports no SQLMesh."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlmesh_runner.errors import EXIT_DONE, RunError, RunnerError, describe
from sqlmesh_runner.recorder import Recorder
from sqlmesh_runner.selection import Selection
from sqlmesh_runner.sinks.base import Sink
from sqlmesh_runner.stop import StopRequest

if TYPE_CHECKING:  # importing it imports SQLMesh
    from sqlmesh_runner.queries import RunningQueries

__all__ = ["Job", "RunOptions"]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What `run` and `audit` take. Times are SQLMesh's: dates, times or expressions such as `1 day ago`."""

    directories: Sequence[Path]
    gateway: str | None  # None: the project's default one
    environment: str | None  # None: the project's default target environment
    selection: Selection
    start: str | None = None
    end: str | None = None
    execution_time: str | None = None
    ignore_cron: bool = False
    skip_janitor: bool = False
    row_counts: bool = False


@dataclass(kw_only=True)
class Job:
    """A run and those who watch it."""

    options: RunOptions
    recorder: Recorder
    sink: Sink
    stop: StopRequest
    show_progress: bool = False
    """Show SQLMesh's own progress display."""
    queries: "RunningQueries | None" = None
    """What batches are running; None before there can be any."""
    error: BaseException | None = None
    """What ended the run, if it was no model."""

    def cancel(self) -> None:
        """Cancel the queries of running batches."""
        if self.queries is not None:
            self.queries.cancel()

    def perform(self, work: "Callable[[Job], None]") -> int:
        """Do the work and finish the recorder, whatever happens. Returns the exit code."""
        try:
            work(self)
        except BaseException as exc:  # noqa: BLE001 - every error must reach the reader of the events, SystemExit of the project's code too
            if not self.stop.requested:
                error = exc if isinstance(exc, RunnerError) else _unexpected(exc)
                self.error = error
                return self.recorder.finish("error", error.exit_code, error=str(error))
        if self.stop.requested:
            return self.recorder.finish("interrupted", self.stop.exit_code)
        return self.recorder.finish(None, EXIT_DONE)


def _unexpected(exc: BaseException) -> RunnerError:
    if isinstance(exc, SystemExit):
        msg = f"The project's code ended the run: {describe(exc)}. Let it raise an error; --debug shows where it is."
    else:
        msg = f"The runner broke: {type(exc).__name__}: {describe(exc)}. Run it again with --debug, and report the traceback."
    error = RunError(msg)
    error.__cause__ = exc
    return error
