"""Children that a Python model forks, in a process that handles signals as the runner does."""

import subprocess
import sys
import textwrap

import pytest
from patience import PATIENCE

_SETUP = """
    import multiprocessing, os, signal, threading, time
    from sqlmesh_runner.stop import StopRequest
    stop = StopRequest()
    stop.watch_signals()
    fork = multiprocessing.get_context("fork")
    def in_thread(work):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
"""

_TERMINATED = """
    def work():
        child = fork.Process(target=time.sleep, args=(3600,))
        child.start()
        child.terminate()
        child.join()
        print(child.exitcode == -signal.SIGTERM, stop.requested)
    in_thread(work)
"""

_POOLS = """
    def work():
        for _ in range(100):
            with fork.Pool(2) as pool:
                assert pool.map(abs, [-1, -2, -3]) == [1, 2, 3]
    in_thread(work)
    print(stop.requested)
"""

_INTERRUPTED = """
    def work():
        child = fork.Process(target=time.sleep, args=(3600,))
        child.start()
        os.kill(child.pid, signal.SIGINT)
        child.join()
        print(child.exitcode in (1, -signal.SIGINT), stop.requested)
    in_thread(work)
"""

_PARENT = """
    in_thread(lambda: fork.Process(target=abs, args=(1,)).start())
    os.kill(os.getpid(), signal.SIGTERM)
    stop.sleep(None)
    print(stop.reason)
"""


def _run(script: str) -> str:
    program = textwrap.dedent(_SETUP) + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("script", "output"),
    [
        pytest.param(_TERMINATED, "True False", id="SIGTERM ends it"),
        pytest.param(_INTERRUPTED, "True False", id="SIGINT interrupts it"),
        pytest.param(_POOLS, "False", id="pools end"),
        pytest.param(_PARENT, "SIGTERM received", id="the runner still stops"),
    ],
)
def test_forked_child_has_default_signals(script: str, output: str) -> None:
    assert _run(script) == output
