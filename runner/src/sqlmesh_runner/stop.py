"""Asking a run to stop: who may ask, and how the main thread waits for the run or for the request."""

import itertools
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Final

__all__ = ["StopRequest", "supervise"]

_CANCEL_EVERY: Final = 0.2  # seconds; a batch may be between two statements when it is cancelled first
_LOOK_EVERY: Final = 0.2  # seconds
_STDIN_EXIT_CODE: Final = 130


class StopRequest:
    """Whether, why and how urgently the runner was asked to stop.

    Attributes are plain values, written once: signal handlers and threads may touch them without a lock.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.exit_code = 0
        self.urgent = False
        """A second signal came: leave at once."""
        self._signals = itertools.count()
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)

    @property
    def requested(self) -> bool:
        """Tell whether someone asked to stop."""
        return self.reason is not None

    def request(self, reason: str, exit_code: int) -> None:
        """Ask to stop. The first reason stays."""
        if self.reason is None:
            self.exit_code = exit_code
            self.reason = reason
        self.wake()

    def wake(self) -> None:
        """Wake the main thread. Safe in signal handlers and threads."""
        with suppress(BlockingIOError):  # full of wakes already
            os.write(self._write, b"\0")

    def sleep(self, timeout: float | None) -> None:
        """Wait for `wake` in the main thread, at most `timeout` seconds."""
        ready, _, _ = select.select([self._read], [], [], timeout)
        if ready:
            os.read(self._read, 4096)

    def pause(self, seconds: float) -> None:
        """Wait in a thread that is not the main one: so long, or until stopping is asked for."""
        until = time.monotonic() + seconds
        while not self.requested and time.monotonic() < until:
            time.sleep(_LOOK_EVERY)

    def watch_signals(self) -> None:
        """Take SIGINT and SIGTERM as requests. Main thread only.

        The system may hand a signal to any thread; Python's handlers run in the main one, which may sit in `sleep`. The wakeup descriptor
        gets it out of there.
        """
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if next(self._signals):  # one step: this handler may be interrupted by the other signal's
            self.urgent = True
        self.request(f"{signal.Signals(number).name} received", 128 + number)

    def watch_stdin(self) -> None:
        """Take the end of standard input as a request: the process that holds its other end is gone."""
        threading.Thread(target=self._read_stdin, name="stdin-watch", daemon=True).start()

    def _read_stdin(self) -> None:
        try:
            while os.read(0, 4096):
                pass
        except OSError:
            pass
        self.request("standard input was closed (the process that started this one is gone)", _STDIN_EXIT_CODE)


def supervise(
    work: Callable[[], int], *, stop: StopRequest, cancel: Callable[[], None], abandon: Callable[[str], None], grace: float
) -> int | None:
    """Run `work` in a thread of its own and wait for its end, in the main thread, where signals arrive.

    Once stopping is asked for, `cancel` is called again and again until `work` has ended. If that takes longer than `grace` seconds, or
    a second signal comes, `abandon` is told why and the wait is over.

    Returns: what `work` returned; None if it was abandoned (the process must be left with `os._exit` then).
    """
    result: list[int] = []
    ended = threading.Event()

    def run() -> None:
        try:
            result.append(work())
        finally:
            ended.set()
            stop.wake()

    worker = threading.Thread(target=run, name="sqlmesh", daemon=True)
    worker.start()
    deadline: float | None = None
    while not ended.is_set():
        stop.sleep(None if deadline is None else _CANCEL_EVERY)
        if not stop.requested:
            continue
        deadline = deadline or time.monotonic() + grace
        if stop.urgent or time.monotonic() > deadline:
            abandon("a second signal came" if stop.urgent else f"it did not come to an end within {grace:g} s")
            return None
        cancel()
    worker.join()
    return result[0] if result else 1
