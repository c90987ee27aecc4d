"""What the Docker launcher does without an engine; tests/acceptance/docker has the rest."""

import json
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from docker.errors import APIError, NotFound
from docker.types import CancellableStream, LogConfig
from pydantic import ValidationError
from urllib3.exceptions import ProtocolError

from dagster_sqlmesh_pipes.errors import LaunchError
from dagster_sqlmesh_pipes.launchers.docker import DockerLauncher
from dagster_sqlmesh_pipes.launchers.docker.engine import connect, explained
from dagster_sqlmesh_pipes.launchers.docker.logs import (
    ContainerLostError,
    LogStream,
    ReplayFilter,
    container_state,
)

# Errors


def test_refusal_of_socket_proxy_has_its_own_advice() -> None:
    def raised(status: int) -> str:
        response = requests.Response()
        response.status_code = status
        with (
            pytest.raises(LaunchError) as caught,
            explained("create a container", "tcp://proxy:2375"),
        ):
            raise APIError(
                f"{status} Client Error",
                response=response,
                explanation="Forbidden by administrative rules",
            )
        return str(caught.value)

    assert (
        "The Docker engine at tcp://proxy:2375 could not create a container: Forbidden"
        in raised(403)
    )
    assert "A socket proxy must allow" in raised(403)
    assert "A socket proxy must allow" not in raised(400)


def test_missing_certificates_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    with pytest.raises(
        LaunchError,
        match=r"could not be reached(.|\n)*DOCKER_CERT_PATH must be a folder with ca.pem",
    ):
        connect("tcp://127.0.0.1:2376")


# Settings


def test_debug_command_has_settings_and_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD", "secret")
    launcher = DockerLauncher(
        image="shop-runner",
        network="warehouse",
        volumes=["cache:/var/cache/sqlmesh", "/srv/my project:/project"],
        pass_env=["PASSWORD"],
        env={"TOKEN": "secret"},
        env_file="runner.env",
        base_url="tcp://engine:2376",
    )
    assert launcher.debug_command() == (
        "docker --host=tcp://engine:2376 run --rm --interactive --tty --network=warehouse "
        "--volume=cache:/var/cache/sqlmesh '--volume=/srv/my project:/project' "
        "--env-file=runner.env --env=PASSWORD --env=TOKEN --entrypoint=sh shop-runner"
    )


@pytest.mark.parametrize("name", ["image", "command", "environment", "labels", "name", "detach"])
def test_reserved_container_kwarg_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=f"may not have '{name}': the launcher sets it"):
        DockerLauncher(image="i", container_kwargs={name: "x"})


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("auto_remove", "exit code are read"),
        ("remove", "exit code are read"),
        ("restart_policy", "retry policy"),
        ("tty", "mixes"),
    ],
)
def test_forbidden_container_kwarg_says_why(name: str, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        DockerLauncher(image="i", container_kwargs={name: True})


def test_unknown_container_kwarg_is_refused() -> None:
    with pytest.raises(ValidationError, match="has 'memory', which the Docker SDK's"):
        DockerLauncher(image="i", container_kwargs={"memory": "1g"})


@pytest.mark.parametrize("config", [{"max-size": "10m"}, {"mode": "non-blocking"}])
def test_log_config_that_drops_lines_is_refused(config: dict[str, str]) -> None:
    for log_config in (
        LogConfig(type="json-file", config=config),
        {"type": "local", "config": config},
    ):
        with pytest.raises(ValidationError, match="may not rotate or drop"):
            DockerLauncher(image="i", container_kwargs={"log_config": log_config})


def test_secrets_are_not_in_errors_or_repr() -> None:
    with pytest.raises(ValidationError) as caught:
        DockerLauncher(image="i", container_kwargs={"environment": {"PGPASSWORD": "hunter2"}})
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(DockerLauncher(image="i", env={"PGPASSWORD": "hunter2"}))


def test_unknown_setting_is_refused() -> None:
    with pytest.raises(ValidationError, match="memory"):
        DockerLauncher(image="i", memory="1g")  # type: ignore[call-arg]


# Files of variables


def test_env_file_is_read_by_dockers_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSED", "on")
    monkeypatch.delenv("UNSET", raising=False)
    file = tmp_path / "secrets.env"
    file.write_bytes(
        b'\xef\xbb\xbfA="as it stands"\r\n\n  # indented\n  B=a=b # c \nPASSED\nUNSET\nEMPTY=\n'
    )
    assert DockerLauncher(image="i", env_file=str(file)).environ() == {
        "A": '"as it stands"',
        "B": "a=b # c ",
        "PASSED": "on",
        "EMPTY": "",
    }


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"PGPASSWORD: hunter2", "line 2 has no name without spaces"),
        (b"export PGPASSWORD=hunter2", "line 2 has no name without spaces"),
        (b"=hunter2", "line 2 has no name without spaces"),
        (b"PGPASSWORD=hunter2\xff", "line 2 is not UTF-8"),
    ],
)
def test_bad_line_of_env_file_is_named_not_shown(tmp_path: Path, line: bytes, said: str) -> None:
    file = tmp_path / "secrets.env"
    file.write_bytes(b"A=1\n" + line + b"\n")
    with pytest.raises(LaunchError, match=said) as caught:
        DockerLauncher(image="i", env_file=str(file)).environ()
    assert "secrets.env" in str(caught.value)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


# The log


def test_replay_filter_drops_what_earlier_attempts_had() -> None:
    replays = ReplayFilter()
    first = [replays.unseen(chunk) for chunk in (b"one ", b"two ")]
    replays.rewind()
    second = [replays.unseen(chunk) for chunk in (b"o", b"ne two th", b"ree")]
    assert b"".join(first + second) == b"one two three"


class FakeContainer:
    """A container whose log connection breaks as scripted.

    `states` are what the engine answers, one after another.
    """

    id = "0"

    def __init__(self, states: list[Any], logs: list[Any]) -> None:
        self.client = self.api = self
        self._states = states
        self._logs = logs
        self.followed: list[bool] = []

    def inspect_container(self, _id: str) -> Any:
        state = self._states.pop(0)
        if isinstance(state, Exception):
            raise state
        return {"State": {"Status": state}}

    def logs(self, *, follow: bool, **_: Any) -> "CancellableStream[bytes]":
        self.followed.append(follow)
        return CancellableStream(self._chunks(self._logs.pop(0)), requests.Response())

    def _chunks(self, chunks: list[Any]) -> Iterator[bytes]:
        for chunk in chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk


def passes_over(container: Any, *, patience: float = 0.0) -> list[list[bytes]]:
    stream = LogStream(container, "stdout", patience=patience)
    return [list(chunks) for chunks in stream.read_attempts()]


def test_log_is_read_until_an_attempt_after_the_end() -> None:
    container = FakeContainer(
        ["running", "running", "exited"],
        [[b"a", ConnectionError("cut")], [b"a", b"b"], [b"a", b"b", b"c"]],
    )
    assert passes_over(container) == [[b"a"], [b"a", b"b"], [b"a", b"b", b"c"]]
    assert container.followed == [True, True, False]


def test_cut_attempt_is_not_the_last() -> None:
    container = FakeContainer(
        ["exited"] * 2, [[b"a", ProtocolError("IncompleteRead")], [b"a", b"b"]]
    )
    assert passes_over(container, patience=60.0) == [[b"a"], [b"a", b"b"]]


def test_log_that_is_cut_each_time_is_given_up() -> None:
    with pytest.raises(ContainerLostError, match="not be read to the end"):
        passes_over(FakeContainer(["exited"], [[b"a", ProtocolError("IncompleteRead")]]))


def test_unreadable_log_is_given_up() -> None:
    refusal = APIError(
        "501 Server Error", explanation="configured logging driver does not support reading"
    )
    with pytest.raises(ContainerLostError, match=r"json-file"):
        passes_over(FakeContainer(["running"], [[refusal]]))


def test_gone_container_differs_from_silent_engine() -> None:
    never = threading.Event()
    gone = FakeContainer([NotFound("No such container")], [])
    with pytest.raises(ContainerLostError, match="removed from outside"):
        container_state(gone, patience=0.0, abandoned=never)  # type: ignore[arg-type]
    silent = FakeContainer([ConnectionError("refused")] * 9, [])
    with pytest.raises(ContainerLostError, match="did not answer for 0 seconds"):
        container_state(silent, patience=0.0, abandoned=never)  # type: ignore[arg-type]


def test_variables_win_in_documented_order(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / "one.env", tmp_path / "two.env"]
    files[0].write_text("A=one\nB=one\nC=one\nD=one\n")
    files[1].write_text("B=two\nC=two\nD=two\n")
    monkeypatch.setenv("C", "passed")
    monkeypatch.setenv("D", "passed")
    launcher = DockerLauncher(
        image="i",
        env_file=[str(file) for file in files],
        pass_env=["C", "D", "UNSET_ONE"],
        env={"D": "given"},
    )
    assert json.dumps(launcher.environ()) == json.dumps(
        {"A": "one", "B": "two", "C": "passed", "D": "given"}
    )
