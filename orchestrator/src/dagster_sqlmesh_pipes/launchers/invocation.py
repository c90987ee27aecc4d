"""What the invocations of all launchers have in common: output, stopping, and the end."""

import abc
import signal
import threading
from collections.abc import Sequence

from dagster_sqlmesh_pipes.launchers.base import ExitStatus, Invocation
from dagster_sqlmesh_pipes.launchers.output import RunnerOutput
from dagster_sqlmesh_pipes.launchers.shutdown import Shutdown

__all__ = ["RunnerInvocation"]


class RunnerInvocation(Invocation):
    """A runner whose output is read by threads of this process.

    A subclass fills `_output`, sends the runner a signal where `_signal` is called, and calls
    `_finish` once, when the runner has ended and all its output is in.
    """

    def __init__(self, stop_steps: Sequence[tuple[signal.Signals, float]]) -> None:
        self._output = RunnerOutput()
        self._exit: ExitStatus | None = None
        self._ended = threading.Event()
        self._shutdown = Shutdown(self._signal, stop_steps, self._ended)

    def read(self) -> bytes | None:
        """Wait for the next message; see `Invocation.read`."""
        return self._output.read()

    def stop(self) -> None:
        """Start to stop the runner; see `Invocation.stop`."""
        self._shutdown.request()

    def wait(self) -> ExitStatus:
        """Wait for the runner's end and return its status."""
        self._ended.wait()
        assert self._exit is not None
        return self._exit

    def log_tail(self) -> str:
        """Return the log's last lines; empty when there are none."""
        return self._output.log_tail()

    def _finish(self, status: ExitStatus) -> None:
        self._exit = status
        self._ended.set()
        self._output.end()

    @abc.abstractmethod
    def _signal(self, number: signal.Signals) -> None:
        """Send the runner a signal. Must not raise because the runner has ended."""
