"""Waiting for a run or for the request to stop it."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from sqlmesh_runner.stop import StopRequest, supervise


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    signal.set_wakeup_fd(-1)


def test_the_result_of_the_work_is_given_back() -> None:
    assert (
        supervise(lambda: 7, stop=StopRequest(), cancel=pytest.fail, abandon=pytest.fail, grace=60)
        == 7
    )


def test_work_runs_outside_the_main_thread() -> None:
    def work() -> int:
        return int(threading.current_thread() is threading.main_thread())

    assert (
        supervise(work, stop=StopRequest(), cancel=pytest.fail, abandon=pytest.fail, grace=60) == 0
    )


def test_it_cancels_again_and_again_until_the_work_ends() -> None:
    stop, cancelled = StopRequest(), threading.Semaphore(0)

    def work() -> int:
        stop.request("enough", 130)
        for _ in range(3):
            cancelled.acquire()
        return 130

    assert (
        supervise(work, stop=stop, cancel=cancelled.release, abandon=pytest.fail, grace=3600) == 130
    )


@pytest.mark.usefixtures("handlers")
def test_signal_wakes_the_main_thread() -> None:
    """The system may deliver it to another thread; nothing else then wakes the main one."""
    stop = StopRequest()
    stop.watch_signals()

    signal.raise_signal(signal.SIGTERM)

    assert os.read(stop._read, 10) == bytes([signal.SIGTERM, 0]), (
        "the wakeup, then what the handler wrote"
    )


def test_work_beyond_the_grace_period_is_abandoned() -> None:
    stop, never, reasons = StopRequest(), threading.Event(), list[str]()

    def work() -> int:
        stop.request("enough", 130)
        never.wait()
        return 0

    assert (
        supervise(work, stop=stop, cancel=lambda: None, abandon=reasons.append, grace=0.01) is None
    )
    assert reasons == ["SQLMesh did not end within 0.01 s"]
    never.set()


def test_urgent_stop_waits_for_no_work_and_no_blocked_cancel() -> None:
    stop, never, reasons = StopRequest(), threading.Event(), list[str]()
    cancelling = threading.Event()

    def cancel() -> None:
        cancelling.set()
        never.wait()

    def work() -> int:
        stop.request("the lock was lost", 4)
        stop.hurry("nothing keeps others out")
        never.wait()
        return 0

    assert supervise(work, stop=stop, cancel=cancel, abandon=reasons.append, grace=3600) is None
    assert (reasons, cancelling.is_set()) == (["nothing keeps others out"], True)
    never.set()


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_a_request_with_the_shells_exit_code(number: signal.Signals, code: int) -> None:
    stop = StopRequest()
    stop.watch_signals()

    signal.raise_signal(number)

    assert (stop.requested, stop.exit_code, stop.reason, stop.urgent) == (
        True,
        code,
        f"{number.name} received",
        None,
    )


@pytest.mark.usefixtures("handlers")
def test_a_second_signal_is_urgent_but_the_first_reason_stays() -> None:
    stop = StopRequest()
    stop.watch_signals()

    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)

    assert (stop.urgent, stop.exit_code) == ("a second signal arrived", 130)


@pytest.mark.usefixtures("handlers")
def test_a_signal_after_the_end_of_stdin_is_not_urgent() -> None:
    """A launcher may close stdin and send a signal as well."""
    stop = StopRequest()
    stop.watch_signals()

    stop.request("standard input was closed", 130)
    signal.raise_signal(signal.SIGINT)

    assert (stop.urgent, stop.reason) == (None, "standard input was closed")


def test_the_end_of_standard_input_is_a_request() -> None:
    reading, writing = os.pipe()
    saved = os.dup(0)
    os.dup2(reading, 0)
    try:
        stop = StopRequest()
        stop.watch_starter()
        os.write(writing, b"what is written there means nothing")
        os.close(writing)
        stop.sleep(None)
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        os.close(reading)

    assert stop.requested
