"""The launcher on a real cluster, with a stand-in for the runner that does what it seldom does."""

import json
import os
import re
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import dagster as dg
import patience
import pytest
from acceptance.invocations import messages_of, payloads_of, request_for, wait_for
from acceptance.kubernetes.cluster import MEMORY, Namespace
from acceptance.kubernetes.conftest import MakeLauncher

from dagster_sqlmesh_pipes.definitions import sqlmesh_definitions_factory
from dagster_sqlmesh_pipes.errors import LaunchError
from dagster_sqlmesh_pipes.launchers.base import ExitStatus, Invocation
from dagster_sqlmesh_pipes.launchers.kubernetes import runners
from dagster_sqlmesh_pipes.launchers.kubernetes.pod import pod_manifest
from dagster_sqlmesh_pipes.launchers.labels import LOCK_LABEL
from dagster_sqlmesh_pipes.launchers.leftovers import remove_orphans, stop_leftovers

pytestmark = pytest.mark.kubernetes

CONTRACT = Path(__file__).resolve().parents[2] / "contract"


def pod_name(invocation: Invocation) -> str:
    return invocation.name.split()[1]


# Streaming


def test_60_mb_at_full_speed_arrive_or_are_named(talker: MakeLauncher) -> None:
    """On a busy node the kubelet may rotate away what was written before the first read."""
    with talker().launch(request_for("many", "60000", "1000")) as runner:
        messages, sequence = messages_of(runner)
        assert runner.wait() == ExitStatus(code=0)
    missing = sum(len(numbers) for numbers in sequence.missing)
    assert (len(messages) + missing, sequence.malformed) == (60_002, [])
    assert messages[-1]["method"] == "closed"


def test_long_messages_survive_noise_on_stderr(talker: MakeLauncher) -> None:
    """Kubernetes cuts lines above 16 KiB, and lines of stderr fall between the pieces."""
    with talker().launch(request_for("noisy", "20", "200000")) as runner:
        messages, sequence = messages_of(runner)
        assert runner.wait() == ExitStatus(code=0)
    assert [len(payload) for payload in payloads_of(messages)] == [200_000] * 20
    assert (sequence.missing, sequence.malformed) == ([], [])


def test_line_after_a_long_message_goes_to_the_log(
    talker: MakeLauncher, capfd: pytest.CaptureFixture[str]
) -> None:
    with talker().launch(request_for("last-words")) as runner:
        messages, sequence = messages_of(runner)
        assert runner.wait() == ExitStatus(code=0)
        assert runner.log_tail() == "the last line"
    assert payloads_of(messages) == ["w" * 100_000]
    assert sequence.malformed == []
    assert capfd.readouterr().out == "the last line\n"


def test_runner_that_knows_no_parts_is_read(talker: MakeLauncher) -> None:
    """Before Kubernetes 1.23, a line above 16 KiB has timestamps inside."""
    launcher = talker(env={"TALK_PART": "0"})
    with launcher.launch(request_for("many", "3", "1000")) as runner:
        messages, sequence = messages_of(runner)
    assert (len(messages), sequence.missing, sequence.malformed) == (5, [], [])
    with launcher.launch(request_for("big", "100000")) as runner:
        messages, sequence = messages_of(runner)
        assert runner.wait() == ExitStatus(code=0)
    assert payloads_of(messages) == ["x" * 100_000]
    assert (sequence.missing, sequence.malformed) == ([], [])


def test_silence_of_several_read_timeouts_loses_nothing(talker: MakeLauncher) -> None:
    with talker().launch(request_for("pause", "12")) as runner:
        messages, sequence = messages_of(runner)
        assert runner.wait() == ExitStatus(code=0)
    assert [message["method"] for message in messages] == ["opened", "closed"]
    assert sequence.missing == []


def test_messages_arrive_while_the_runner_writes(
    talker: MakeLauncher, namespace: Namespace
) -> None:
    with talker().launch(request_for("clock", "6000")) as runner:
        wait_for(runner, "report_custom_message")
        assert namespace.pod(pod_name(runner))["status"]["phase"] == "Running"


def test_large_context_reaches_the_container(talker: MakeLauncher) -> None:
    models = {os.urandom(16).hex(): {"asset_key": os.urandom(16).hex()} for _ in range(14_000)}
    with talker().launch(request_for("models", models=models)) as runner:
        messages, _ = messages_of(runner)
        assert runner.wait() == ExitStatus(code=0), runner.log_tail()
    assert messages[1]["params"] == {"payload": max(models), "count": 14_000}


def test_context_that_etcd_refuses_is_an_error_with_advice(talker: MakeLauncher) -> None:
    models = {"noise": {"asset_key": os.urandom(900_000).hex()}}
    with pytest.raises(LaunchError, match=r"a container can be given .* Select fewer assets"):
        talker().launch(request_for("models", models=models))


# The end


@pytest.mark.parametrize(
    ("words", "code"), [(("finish",), 0), (("many", "3000", "1000"), 0), (("fail",), 3)]
)
def test_runner_that_ends_at_once_is_read_whole(
    talker: MakeLauncher, words: tuple[str, ...], code: int
) -> None:
    with talker().launch(request_for(*words)) as runner:
        _, sequence = messages_of(runner)
        assert runner.wait() == ExitStatus(code=code)
    assert (sequence.missing, sequence.malformed) == ([], [])


def test_runner_that_crashes_before_its_first_message(talker: MakeLauncher) -> None:
    with talker().launch(request_for("crash")) as runner:
        assert runner.read() is None
        end = runner.wait()
        assert runner.log_tail() == "ImportError: no such thing"
    assert end.code == 1
    assert "`sqlmesh-runner` is the ENTRYPOINT" in (end.reason or "")


def test_out_of_memory_names_the_limit(talker: MakeLauncher) -> None:
    with talker(resources={"limits": {"memory": "48Mi"}}).launch(request_for("eat")) as runner:
        assert runner.wait() == ExitStatus(code=137, reason="killed: out of memory (limit 48Mi)")


def test_sidecar_that_never_ends_is_not_waited_for(talker: MakeLauncher) -> None:
    """An injected sidecar (a service mesh's) keeps the pod's phase at Running."""
    sidecar = {
        "name": "mesh",
        "image": "python:3.11-slim-bookworm",
        "command": ["sleep", "600"],
        "resources": MEMORY,
    }
    launcher = talker()
    manifest: dict[str, Any] = {}

    def injected(*args: Any, **kwargs: Any) -> dict[str, Any]:
        manifest.update(pod_manifest(*args, **kwargs))
        manifest["spec"]["containers"].insert(0, sidecar)
        manifest["spec"]["terminationGracePeriodSeconds"] = 1
        return manifest

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runners, "pod_manifest", injected)
        with launcher.launch(request_for("finish")) as runner:
            messages, _ = messages_of(runner)
            assert runner.wait() == ExitStatus(code=0)
    assert messages[-1]["method"] == "closed"


# Stopping


def test_stop_lets_the_runner_report_and_keeps_its_log(talker: MakeLauncher) -> None:
    with talker().launch(request_for("wait-for-signal")) as runner:
        wait_for(runner, "opened")
        runner.stop()
        runner.stop()
        messages, _ = messages_of(runner)
        assert runner.wait() == ExitStatus(code=143)
    assert payloads_of(messages) == ["SIGTERM"]


def test_runner_that_does_not_stop_is_killed(talker: MakeLauncher) -> None:
    with talker(stop_grace=1, kill_grace=1).launch(request_for("stubborn")) as runner:
        wait_for(runner, "opened")
        runner.stop()
        end = runner.wait()
    assert end == ExitStatus(
        code=137, reason="killed: it did not stop within 2 seconds of being asked to"
    )


def test_stop_before_a_handler_is_installed_ends_the_runner(talker: MakeLauncher) -> None:
    """As process 1, Python would ignore SIGTERM until its handler is there."""
    with talker(stop_grace=300).launch(request_for("pause", "600")) as runner:
        runner.stop()
        began = time.monotonic()
        runner.wait()
    assert time.monotonic() - began < 200  # its grace period is longer than 300


def test_leaving_the_context_stops_and_removes_the_pod(talker: MakeLauncher) -> None:
    with talker().launch(request_for("wait-for-signal")) as runner:
        wait_for(runner, "opened")
    assert runner.wait().code == 143


def test_interrupt_during_launch_leaves_no_pod(
    talker: MakeLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runners, "wait_for_container", interrupt)
    with pytest.raises(KeyboardInterrupt):
        talker().launch(request_for("stubborn"))


@pytest.mark.parametrize("options", [[], ["--force", "--grace-period=0"]])
def test_pod_deleted_from_outside_ends_the_wait(
    talker: MakeLauncher, namespace: Namespace, options: list[str]
) -> None:
    with talker(stop_grace=1, kill_grace=1).launch(request_for("stubborn")) as runner:
        wait_for(runner, "opened")
        namespace.kubectl("delete", "pod", pod_name(runner), "--wait=false", *options)
        end = runner.wait()
    assert end.code in (137, 255)
    assert "deleted" in (end.reason or "")


# Not started


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"image": "Not A Name"}, ["InvalidImageName"]),
        (
            {"image": "nothing-of-the-kind:1", "image_pull_policy": "Never"},
            ["ErrImageNeverPull", "Load the image on the node"],
        ),
        ({"command": ["no-such-command"]}, ["no-such-command", "ENTRYPOINT"]),
        ({"security_context": {}}, ["runAsNonRoot", "run_as_user"]),
        ({"env_secrets": ["no-such-secret"]}, ['secret "no-such-secret" not found', "Create the"]),
        (
            {"pod_spec_config": {"node_selector": {"disk": "none"}}, "start_timeout": 20},
            ["Unschedulable", "match", "add nodes"],
        ),
        ({"namespace": "no-such-namespace"}, ["no-such-namespace", "Create the namespace"]),
        ({"resources": {"limits": {"memory": "a lot"}}}, ["a lot", "launcher's settings"]),
        ({"container_config": {"memory": "1Gi"}}, ["container_config has 'memory'"]),
        ({"kubeconfig_file": "/nowhere"}, ["No Kubernetes cluster is configured", "KUBECONFIG"]),
        ({"kube_context": "elsewhere"}, ["elsewhere"]),
    ],
)
def test_pod_that_cannot_start_is_one_clear_error(
    talker: MakeLauncher, fields: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(LaunchError) as caught:
        talker(**fields).launch(request_for("finish"))
    for expected in words:
        assert expected in str(caught.value)


def test_quota_refusal_is_one_clear_error(talker: MakeLauncher, namespace: Namespace) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"}}
    namespace.apply({**quota, "spec": {"hard": {"requests.storage": "1Gi", "count/pods": "0"}}})
    try:
        patience.wait_until(
            lambda: (
                "count/pods"
                in namespace.kubectl("get", "quota", "small", "-o", "jsonpath={.status.used}")
            ),
            "the quota is in force",
        )
        with pytest.raises(LaunchError, match=r"exceeded quota: small(.|\n)*namespace's quota"):
            talker().launch(request_for("finish"))
    finally:
        namespace.kubectl("delete", "quota", "small")


# Cleaning up


def test_failed_pod_is_kept_where_asked(
    talker: MakeLauncher, namespace: Namespace, mine: dict[str, str]
) -> None:
    launcher = talker(keep="failed")
    with launcher.launch(request_for("finish", run_id="well")) as runner:
        assert runner.wait().code == 0
    job = "a job with a name that is longer than the 63 characters that a label may have"
    with launcher.launch(request_for("crash", run_id="badly", step=job)) as runner:
        assert runner.wait().code == 1
    (kept,) = launcher.list_runners({**mine, "dagster/step_key": job})
    assert (kept.labels["dagster/run_id"], kept.is_running, kept.keep) == ("badly", False, "failed")
    assert namespace.kubectl("logs", kept.name) == "ImportError: no such thing\n"
    launcher.remove_runner(kept)
    launcher.remove_runner(kept)
    patience.wait_until(lambda: not launcher.list_runners(mine), "both pods are deleted")


def test_leftovers_of_finished_runs_are_stopped(
    talker: MakeLauncher, mine: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    launcher = talker(stop_grace=3, kill_grace=1)
    lock = {LOCK_LABEL: "a lock / with a name that labels can't hold"}

    def running(run_id: str) -> Invocation:
        request = request_for("wait-for-signal", run_id=run_id)
        request.labels.update(lock)  # type: ignore[attr-defined]
        return launcher.launch(request)

    with dg.DagsterInstance.ephemeral() as instance:
        left = [running(finished_run(instance)), running("another-instances")]
        stop_leftovers(launcher, {**lock, "dagster/run_id": "new"}, instance)
        found = launcher.list_runners(mine)
        assert [runner.labels["dagster/run_id"] for runner in found] == ["another-instances"]
        assert "run another-instances has the same lock key" in caplog.text
        for invocation in left:
            invocation.__exit__(None, None, None)


def test_orphans_are_the_pods_of_finished_runs(talker: MakeLauncher, mine: dict[str, str]) -> None:
    launcher = talker(stop_grace=3, kill_grace=1)
    with dg.DagsterInstance.ephemeral() as instance:
        finished = finished_run(instance)
        ours = [
            launcher.launch(request_for("wait-for-signal", run_id=run_id))
            for run_id in (finished, "unknown")
        ]
        (orphan,) = remove_orphans(instance, launcher, labels=mine)
        assert (orphan.run_id, orphan.reason) == (finished, "its run has finished (CANCELED)")
        found = launcher.list_runners(mine)
        assert [runner.labels["dagster/run_id"] for runner in found] == ["unknown"]
        for invocation in ours:
            invocation.__exit__(None, None, None)


def finished_run(instance: dg.DagsterInstance) -> str:
    @dg.job
    def nothing() -> None:
        """Do nothing."""

    run = instance.create_run_for_job(nothing)
    instance.report_run_canceled(run)
    return run.run_id


# Outside of runs, and beside them


def test_run_to_end_returns_the_output_alone(
    talker: MakeLauncher, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "warehouse"}}
    namespace.apply({**secret, "stringData": {"PASSWORD": "hush"}})
    monkeypatch.setenv("PASSED", "on")
    launcher = talker(env_secrets=["warehouse"], pass_env=["PASSED", "UNSET_ONE"])
    environment = json.loads(launcher.run_to_end(["show-env"]))
    assert (environment["PASSWORD"], environment["PASSED"]) == ("hush", "on")
    assert "UNSET_ONE" not in environment
    with pytest.raises(LaunchError, match=r"exit code 1(.|\n)*ImportError: no such thing"):
        launcher.run_to_end(["crash"])


def test_run_to_end_that_takes_too_long_is_an_error(talker: MakeLauncher) -> None:
    with pytest.raises(LaunchError, match=r"`pause 600`(.|\n)*did not end in time"):
        talker().run_to_end(["pause", "600"], timeout=40.0)


def test_op_tag_asks_for_more_memory(talker: MakeLauncher, mine: dict[str, str]) -> None:
    config = {"container_config": {"resources": {"limits": {"memory": "160Mi"}}}}
    launcher = talker(command=["python", "/talk/talker.py", "finish"], keep="always")
    defs = sqlmesh_definitions_factory(
        project_dir="/project",
        manifest_path=str(CONTRACT / "manifest.json"),
        launcher=launcher,
        op_tags={"dagster-k8s/config": config},
    )
    with dg.DagsterInstance.ephemeral() as instance:
        job = defs.resolve_implicit_global_asset_job_def()
        assert job.execute_in_process(instance=instance).success
    (runner,) = launcher.list_runners(mine)
    pod = Namespace(str(launcher.namespace)).pod(runner.name)
    assert pod["spec"]["containers"][0]["resources"]["limits"] == {"memory": "160Mi"}
    launcher.remove_runner(runner)


def test_printed_command_opens_a_shell_like_the_runner(talker: MakeLauncher) -> None:
    with talker().launch(request_for("finish")) as runner:
        command = runner.debug_command
        messages_of(runner)
    assert command is not None
    without_terminal = re.sub(r" --tty|,\"tty\":true", "", command)
    done = subprocess.run(
        without_terminal,
        shell=True,
        input="echo user $(id -u); ls /talk; exit\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert "user 65534\ntalker.py" in done.stdout, done.stderr


def test_ten_runs_at_once_are_complete(talker: MakeLauncher) -> None:
    launcher = talker()
    ends: dict[int, tuple[ExitStatus, int, list[range]]] = {}

    def run(number: int) -> None:
        with launcher.launch(request_for("many", "500", "1000", run_id=f"run-{number}")) as runner:
            messages, sequence = messages_of(runner)
            ends[number] = (runner.wait(), len(messages), sequence.missing)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends == {number: (ExitStatus(code=0), 502, []) for number in range(10)}
