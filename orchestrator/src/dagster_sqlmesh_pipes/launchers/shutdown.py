"""Stopping a runner: ever stronger signals, each with its grace period."""

import signal
import threading
from collections.abc import Callable, Sequence

__all__ = ["Shutdown", "signal_steps"]


def signal_steps(*, stop_grace: float, kill_grace: float) -> Sequence[tuple[signal.Signals, float]]:
    """Return the signals that stop a runner, each with the seconds before the next one."""
    return (
        (signal.SIGINT, stop_grace),
        (signal.SIGTERM, kill_grace),
        (signal.SIGKILL, 0.0),
    )


class Shutdown:
    """Stop a runner once, in a thread of its own.

    `send` sends it a signal. It must not raise because the runner has ended. `ended` is set when
    the runner has.
    """

    def __init__(
        self,
        send: Callable[[signal.Signals], None],
        steps: Sequence[tuple[signal.Signals, float]],
        ended: threading.Event,
    ) -> None:
        self._send = send
        self._steps = steps
        self._ended = ended
        self._lock = threading.Lock()
        self.is_requested = False
        self.last_signal: signal.Signals | None = None

    def request(self) -> None:
        """Start to stop the runner, unless that has been requested before. Returns at once."""
        with self._lock:
            if self.is_requested:
                return
            self.is_requested = True
        threading.Thread(target=self._escalate, name="sqlmesh-stop", daemon=True).start()

    def _escalate(self) -> None:
        for number, grace in self._steps:
            self.last_signal = number
            self._send(number)
            if self._ended.wait(grace):
                return
