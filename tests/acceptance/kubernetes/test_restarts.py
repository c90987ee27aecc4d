"""What happens to a run when the API server or the kubelet is restarted, and when a log is rotated.

Nothing else may use the cluster meanwhile.
"""

import os
from itertools import chain

import pytest
from acceptance.invocations import messages_of, payloads_of, request_for, wait_for
from acceptance.kubernetes.cluster import restart
from acceptance.kubernetes.conftest import MakeLauncher

from dagster_sqlmesh_pipes.launchers.base import ExitStatus

pytestmark = pytest.mark.kubernetes

needs_restart = pytest.mark.skipif(
    "TEST_K8S_RESTART" not in os.environ,
    reason="TEST_K8S_RESTART names no command that restarts a program of the cluster",
)


@needs_restart
@pytest.mark.parametrize(
    ("program", "options"),
    [("apiserver", ["12", "KILL"]), ("apiserver", ["0", "TERM"]), ("kubelet", ["8", "KILL"])],
)
def test_restart_of_the_cluster_loses_and_doubles_nothing(
    talker: MakeLauncher, program: str, options: list[str]
) -> None:
    with talker().launch(request_for("many", "1500", "1000", "75000")) as runner:
        wait_for(runner, "opened")
        with restart(program, *options) as restarting:
            messages, sequence = messages_of(runner, after=0)
            assert runner.wait() == ExitStatus(code=0)
        assert restarting.returncode == 0
    numbers = [int(payload.split()[0]) for payload in payloads_of(messages)]
    assert numbers == list(range(1500))
    assert sequence.missing == []


def test_rotated_log_is_complete_or_the_gap_is_known(talker: MakeLauncher) -> None:
    """The kubelet rotates above 10 MiB, and only the current file can be read."""
    with talker().launch(request_for("many", "40000", "1000", "2000000")) as runner:
        messages, sequence = messages_of(runner)
        assert runner.wait() == ExitStatus(code=0)
    numbers = [message["seq"] for message in messages]
    assert len(numbers) == len(set(numbers))
    assert sorted([*numbers, *chain.from_iterable(sequence.missing)]) == list(range(40_002))
