"""What a launcher is: it starts a runner, lets it be read and stopped, and cleans up. It knows nothing of SQLMesh."""

import abc
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from dagster_pipes import PipesContextData
from pydantic import BaseModel, ConfigDict

__all__ = ["EXCLUSIVE_LABEL", "Exit", "Invocation", "LaunchRequest", "Launcher", "LogTail"]


EXCLUSIVE_LABEL = "dagster-sqlmesh-pipes.exclusive"
"""The label that names what a runner must have to itself. Whoever holds it may stop what an earlier holder left at work: steps take turns, so
a runner with the same label that still runs belongs to a step that is dead."""


@dataclass(frozen=True, kw_only=True)
class LaunchRequest:
    """What to start.

    `arguments` follow the runner's executable (`["run", "--environment", "prod"]`). `context` is handed to the runner as
    Pipes context. `labels` say who asked (`dagster/run_id`, `dagster/step_key`, `dagster/code_location`, …): launchers put them
    where their engine keeps such things, so that a runner can be found again.
    """

    arguments: Sequence[str]
    context: PipesContextData
    labels: Mapping[str, str] = field(default_factory=dict)


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

    model_config = ConfigDict(frozen=True, extra="forbid")

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
    """The last lines of a log, kept while it passes by. Safe to use from several threads."""

    def __init__(self, lines: int = 30) -> None:
        self._lines: deque[str] = deque(maxlen=lines)
        self._rest: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def feed(self, chunk: bytes, stream: str = "") -> None:
        """Take what came on a stream, wherever it was cut."""
        with self._lock:
            *lines, rest = (self._rest.get(stream, b"") + chunk).split(b"\n")
            self._rest[stream] = rest[-4096:]  # bytes; a progress bar may never end its line
            self._lines.extend(line.decode(errors="replace") for line in lines)

    def __str__(self) -> str:
        with self._lock:
            return "\n".join([*self._lines, *(rest.decode(errors="replace") for rest in self._rest.values() if rest)])
