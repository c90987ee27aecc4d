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
    assert supervise(lambda: 7, stop=StopRequest(), cancel=pytest.fail, abandon=pytest.fail, grace=60) == 7


def test_the_work_is_done_in_a_thread_of_its_own_so_that_signals_reach_the_main_one() -> None:
    def work() -> int:
        return int(threading.current_thread() is threading.main_thread())

    assert supervise(work, stop=StopRequest(), cancel=pytest.fail, abandon=pytest.fail, grace=60) == 0


def test_it_cancels_again_and_again_until_the_work_ends() -> None:
    stop, cancelled = StopRequest(), threading.Semaphore(0)

    def work() -> int:
        stop.request("enough", 130)
        for _ in range(3):
            cancelled.acquire()
        return 130

    assert supervise(work, stop=stop, cancel=cancelled.release, abandon=pytest.fail, grace=3600) == 130


@pytest.mark.usefixtures("handlers")
def test_a_signal_wakes_the_main_thread_before_pythons_handler_runs_there() -> None:
    """The system may hand it to another thread, and then nothing else gets the main one out of its wait."""
    stop = StopRequest()
    stop.watch_signals()

    signal.raise_signal(signal.SIGTERM)

    assert os.read(stop._read, 10) == bytes([signal.SIGTERM, 0]), "the wakeup, then what the handler wrote"


def test_work_that_does_not_end_is_abandoned_when_the_grace_is_over() -> None:
    stop, never, reasons = StopRequest(), threading.Event(), list[str]()

    def work() -> int:
        stop.request("enough", 130)
        never.wait()
        return 0

    assert supervise(work, stop=stop, cancel=lambda: None, abandon=reasons.append, grace=0.01) is None
    assert reasons == ["it did not come to an end within 0.01 s"]
    never.set()


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_a_request_with_the_shells_exit_code(number: signal.Signals, code: int) -> None:
    stop = StopRequest()
    stop.watch_signals()

    signal.raise_signal(number)

    assert (stop.requested, stop.exit_code, stop.reason, stop.urgent) == (True, code, f"{number.name} received", False)


@pytest.mark.usefixtures("handlers")
def test_a_second_signal_is_urgent_but_the_first_reason_stays() -> None:
    stop = StopRequest()
    stop.watch_signals()

    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)

    assert (stop.urgent, stop.exit_code) == (True, 130)


@pytest.mark.usefixtures("handlers")
def test_a_signal_after_the_end_of_stdin_is_not_urgent() -> None:
    """A launcher may close stdin and send a signal as well."""
    stop = StopRequest()
    stop.watch_signals()

    stop.request("standard input was closed", 130)
    signal.raise_signal(signal.SIGINT)

    assert (stop.urgent, stop.reason) == (False, "standard input was closed")


def test_the_end_of_standard_input_is_a_request() -> None:
    reading, writing = os.pipe()
    saved = os.dup(0)
    os.dup2(reading, 0)
    try:
        stop = StopRequest()
        stop.watch_stdin()
        os.write(writing, b"what is written there means nothing")
        os.close(writing)
        stop.sleep(None)
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        os.close(reading)

    assert stop.requested
