"""The launcher on a real engine, with a stand-in for the runner that does what the real one seldom
does.
"""

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
from typing import Any, cast

import dagster as dg
import docker
import pytest
from acceptance.cuttable import CuttableProxy, connect_to_engine, cuttable_proxy
from acceptance.docker.talking import MakeLauncher, container_of, containers_with
from acceptance.invocations import messages_of, payloads_of, request_for, wait_for

from dagster_sqlmesh_pipes.definitions import sqlmesh_definitions_factory
from dagster_sqlmesh_pipes.errors import LaunchError
from dagster_sqlmesh_pipes.launchers.base import ExitStatus, Invocation
from dagster_sqlmesh_pipes.launchers.docker import DockerLauncher
from dagster_sqlmesh_pipes.launchers.docker import invocation as docker_invocation
from dagster_sqlmesh_pipes.launchers.labels import LOCK_LABEL
from dagster_sqlmesh_pipes.launchers.leftovers import remove_orphans, stop_leftovers
from dagster_sqlmesh_pipes.resource import SQLMeshResource

pytestmark = pytest.mark.docker

CONTRACT = Path(__file__).resolve().parents[2] / "contract"


# Streaming


def test_message_of_five_megabytes_arrives_whole(talker: MakeLauncher) -> None:
    """dagster-docker 0.29.27 takes the engine's pieces of 16 KB for lines: it loses such a message
    and reports success.
    """
    with talker().launch(request_for("big", str(5_000_000))) as runner:
        messages, sequence = messages_of(runner)
        assert runner.wait() == ExitStatus(code=0)
    assert payloads_of(messages) == ["x" * 5_000_000]
    assert (sequence.missing, sequence.malformed) == ([], [])


def test_non_ascii_message_survives_beside_log_lines(
    talker: MakeLauncher, capfd: pytest.CaptureFixture[str]
) -> None:
    with talker().launch(request_for("words")) as runner:
        messages, _ = messages_of(runner)
        assert runner.wait() == ExitStatus(code=3)
        assert "a line of the log" in runner.log_tail()
    assert messages[1]["params"] == {"text": "Größe → 数 " * 3000}
    out, err = capfd.readouterr()
    assert (out, err) == ("plain output\n", "a line of the log\n")


def test_context_of_5000_models_reaches_container(
    talker: MakeLauncher,
) -> None:
    models = {
        f'"warehouse"."schema_{n % 70}"."{os.urandom(8).hex()}_{n:04}"': {
            "asset_key": f"schema_{n % 70}/model_{n}",
            "checks": {
                f"not_null:{os.urandom(4).hex()}": "not_null",
                f"unique:{os.urandom(4).hex()}": "unique",
            },
        }
        for n in range(5000)
    }
    with talker().launch(request_for("models", models=models)) as runner:
        messages, _ = messages_of(runner)
        assert runner.wait() == ExitStatus(code=0), runner.log_tail()
    assert messages[1]["params"] == {"payload": max(models), "count": 5000}


# A connection that is cut


@pytest.fixture
def proxied(talker: MakeLauncher) -> Any:
    with cuttable_proxy(connect_to_engine) as proxy:
        yield proxy, talker(base_url=proxy.base_url)


@pytest.fixture
def watched_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_invocation, "_WATCH", 0.5)


def test_cut_log_stream_loses_and_doubles_nothing(
    proxied: tuple[CuttableProxy, DockerLauncher], talk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    proxy, launcher = proxied
    with launcher.launch(request_for("halves", "300")) as runner:
        wait_for(runner, "opened")
        proxy.cut()
        (talk / "go").touch()
        messages, sequence = messages_of(runner, after=0)
        assert runner.wait() == ExitStatus(code=0)
    assert [payload.split()[0] for payload in payloads_of(messages)] == [
        f"{half}/{n}" for half in range(2) for n in range(300)
    ]
    assert messages[-1]["method"] == "closed"
    assert sequence.missing == []
    assert proxy.connections > 3
    log = capfd.readouterr().err.splitlines()
    assert log == [f"log {half}/{n}" for half in range(2) for n in range(300)]


def test_engine_away_for_a_while_is_waited_for(
    proxied: tuple[CuttableProxy, DockerLauncher], talk: Path
) -> None:
    proxy, launcher = proxied
    with launcher.launch(request_for("halves", "3")) as runner:
        wait_for(runner, "opened")
        proxy.refusing = True
        proxy.cut()
        (talk / "go").touch()
        threading.Timer(2.0, setattr, (proxy, "refusing", False)).start()
        messages, sequence = messages_of(runner)
        assert runner.wait() == ExitStatus(code=0)
    assert messages[-1]["method"] == "closed"
    assert sequence.missing == []


def test_engine_that_stays_away_ends_the_wait(
    talker: MakeLauncher, engine: docker.DockerClient
) -> None:
    with cuttable_proxy(connect_to_engine) as proxy:
        launcher = talker(base_url=proxy.base_url, reconnect_timeout=1, stop_grace=0, kill_grace=0)
        with launcher.launch(request_for("stubborn")) as runner:
            wait_for(runner, "opened")
            container = container_of(engine, runner)
            proxy.refusing = True
            proxy.cut()
            end = runner.wait()
    assert end.code == 255
    assert "did not answer for 1 seconds" in (end.reason or "")
    assert "may still be running" in (end.reason or "")
    container.remove(force=True)


@pytest.mark.usefixtures("watched_often")
def test_dead_connection_is_noticed_after_container_end(
    proxied: tuple[CuttableProxy, DockerLauncher], talk: Path
) -> None:
    proxy, launcher = proxied
    with launcher.launch(request_for("halves", "3")) as runner:
        wait_for(runner, "opened")
        proxy.mute_logs()
        (talk / "go").touch()
        messages, sequence = messages_of(runner)
        assert runner.wait() == ExitStatus(code=0)
    assert messages[-1]["method"] == "closed"
    assert sequence.missing == []


def test_cut_after_container_end_loses_nothing(
    proxied: tuple[CuttableProxy, DockerLauncher], talk: Path, engine: docker.DockerClient
) -> None:
    proxy, launcher = proxied
    with launcher.launch(request_for("halves", "300")) as runner:
        wait_for(runner, "opened")
        proxy.refusing = True
        proxy.cut()
        (talk / "go").touch()
        container_of(engine, runner).wait()
        proxy.cut_log_after = 300_000
        proxy.refusing = False
        messages, sequence = messages_of(runner, after=0)
        assert runner.wait() == ExitStatus(code=0)
    assert proxy.log_was_cut
    assert messages[-1]["method"] == "closed"
    assert sequence.missing == []


@pytest.mark.usefixtures("watched_often")
def test_slow_log_of_ended_container_is_not_cut(
    proxied: tuple[CuttableProxy, DockerLauncher],
) -> None:
    proxy, launcher = proxied
    proxy.log_rate = 300_000
    with launcher.launch(request_for("big", str(1_000_000))) as runner:
        messages, _ = messages_of(runner)
        assert runner.wait() == ExitStatus(code=0)
    assert [message["method"] for message in messages] == [
        "opened",
        "report_custom_message",
        "closed",
    ]


@pytest.mark.usefixtures("watched_often")
def test_silent_engine_is_given_up(
    proxied: tuple[CuttableProxy, DockerLauncher],
    engine: docker.DockerClient,
) -> None:
    proxy, launcher = proxied
    with launcher.model_copy(update={"reconnect_timeout": 1.0}).launch(
        request_for("stubborn")
    ) as runner:
        wait_for(runner, "opened")
        container = container_of(engine, runner)
        cast(Any, runner)._client.api.timeout = 3  # the SDK's, in seconds, for each request
        proxy.silent = True
        end = runner.wait()
    assert end.code == 255
    assert "did not answer for 1 seconds" in (end.reason or "")
    container.remove(force=True)


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_log_rotation_of_engine_is_overridden(
    talker: MakeLauncher, engine: docker.DockerClient, driver: str
) -> None:
    """Where the driver is the engine's default, it adds its default options (`max-size` in
    daemon.json) to those that it is not given.
    """
    kwargs = {} if driver == "json-file" else {"log_config": {"type": driver}}
    with talker(container_kwargs=kwargs).launch(request_for("wait-for-signal")) as runner:
        config = container_of(engine, runner).attrs["HostConfig"]["LogConfig"]
    assert config["Type"] == driver
    assert config["Config"] == {
        "mode": "blocking",
        "max-size": "1p",
        "max-file": "1",
        "compress": "false",
    }


# Stopping


def test_interrupt_during_launch_removes_container(
    talker: MakeLauncher,
    engine: docker.DockerClient,
    mine: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        if thread.name == "sqlmesh-log":
            assert containers_with(engine, mine)
            raise KeyboardInterrupt
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        talker().launch(request_for("stubborn"))
    assert containers_with(engine, mine, all=True) == []


def test_stop_lets_runner_report(talker: MakeLauncher) -> None:
    with talker().launch(request_for("wait-for-signal")) as runner:
        wait_for(runner, "opened")
        runner.stop()
        runner.stop()
        messages, _ = messages_of(runner)
        assert runner.wait() == ExitStatus(code=130)
    assert payloads_of(messages) == ["SIGINT"]


def test_runner_that_does_not_stop_is_killed(talker: MakeLauncher) -> None:
    with talker(stop_grace=0.5, kill_grace=0.5).launch(request_for("stubborn")) as runner:
        wait_for(runner, "opened")
        runner.stop()
        assert runner.wait() == ExitStatus(
            code=137, reason="killed: it did not stop within 1 seconds of being asked to"
        )


def test_leaving_the_context_stops_and_removes_container(
    talker: MakeLauncher, engine: docker.DockerClient
) -> None:
    with (  # noqa: PT012 - the error is raised inside of the context
        pytest.raises(KeyboardInterrupt),
        talker().launch(request_for("wait-for-signal")) as runner,
    ):
        wait_for(runner, "opened")
        name = container_of(engine, runner).name
        raise KeyboardInterrupt
    assert engine.containers.list(all=True, filters={"name": str(name)}) == []


def test_interrupt_while_reading_loses_no_line(talker: MakeLauncher, talk: Path) -> None:
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


@pytest.mark.parametrize(
    "fields", [{"mem_limit": "48m"}, {"container_kwargs": {"mem_limit": "48m"}}]
)
def test_out_of_memory_names_the_limit(talker: MakeLauncher, fields: dict[str, Any]) -> None:
    with talker(**fields).launch(request_for("eat")) as runner:
        assert runner.wait() == ExitStatus(
            code=137, reason="killed: probably out of memory (limit 48 MiB)"
        )


def test_child_out_of_memory_does_not_fail_success(talker: MakeLauncher) -> None:
    """The engine then reports OOMKilled with the exit code 0."""
    with talker(mem_limit="48m").launch(request_for("child-eats")) as runner:
        assert runner.wait() == ExitStatus(code=0)


def test_child_out_of_memory_is_named_on_failure(talker: MakeLauncher) -> None:
    with talker(mem_limit="48m").launch(request_for("child-eats-and", "fail")) as runner:
        assert runner.wait() == ExitStatus(
            code=1, reason="a process in the container was killed for its memory (limit 48 MiB)"
        )


def test_child_out_of_memory_does_not_explain_our_kill(
    talker: MakeLauncher,
) -> None:
    with talker(mem_limit="48m", stop_grace=0.5, kill_grace=0.5).launch(
        request_for("child-eats-and", "go-on")
    ) as runner:
        wait_for(runner, "closed")
        runner.stop()
        assert runner.wait() == ExitStatus(
            code=137, reason="killed: it did not stop within 1 seconds of being asked to"
        )


def test_container_killed_from_outside_says_so(
    talker: MakeLauncher, engine: docker.DockerClient
) -> None:
    with talker(mem_limit="48m").launch(request_for("stubborn")) as runner:
        wait_for(runner, "opened")
        container_of(engine, runner).kill()
        end = runner.wait()
    assert end.code == 137
    assert (end.reason or "").startswith("killed from outside")


def test_container_removed_from_outside_says_so(
    talker: MakeLauncher, engine: docker.DockerClient
) -> None:
    with talker().launch(request_for("stubborn")) as runner:
        wait_for(runner, "opened")
        container_of(engine, runner).remove(force=True)
        end = runner.wait()
    assert end == ExitStatus(
        code=255, reason="lost: the container was removed from outside while it was running"
    )


def test_end_before_first_message_names_entrypoint(
    talker: MakeLauncher,
) -> None:
    with talker().launch(request_for("crash")) as runner:
        assert runner.read() is None
        end = runner.wait()
        assert runner.log_tail() == "ImportError: no such thing"
    assert end.code == 1
    assert (end.reason or "").startswith(
        "if the log is not the runner's, check that `sqlmesh-runner` is the ENTRYPOINT"
    )


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [("sqlmesh-runner", 127, "has no such command"), ("/etc/passwd", 126, "may not be executed")],
)
def test_image_without_runner_is_named(
    talker: MakeLauncher, command: str, code: int, said: str
) -> None:
    launcher = talker(entrypoint=[command])
    with launcher.launch(request_for("run")) as runner:
        end = runner.wait()
    assert end.code == code
    assert said in (end.reason or "")
    with pytest.raises(LaunchError, match=said):
        launcher.run_to_end(["manifest"])


def test_unreadable_log_driver_is_named(talker: MakeLauncher) -> None:
    kwargs = {"log_config": docker.types.LogConfig(type="none")}
    with talker(container_kwargs=kwargs, stop_grace=1, kill_grace=1).launch(
        request_for("stubborn")
    ) as runner:
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
        (
            {"image": "nothing-of-the-kind:1", "pull": "never"},
            ["not on the Docker engine at", "pull='never'"],
        ),
        (
            {"entrypoint": ["sqlmesh-runner"], "container_kwargs": {"init": False}},
            ["has no such command", "ENTRYPOINT"],
        ),
        (
            {"entrypoint": ["/etc/passwd"], "container_kwargs": {"init": False}},
            ["may not be executed"],
        ),
        ({"network": "no_such_network"}, ["no_such_network", "docker network ls"]),
        (
            {"mem_limit": "1"},
            ["could not create a container", "emory limit", "launcher's settings"],
        ),
        ({"mem_limit": "2x"}, ["could not create a container", "(2x)", "launcher's settings"]),
        (
            {"container_kwargs": {"ulimits": 3}},
            ["could not create a container", "ulimits", "launcher's settings"],
        ),
        ({"base_url": "bogus://x"}, ["Invalid bind address protocol", "launcher's settings"]),
        ({"base_url": "ssh://root@127.0.0.1"}, ["paramiko", "docker[ssh]"]),
        ({"base_url": "tcp://127.0.0.1:9"}, ["tcp://127.0.0.1:9", "Is the engine running"]),
        ({"env_file": "/nowhere/secrets.env"}, ["env_file '/nowhere/secrets.env'"]),
    ],
)
def test_container_that_cannot_start_is_one_clear_error(
    talker: MakeLauncher, fields: dict[str, Any], said: list[str]
) -> None:
    with pytest.raises(LaunchError) as caught:
        talker(**fields).launch(request_for("big", "5"))
    for words in said:
        assert words in str(caught.value)


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # the SDK leaves the socket that it could not connect
def test_missing_engine_is_one_clear_error(talker: MakeLauncher) -> None:
    with pytest.raises(
        LaunchError,
        match=r"unix:///nowhere/docker.sock could not be reached(.|\n)*"
        r"There is no such socket(.|\n)*docker context",
    ) as caught:
        talker(base_url="unix:///nowhere/docker.sock").launch(request_for("big", "5"))
    del caught
    gc.collect()


@pytest.mark.skipif(
    os.getuid() != 0, reason="only root can become a user without permission on the socket"
)
def test_missing_socket_permission_is_one_clear_error(engine: docker.DockerClient) -> None:
    assert engine.ping()
    program = (
        "import os, dagster, dagster_sqlmesh_pipes.launchers.docker.engine as it\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "it.connect(None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (
        "LaunchError: The Docker engine at unix:///var/run/docker.sock could not be reached"
        in done.stderr
    )
    assert "has no permission on the engine's socket" in done.stderr


# Cleaning up


def test_failed_container_is_kept_where_asked(
    talker: MakeLauncher, engine: docker.DockerClient, mine: dict[str, str]
) -> None:
    launcher = talker(keep="failed")
    with launcher.launch(request_for("big", "5", run_id="well")) as runner:
        assert runner.wait().code == 0
    with launcher.launch(request_for("crash", run_id="badly")) as runner:
        assert runner.wait().code == 1
    assert containers_with(engine, {**mine, "dagster/run_id": "well"}, all=True) == []
    labels = {
        **mine,
        "dagster/run_id": "badly",
        "dagster/step_key": "shop",
        "dagster/code_location": "tests",
    }
    (kept,) = containers_with(engine, labels, all=True)
    assert kept.logs() == b"ImportError: no such thing\n"
    kept.remove()


def test_second_attempt_stops_leftover_of_first(
    talker: MakeLauncher, engine: docker.DockerClient
) -> None:
    first = talker().launch(request_for("wait-for-signal"))
    container = container_of(engine, first)
    second_launcher, request = talker(stop_grace=5), request_for("big", "5")
    with dg.DagsterInstance.ephemeral() as instance:
        stop_leftovers(second_launcher, request.labels, instance)
    with second_launcher.launch(request) as second:
        assert second.wait() == ExitStatus(code=0)
    assert engine.containers.list(all=True, filters={"id": str(container.id)}) == []
    first.__exit__(None, None, None)


def test_leftovers_of_finished_runs_are_stopped(
    talker: MakeLauncher,
    engine: docker.DockerClient,
    mine: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Two stacks on one engine have the same key: an image's project folder, the gateway."""
    project: dict[str, Any] = {
        "project_dir": "/project",
        "gateway": "postgres",
        "manifest_path": str(CONTRACT / "manifest.json"),
    }
    key = SQLMeshResource(**project).effective_lock_key()

    def at_work(run_id: str) -> Invocation:
        request = request_for("wait-for-signal", run_id=run_id)
        return talker().launch(replace(request, labels={**request.labels, LOCK_LABEL: key}))

    defs = sqlmesh_definitions_factory(
        **project, launcher=talker(entrypoint=["python", "/talk/talker.py", "finish"])
    )
    with dg.DagsterInstance.ephemeral() as instance:
        dead = at_work(_run_that_is_over(instance))
        other = at_work("another-instances")
        assert (
            defs.resolve_implicit_global_asset_job_def()
            .execute_in_process(instance=instance)
            .success
        )
        assert [
            container.labels["dagster/run_id"] for container in containers_with(engine, mine)
        ] == ["another-instances"]
        for invocation in (dead, other):
            invocation.__exit__(None, None, None)
    assert "run another-instances has the same lock key" in caplog.text


def test_orphans_are_containers_of_finished_runs(
    talker: MakeLauncher, engine: docker.DockerClient, mine: dict[str, str]
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        over = _run_that_is_over(instance)
        going = instance.create_run_for_job(_job()).run_id
        runners = {
            run: talker().launch(request_for("wait-for-signal", run_id=run))
            for run in (over, going, "someone-elses")
        }
        launcher = talker()
        assert remove_orphans(instance, launcher, labels={"test": "another"}) == []
        found = remove_orphans(instance, launcher, labels=mine, dry_run=True)
        assert [(orphan.run_id, orphan.status, orphan.reason) for orphan in found] == [
            (over, "running", "its run has finished (CANCELED)")
        ]
        assert [orphan.run_id for orphan in remove_orphans(instance, launcher, labels=mine)] == [
            over
        ]
        assert remove_orphans(instance, launcher, labels=mine) == []
        assert {
            container.labels["dagster/run_id"] for container in containers_with(engine, mine)
        } == {going, "someone-elses"}
        assert [
            orphan.run_id
            for orphan in remove_orphans(instance, launcher, labels=mine, older_than=timedelta(0))
        ] == ["someone-elses"]
        for runner in runners.values():
            runner.__exit__(None, None, None)


# Outside of runs


def test_run_to_end_returns_stdout_alone(
    talker: MakeLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secrets.env"
    file.write_text("# a comment\nA=file\nB=file\nC=file\n")
    monkeypatch.setenv("B", "passed")
    monkeypatch.setenv("C", "passed")
    launcher = talker(
        env_file=str(file),
        pass_env=["B", "C", "UNSET_ONE"],
        env={"C": "given"},
        user="65534:65534",
        cpus=0.5,
    )
    environment = json.loads(launcher.run_to_end(["show-env"]))
    assert {name: environment.get(name) for name in ("A", "B", "C", "UNSET_ONE")} == {
        "A": "file",
        "B": "passed",
        "C": "given",
        "UNSET_ONE": None,
    }


def test_run_to_end_of_failed_runner_has_its_log(talker: MakeLauncher) -> None:
    with pytest.raises(LaunchError, match=r"exit code 1:\nImportError: no such thing"):
        talker().run_to_end(["crash"])


def test_run_to_end_after_timeout_removes_container_and_raises(
    engine: docker.DockerClient, talker: MakeLauncher, mine: dict[str, str]
) -> None:
    with pytest.raises(LaunchError, match="did not end within 1 seconds"):
        talker().run_to_end(["stubborn"], timeout=1)
    assert containers_with(engine, mine, all=True) == []


def test_printed_command_opens_a_shell_like_the_runner(talker: MakeLauncher) -> None:
    launcher = talker(user="65534:65534")
    with launcher.launch(request_for("finish")) as runner:
        command = runner.debug_command
    assert command is not None
    shell = subprocess.run(
        command.replace(" --tty", ""),
        shell=True,
        input="echo user $(id -u); ls /talk; exit\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert "user 65534\ntalker.py" in shell.stdout, shell.stderr


def _run_that_is_over(instance: dg.DagsterInstance) -> str:
    run = instance.create_run_for_job(_job())
    instance.report_run_canceled(run)
    return run.run_id


def _job() -> dg.JobDefinition:
    @dg.job
    def nothing() -> None:
        """Do nothing."""

    return nothing
