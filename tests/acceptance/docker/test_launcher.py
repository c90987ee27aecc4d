"""The launcher on a real engine, with a stand-in for the runner that does what the real one seldom does."""

import gc
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import docker
import pytest
from acceptance.docker.cuttable import CuttableProxy, cuttable_proxy
from acceptance.docker.talking import MakeLauncher, container_of, messages_of, payloads_of, request_for, wait_for

from dagster_sqlmesh_pipes.errors import LaunchError
from dagster_sqlmesh_pipes.launchers._docker_engine import MARK
from dagster_sqlmesh_pipes.launchers.base import EXCLUSIVE_LABEL, Exit, LaunchRequest
from dagster_sqlmesh_pipes.launchers.docker import DockerLauncher, remove_orphans

pytestmark = pytest.mark.docker


# Streaming


def test_a_message_of_five_megabytes_arrives_whole(talker: MakeLauncher) -> None:
    """dagster-docker 0.29.27 takes the engine's pieces of 16 KB for lines: it loses such a message and reports success."""
    with talker().launch(request_for("big", str(5_000_000))) as runner:
        messages, sequence = messages_of(runner)
        assert runner.wait() == Exit(code=0)
    assert payloads_of(messages) == ["x" * 5_000_000]
    assert (sequence.missing, sequence.malformed) == ([], [])


def test_text_that_is_not_ascii_survives_being_cut_between_its_bytes_and_output_beside_the_messages_goes_to_the_log(
    talker: MakeLauncher, capfd: pytest.CaptureFixture[str]
) -> None:
    with talker().launch(request_for("words")) as runner:
        messages, _ = messages_of(runner)
        assert runner.wait() == Exit(code=3)
        assert "a line of the log" in runner.log_tail()
    assert messages[1]["params"] == {"text": "Größe → 数 " * 3000}
    out, err = capfd.readouterr()
    assert (out, err) == ("plain output\n", "a line of the log\n")


def test_the_context_of_a_selection_of_5000_models_reaches_the_container(talker: MakeLauncher) -> None:
    models = {
        f'"warehouse"."schema_{n % 70}"."{os.urandom(8).hex()}_{n:04}"': {
            "asset_key": f"schema_{n % 70}/model_{n}",
            "checks": {f"not_null:{os.urandom(4).hex()}": "not_null", f"unique:{os.urandom(4).hex()}": "unique"},
        }
        for n in range(5000)
    }
    with talker().launch(request_for("models", models=models)) as runner:
        messages, _ = messages_of(runner)
        assert runner.wait() == Exit(code=0), runner.log_tail()
    assert messages[1]["params"] == {"payload": max(models), "count": 5000}


# A connection that is cut


@pytest.fixture
def proxied(talker: MakeLauncher) -> Any:
    with cuttable_proxy() as proxy:
        yield proxy, talker(base_url=proxy.base_url)


def test_a_cut_log_stream_is_reopened_and_nothing_is_lost_or_doubled(
    proxied: tuple[CuttableProxy, DockerLauncher], talk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    proxy, launcher = proxied
    with launcher.launch(request_for("halves", "300")) as runner:
        wait_for(runner, "opened")
        proxy.cut()
        (talk / "go").touch()
        messages, sequence = messages_of(runner, after=0)
        assert runner.wait() == Exit(code=0)
    assert [payload.split()[0] for payload in payloads_of(messages)] == [f"{half}/{n}" for half in range(2) for n in range(300)]
    assert messages[-1]["method"] == "closed"
    assert sequence.missing == []
    assert proxy.connections > 3
    log = capfd.readouterr().err.splitlines()
    assert log == [f"log {half}/{n}" for half in range(2) for n in range(300)]


def test_an_engine_that_is_away_for_a_while_is_waited_for(proxied: tuple[CuttableProxy, DockerLauncher], talk: Path) -> None:
    proxy, launcher = proxied
    with launcher.launch(request_for("halves", "3")) as runner:
        wait_for(runner, "opened")
        proxy.refusing = True
        proxy.cut()
        (talk / "go").touch()
        threading.Timer(2.0, setattr, (proxy, "refusing", False)).start()
        messages, sequence = messages_of(runner)
        assert runner.wait() == Exit(code=0)
    assert messages[-1]["method"] == "closed"
    assert sequence.missing == []


def test_an_engine_that_stays_away_ends_the_wait_and_says_that_the_container_may_still_run(
    talker: MakeLauncher, engine: docker.DockerClient
) -> None:
    with cuttable_proxy() as proxy:
        launcher = talker(base_url=proxy.base_url, reconnect_timeout=1, stop_grace=0, kill_grace=0)
        with launcher.launch(request_for("stubborn")) as runner:
            wait_for(runner, "opened")
            container = container_of(engine, runner)
            proxy.refusing = True
            proxy.cut()
            end = runner.wait()
    assert end.code == 255
    assert "did not answer for 1 seconds" in (end.reason or "")
    assert "may still be at work" in (end.reason or "")
    container.remove(force=True)


def test_a_connection_that_died_without_a_word_is_noticed_when_the_container_has_ended(
    proxied: tuple[CuttableProxy, DockerLauncher], talk: Path
) -> None:
    proxy, launcher = proxied
    with launcher.launch(request_for("halves", "3")) as runner:
        wait_for(runner, "opened")
        proxy.mute_logs()
        (talk / "go").touch()
        messages, sequence = messages_of(runner)
        assert runner.wait() == Exit(code=0)
    assert messages[-1]["method"] == "closed"
    assert sequence.missing == []


# Stopping


def test_stopping_lets_the_runner_end_in_order(talker: MakeLauncher) -> None:
    with talker().launch(request_for("wait-for-signal")) as runner:
        wait_for(runner, "opened")
        runner.stop()
        runner.stop()
        messages, _ = messages_of(runner)
        assert runner.wait() == Exit(code=130)
    assert payloads_of(messages) == ["SIGINT"]


def test_a_runner_that_does_not_stop_is_killed_and_the_end_says_so(talker: MakeLauncher) -> None:
    with talker(stop_grace=0.5, kill_grace=0.5).launch(request_for("stubborn")) as runner:
        wait_for(runner, "opened")
        runner.stop()
        assert runner.wait() == Exit(code=137, reason="killed: it did not stop within 1 seconds of being asked to")


def test_leaving_the_context_stops_a_runner_that_is_still_at_work(talker: MakeLauncher, engine: docker.DockerClient) -> None:
    with pytest.raises(KeyboardInterrupt), talker().launch(request_for("wait-for-signal")) as runner:  # noqa: PT012
        wait_for(runner, "opened")
        name = container_of(engine, runner).name
        raise KeyboardInterrupt
    assert engine.containers.list(all=True, filters={"name": str(name)}) == []


def test_a_signal_handler_that_raises_while_a_line_is_waited_for_loses_no_line(talker: MakeLauncher, talk: Path) -> None:
    class TerminatedError(Exception):
        pass

    def interrupt(_number: int, _frame: object) -> None:
        raise TerminatedError

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with talker().launch(request_for("halves", "1")) as runner:
            assert json.loads(runner.read() or b"")["seq"] == 0
            assert json.loads(runner.read() or b"")["seq"] == 1
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1)).start()
            with pytest.raises(TerminatedError):
                runner.read()
            (talk / "go").touch()
            assert json.loads(runner.read() or b"")["seq"] == 2
    finally:
        signal.signal(signal.SIGUSR1, before)


# How it ended


def test_running_out_of_memory_is_said_with_the_limit(talker: MakeLauncher) -> None:
    with talker(mem_limit="48m").launch(request_for("eat")) as runner:
        assert runner.wait() == Exit(code=137, reason="killed: out of memory (limit 48m)")


def test_a_child_out_of_memory_is_not_taken_for_the_runners_end(talker: MakeLauncher) -> None:
    """The engine then reports OOMKilled with the exit code 0."""
    with talker(mem_limit="48m").launch(request_for("child-eats")) as runner:
        assert runner.wait() == Exit(code=0)


def test_a_container_killed_from_outside_is_not_taken_for_one_out_of_memory(talker: MakeLauncher, engine: docker.DockerClient) -> None:
    with talker(mem_limit="48m").launch(request_for("stubborn")) as runner:
        wait_for(runner, "opened")
        container_of(engine, runner).kill()
        end = runner.wait()
    assert end.code == 137
    assert (end.reason or "").startswith("killed from outside")


def test_a_container_removed_from_outside_is_said_to_be(talker: MakeLauncher, engine: docker.DockerClient) -> None:
    with talker().launch(request_for("stubborn")) as runner:
        wait_for(runner, "opened")
        container_of(engine, runner).remove(force=True)
        end = runner.wait()
    assert end == Exit(code=255, reason="lost: the container was removed from outside while it was at work")


def test_an_end_before_the_first_message_is_said_and_the_log_tells_why(talker: MakeLauncher) -> None:
    with talker().launch(request_for("crash")) as runner:
        assert runner.read() is None
        end = runner.wait()
        assert runner.log_tail() == "ImportError: no such thing"
    assert end.code == 1
    assert (end.reason or "").startswith("it ended before its first message")


@pytest.mark.parametrize(
    ("command", "code", "said"), [("sqlmesh-runner", 127, "has no such command"), ("/etc/passwd", 126, "may not be executed")]
)
def test_an_image_without_the_runner_is_said_to_be_one(talker: MakeLauncher, command: str, code: int, said: str) -> None:
    launcher = talker(entrypoint=[command])
    with launcher.launch(request_for("run")) as runner:
        end = runner.wait()
    assert end.code == code
    assert said in (end.reason or "")
    with pytest.raises(LaunchError, match=said):
        launcher.run_to_end(["manifest"])


def test_a_log_driver_that_cannot_be_read_is_said_to_be_the_trouble(talker: MakeLauncher) -> None:
    kwargs = {"log_config": docker.types.LogConfig(type="none")}
    with talker(container_kwargs=kwargs, stop_grace=1, kill_grace=1).launch(request_for("stubborn")) as runner:
        end = runner.wait()
    assert end.code != 0  # it was stopped: nobody would have known what it did
    assert "log cannot be read" in (end.reason or "")
    assert "json-file" in (end.reason or "")


# Not started


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"image": "no.such.host.invalid/image:1", "pull": "missing"},
            ["no.such.host.invalid/image:1 could not be pulled", "docker login"],
        ),
        ({"image": "nothing-of-the-kind:1", "pull": "never"}, ["not on the Docker engine at", "pull='never'"]),
        ({"entrypoint": ["sqlmesh-runner"], "container_kwargs": {"init": False}}, ["has no such command", "ENTRYPOINT"]),
        ({"entrypoint": ["/etc/passwd"], "container_kwargs": {"init": False}}, ["may not be executed"]),
        ({"network": "no_such_network"}, ["no_such_network", "docker network ls"]),
        ({"mem_limit": "1"}, ["could not create a container", "emory limit"]),
        ({"base_url": "tcp://127.0.0.1:9"}, ["tcp://127.0.0.1:9", "Is the engine running"]),
        ({"env_file": "/nowhere/secrets.env"}, ["env_file '/nowhere/secrets.env'"]),
    ],
)
def test_what_keeps_a_container_from_starting_is_one_clear_error(talker: MakeLauncher, fields: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(LaunchError) as caught:
        talker(**fields).launch(request_for("big", "5"))
    for words in said:
        assert words in str(caught.value)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the SDK leaves the socket that it could not connect
def test_an_engine_that_is_not_there_is_one_clear_error(talker: MakeLauncher) -> None:
    with pytest.raises(LaunchError, match=r"unix:///nowhere/docker.sock could not be reached(.|\n)*There is no such socket") as caught:
        talker(base_url="unix:///nowhere/docker.sock").launch(request_for("big", "5"))
    del caught
    gc.collect()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user without permission on the socket")
def test_no_permission_on_the_socket_is_said_with_what_to_do(engine: docker.DockerClient) -> None:
    assert engine.ping()
    program = (
        "import os, dagster, dagster_sqlmesh_pipes.launchers._docker_engine as it\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "it.connect(None)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "LaunchError: The Docker engine at unix:///var/run/docker.sock could not be reached" in done.stderr
    assert "uid 65534) has no permission on the engine's socket" in done.stderr


# Cleaning up


def test_a_container_that_failed_is_kept_where_asked_and_found_by_its_labels(talker: MakeLauncher, engine: docker.DockerClient) -> None:
    launcher = talker(keep="failed")
    with launcher.launch(request_for("big", "5", run_id="well")) as runner:
        assert runner.wait().code == 0
    with launcher.launch(request_for("crash", run_id="badly")) as runner:
        assert runner.wait().code == 1
    assert engine.containers.list(all=True, filters={"label": "dagster/run_id=well"}) == []
    (kept,) = engine.containers.list(
        all=True, filters={"label": ["dagster/run_id=badly", "dagster/step_key=shop", "dagster/code_location=tests"]}
    )
    assert kept.logs() == b"ImportError: no such thing\n"
    kept.remove()


def test_a_second_attempt_at_a_step_stops_what_the_killed_first_one_left(talker: MakeLauncher, engine: docker.DockerClient) -> None:
    first = talker().launch(request_for("wait-for-signal"))
    container = container_of(engine, first)
    with talker(stop_grace=5).launch(request_for("big", "5")) as second:
        assert second.wait() == Exit(code=0)
    assert engine.containers.list(all=True, filters={"id": str(container.id)}) == []
    first.__exit__(None, None, None)


def test_what_a_dead_step_of_another_run_left_at_work_on_the_same_environment_is_stopped(
    talker: MakeLauncher, engine: docker.DockerClient
) -> None:
    def asked(environment: str, run_id: str, *words: str) -> LaunchRequest:
        request = request_for(*words, run_id=run_id)
        return replace(request, labels={**request.labels, EXCLUSIVE_LABEL: environment})

    dead = talker().launch(asked("shop/prod", "dead", "wait-for-signal"))
    other = talker().launch(asked("shop/dev", "other", "wait-for-signal"))
    with talker(stop_grace=5).launch(asked("shop/prod", "new", "big", "5")) as runner:
        assert runner.wait() == Exit(code=0)
    assert [container.labels["dagster/run_id"] for container in engine.containers.list(filters={"label": MARK})] == ["other"]
    for invocation in (dead, other):
        invocation.__exit__(None, None, None)


def test_orphans_are_the_containers_of_runs_that_are_over(talker: MakeLauncher, engine: docker.DockerClient) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        over = instance.create_run_for_job(_job()).run_id
        instance.report_run_canceled(instance.get_run_by_id(over))  # type: ignore[arg-type]
        going = instance.create_run_for_job(_job()).run_id
        runners = {run: talker().launch(request_for("wait-for-signal", run_id=run)) for run in (over, going, "someone-elses")}
        found = remove_orphans(instance, dry_run=True)
        assert [(orphan.run_id, orphan.status, orphan.why) for orphan in found] == [(over, "running", "its run is over (CANCELED)")]
        assert [orphan.run_id for orphan in remove_orphans(instance)] == [over]
        assert remove_orphans(instance) == []
        assert {container.labels["dagster/run_id"] for container in engine.containers.list(filters={"label": MARK})} == {
            going,
            "someone-elses",
        }
        assert [orphan.run_id for orphan in remove_orphans(instance, older_than=timedelta(0))] == ["someone-elses"]
        for runner in runners.values():
            runner.__exit__(None, None, None)


# Outside of runs


def test_run_to_end_gives_stdout_alone_and_variables_come_from_everywhere_they_may(
    talker: MakeLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secrets.env"
    file.write_text("# a comment\nA=file\nB=file\nC=file\n")
    monkeypatch.setenv("B", "passed")
    monkeypatch.setenv("C", "passed")
    launcher = talker(env_file=str(file), pass_env=["B", "C", "UNSET_ONE"], env={"C": "given"}, user="65534:65534", cpus=0.5)
    environment = json.loads(launcher.run_to_end(["show-env"]))
    assert {name: environment.get(name) for name in ("A", "B", "C", "UNSET_ONE")} == {
        "A": "file",
        "B": "passed",
        "C": "given",
        "UNSET_ONE": None,
    }


def test_run_to_end_fails_with_the_log_of_a_runner_that_failed(talker: MakeLauncher) -> None:
    with pytest.raises(LaunchError, match=r"exit code 1:\nImportError: no such thing"):
        talker().run_to_end(["crash"])


def _job() -> dg.JobDefinition:
    @dg.job
    def nothing() -> None:
        """Do nothing."""

    return nothing
