"""What a launcher is: it starts a runner, lets it be read and stopped, and cleans up. It knows nothing of SQLMesh."""

import abc
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from dagster_pipes import PipesContextData
from pydantic import BaseModel, ConfigDict

__all__ = ["EXCLUSIVE_LABEL", "Exit", "Invocation", "LaunchRequest", "Launcher", "LogTail"]


EXCLUSIVE_LABEL = "dagster-sqlmesh-pipes.exclusive"
"""The label that names what a runner must have to itself. Steps of one Dagster instance take turns at it, so what a run that is over left at
work may be stopped by the next. Another instance on the same engine may use the same name: a label alone proves nothing."""


@dataclass(frozen=True, kw_only=True)
class LaunchRequest:
    """What to start.

    `arguments` follow the runner's executable (`["run", "--environment", "prod"]`). `context` is handed to the runner as
    Pipes context. `labels` say who asked (`dagster/run_id`, `dagster/step_key`, `dagster/code_location`, …): launchers put them
    where their engine keeps such things, so that a runner can be found again. `is_over` tells of a run's id whether this Dagster instance
    knows that run and its end: what such a run left at work is dead, anything else is somebody's.
    """

    arguments: Sequence[str]
    context: PipesContextData
    labels: Mapping[str, str] = field(default_factory=dict)
    is_over: Callable[[str], bool] = lambda _: False


@dataclass(frozen=True, kw_only=True)
class Exit:
    """How a runner ended.

    `code` is the exit code as a shell shows it (128 + signal number for a signal). `reason` is a sentence for what the code alone does not
    tell ("killed: out of memory (limit 512m)"), else None.
    """

    code: int
    reason: str | None = None


class Invocation(AbstractContextManager["Invocation"], abc.ABC):
    """One runner at work. Leaving the context stops it if it still runs, and removes what was made for it.

    One thread reads; everything else may be called by any.
    """

    name: str
    """What and where, for messages: `process 4711`, `container sqlmesh-1a2b (engine unix:///var/run/docker.sock)`."""

    @abc.abstractmethod
    def read(self) -> bytes | None:
        """Wait for the next whole line of the runner's messages, without its newline; None after the last one.

        Other output of the runner goes to this process's stdout and stderr (Dagster's compute logs) and never shows up here.
        """

    @abc.abstractmethod
    def stop(self) -> None:
        """Ask the runner to stop, and see to it in the background: SIGINT, after a grace period SIGTERM, at last SIGKILL.

        Returns at once. `read` goes on until the runner's last message.
        """

    @abc.abstractmethod
    def wait(self) -> Exit:
        """Wait for the runner's end (soon, once `read` has returned None) and tell how it ended."""

    @abc.abstractmethod
    def log_tail(self) -> str:
        """Tell the last lines that the runner wrote besides its messages, for error messages; empty when none."""


class Launcher(BaseModel, abc.ABC):
    """Start runners somewhere. One per kind of place; its fields are that place's settings."""

    # An error about a setting must not show the others: there are secrets among them.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @abc.abstractmethod
    def launch(self, request: LaunchRequest) -> Invocation:
        """Start a runner.

        Raises:
            LaunchError: it could not be started; says what, where, and what to do next.
        """

    @abc.abstractmethod
    def run_to_end(self, arguments: Sequence[str]) -> str:
        """Run the runner to its end outside of any Dagster run (to make a manifest) and return its stdout.

        Raises:
            LaunchError: it could not be started or exited with a code other than 0; has the log's last lines.
        """


class LogTail:
    """The last lines of a log, kept while it passes by; of each as much as an error message has room for. Safe to use from several threads."""

    def __init__(self, lines: int = 30, *, width: int = 2000) -> None:
        self._lines: deque[bytes] = deque(maxlen=lines)
        self._rest: dict[str, bytes] = {}
        self._width = width
        self._lock = threading.Lock()

    def feed(self, chunk: bytes, stream: str = "") -> None:
        """Take what came on a stream, wherever it was cut."""
        with self._lock:
            *lines, rest = (self._rest.get(stream, b"") + chunk).split(b"\n")
            self._rest[stream] = self._cut(rest)
            self._lines.extend(self._cut(line) for line in lines)

    def _cut(self, line: bytes) -> bytes:
        return line[-self._width :]  # its end: what a progress bar that never ends its line shows now, and what an exception says

    def __str__(self) -> str:
        with self._lock:
            return "\n".join(line.decode(errors="replace") for line in [*self._lines, *filter(None, self._rest.values())])
