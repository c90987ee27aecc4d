"""Stop a run: signals and the end of standard input, and the main thread that waits for either."""

import itertools
import multiprocessing
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Final

__all__ = ["StopRequest", "kill_children", "restore_signals_in_forks", "supervise"]

_CANCEL_INTERVAL: Final = 0.2  # seconds; the first cancel may come between two statements
_POLL_INTERVAL: Final = 0.2  # seconds
_PARENT_INTERVAL: Final = 1.0  # seconds
_LAST_CANCEL: Final = 1.0  # seconds; a database that does not answer must not keep the process
_GONE_EXIT_CODE: Final = 130
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether, why and how urgently the runner was asked to stop.

    Attributes are plain values, written once: signal handlers and threads use them without a lock.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.exit_code = 0
        self.urgent: str | None = None
        """Why to exit at once, without waiting for what is running."""
        self._signals = itertools.count()
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)

    @property
    def requested(self) -> bool:
        """Return whether the runner was asked to stop."""
        return self.reason is not None

    def request(self, reason: str, exit_code: int) -> None:
        """Ask the runner to stop. The first reason is kept."""
        if self.reason is None:
            self.exit_code = exit_code
            self.reason = reason
        self.wake()

    def hurry(self, reason: str) -> None:
        """Ask a runner that is to stop not to wait for what is running."""
        self.urgent = self.urgent or reason
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
        """Wait in a thread other than the main one, until a stop is requested at most."""
        until = time.monotonic() + seconds
        while not self.requested and time.monotonic() < until:
            time.sleep(_POLL_INTERVAL)

    def watch_signals(self) -> None:
        """Stop on SIGINT and SIGTERM. Main thread only.

        The system may deliver a signal to any thread. Python's handlers run in the main thread,
        which may wait in `sleep`: the wakeup descriptor ends that.
        """
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)
        restore_signals_in_forks()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if next(self._signals):  # one step: this handler may be interrupted by the other signal's
            self.urgent = "a second signal arrived"
        self.request(f"{signal.Signals(number).name} received", 128 + number)

    def watch_starter(self) -> None:
        """Stop when the process that started the runner is gone.

        Standard input ends then, unless another process inherited its other end; and the runner
        gets another parent, unless something between the two lives on.
        """
        for watch in (self._read_stdin, self._watch_parent):
            threading.Thread(target=watch, name="starter-watch", daemon=True).start()

    def _read_stdin(self) -> None:
        try:
            while os.read(0, 4096):
                pass
        except OSError:
            pass
        self.request(
            "standard input was closed: the process that started the runner is gone",
            _GONE_EXIT_CODE,
        )

    def _watch_parent(self) -> None:
        parent = os.getppid()
        while os.getppid() == parent:
            time.sleep(_PARENT_INTERVAL)
        self.request(f"the process that started the runner ({parent}) is gone", _GONE_EXIT_CODE)


def restore_signals_in_forks() -> None:
    """Restore Python's own signal handlers in forked children, as under `sqlmesh run`.

    With the runner's, SIGTERM does not end a child: a `multiprocessing.Pool` of a Python model
    would wait for its workers without end. The signals are blocked meanwhile, so that one that
    arrives between the fork and the change of handlers ends the child, too.
    """
    thread = threading.local()

    def block() -> None:
        thread.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)

    def unblock() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, thread.mask)

    def restore() -> None:
        signal.set_wakeup_fd(-1)
        # A KeyboardInterrupt would be lost in here.
        is_interrupted = signal.SIGINT in signal.sigpending()
        signal.signal(
            signal.SIGINT, signal.SIG_DFL if is_interrupted else signal.default_int_handler
        )
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        unblock()

    os.register_at_fork(before=block, after_in_parent=unblock, after_in_child=restore)


def kill_children() -> None:
    """End the children that `multiprocessing` started in this process, before `os._exit`."""
    for child in multiprocessing.active_children():
        child.kill()


def supervise(
    work: Callable[[], int],
    *,
    stop: StopRequest,
    cancel: Callable[[], None],
    abandon: Callable[[str], None],
    grace: float,
) -> int | None:
    """Run `work` in a thread, and wait for its end in the main thread, where signals arrive.

    After a stop is requested, `cancel` is called repeatedly until `work` has ended, in a thread of
    its own because it may block. If that takes longer than `grace` seconds, or is urgent, `abandon`
    is called with the reason.

    Returns: what `work` returned; None if it was abandoned. The process must then end with
        `os._exit`, because the thread can't be stopped.
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
    canceller = threading.Thread(target=cancel)
    while not ended.is_set():
        stop.sleep(None if deadline is None else _CANCEL_INTERVAL)
        if not stop.requested:
            continue
        deadline = deadline or time.monotonic() + grace
        if not canceller.is_alive():
            canceller = threading.Thread(target=cancel, name="sqlmesh-cancel", daemon=True)
            canceller.start()
        if stop.urgent or time.monotonic() > deadline:
            canceller.join(_LAST_CANCEL)
            abandon(stop.urgent or f"SQLMesh did not end within {grace:g} s")
            return None
    worker.join()
    return result[0] if result else 1
