"""What the Docker launcher does without an engine; tests/acceptance/docker has the rest."""

import json
import os
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from dagster_pipes import PipesContextData, decode_param
from docker.errors import APIError, NotFound
from docker.types import CancellableStream, LogConfig
from pydantic import ValidationError
from urllib3.exceptions import ProtocolError

from dagster_sqlmesh_pipes.errors import LaunchError
from dagster_sqlmesh_pipes.launchers._docker_engine import connect, explained
from dagster_sqlmesh_pipes.launchers._docker_logs import ContainerLostError, HighWater, LogStream, container_state
from dagster_sqlmesh_pipes.launchers.base import LogTail
from dagster_sqlmesh_pipes.launchers.docker import DockerLauncher, context_variables


def context_with(models: dict[str, Any]) -> PipesContextData:
    return {"extras": {"models": models}}  # type: ignore[typeddict-item]


def decoded(variables: dict[str, str]) -> Any:
    """Decode the context as docs/contract.md tells the runner to."""
    params = decode_param(variables["DAGSTER_PIPES_CONTEXT"])
    if "chunks" in params:
        params = decode_param("".join(variables[f"DAGSTER_PIPES_CONTEXT_{number}"] for number in range(params["chunks"])))
    return params["data"]


# The context


def test_a_context_that_fits_goes_into_one_variable() -> None:
    variables = context_variables(context_with({"a": {}}))
    assert list(variables) == ["DAGSTER_PIPES_CONTEXT"]
    assert decoded(variables) == context_with({"a": {}})


def test_a_larger_context_is_cut_over_variables_that_linux_takes_and_comes_together_again() -> None:
    context = context_with({os.urandom(16).hex(): {"asset_key": f"schema/model_{n}"} for n in range(5000)})
    variables = context_variables(context)
    assert len(variables) > 2
    assert all(len(name) + len(value) < 128 * 1024 for name, value in variables.items())
    assert decoded(variables) == context


def test_a_context_that_no_process_can_be_given_is_an_error_that_names_both_sizes() -> None:
    with pytest.raises(LaunchError, match=r"takes [\d,]{9,} bytes, and a container can be given 1,572,864. Select fewer assets"):
        context_variables(context_with({"noise": os.urandom(1_500_000).hex()}))


# Errors


def test_what_a_socket_proxy_refuses_is_told_from_a_wrong_setting() -> None:
    def raised(status: int) -> str:
        response = requests.Response()
        response.status_code = status
        with pytest.raises(LaunchError) as caught, explained("create a container", "tcp://proxy:2375"):
            raise APIError(f"{status} Client Error", response=response, explanation="Forbidden by administrative rules")
        return str(caught.value)

    assert "The Docker engine at tcp://proxy:2375 could not create a container: Forbidden" in raised(403)
    assert "A socket proxy must allow" in raised(403)
    assert "A socket proxy must allow" not in raised(400)


def test_certificates_that_are_not_there_are_not_taken_for_an_engine_that_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path))
    with pytest.raises(LaunchError, match=r"could not be reached(.|\n)*DOCKER_CERT_PATH must be a folder with ca.pem"):
        connect("tcp://127.0.0.1:2376")


# Settings


@pytest.mark.parametrize("name", ["image", "command", "environment", "labels", "name", "detach"])
def test_what_the_launcher_sets_itself_is_refused_in_container_kwargs(name: str) -> None:
    with pytest.raises(ValidationError, match=f"may not have '{name}': the launcher sets it"):
        DockerLauncher(image="i", container_kwargs={name: "x"})


@pytest.mark.parametrize(
    ("name", "why"),
    [("auto_remove", "exit code are read"), ("remove", "exit code are read"), ("restart_policy", "retry policy"), ("tty", "mixes")],
)
def test_what_would_lose_results_is_refused_in_container_kwargs_with_the_reason(name: str, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        DockerLauncher(image="i", container_kwargs={name: True})


def test_what_the_sdk_does_not_know_is_refused_in_container_kwargs() -> None:
    with pytest.raises(ValidationError, match="has 'memory', which the Docker SDK's"):
        DockerLauncher(image="i", container_kwargs={"memory": "1g"})


@pytest.mark.parametrize("config", [{"max-size": "10m"}, {"mode": "non-blocking"}])
def test_a_log_that_would_drop_messages_is_refused(config: dict[str, str]) -> None:
    for log_config in (LogConfig(type="json-file", config=config), {"type": "local", "config": config}):
        with pytest.raises(ValidationError, match="may not rotate or drop"):
            DockerLauncher(image="i", container_kwargs={"log_config": log_config})


def test_secrets_show_neither_in_errors_nor_where_a_launcher_is_printed() -> None:
    with pytest.raises(ValidationError) as caught:
        DockerLauncher(image="i", container_kwargs={"environment": {"PGPASSWORD": "hunter2"}})
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(DockerLauncher(image="i", env={"PGPASSWORD": "hunter2"}))


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ValidationError, match="memory"):
        DockerLauncher(image="i", memory="1g")  # type: ignore[call-arg]


# Files of variables


def test_an_env_file_is_read_by_dockers_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSED", "on")
    monkeypatch.delenv("UNSET", raising=False)
    file = tmp_path / "secrets.env"
    file.write_bytes(b'\xef\xbb\xbfA="as it stands"\r\n\n  # indented\n  B=a=b # c \nPASSED\nUNSET\nEMPTY=\n')
    assert DockerLauncher(image="i", env_file=str(file)).environ() == {"A": '"as it stands"', "B": "a=b # c ", "PASSED": "on", "EMPTY": ""}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"PGPASSWORD: hunter2", "line 2 has no name without spaces"),
        (b"export PGPASSWORD=hunter2", "line 2 has no name without spaces"),
        (b"=hunter2", "line 2 has no name without spaces"),
        (b"PGPASSWORD=hunter2\xff", "line 2 is not UTF-8"),
    ],
)
def test_a_bad_line_of_an_env_file_is_named_and_not_shown(tmp_path: Path, line: bytes, said: str) -> None:
    file = tmp_path / "secrets.env"
    file.write_bytes(b"A=1\n" + line + b"\n")
    with pytest.raises(LaunchError, match=said) as caught:
        DockerLauncher(image="i", env_file=str(file)).environ()
    assert "secrets.env" in str(caught.value)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


# The log


def test_a_logs_tail_has_lines_that_an_error_message_has_room_for() -> None:
    tail = LogTail()
    for chunk in (b"first\n", b"x" * 3_000_000, b" the end\n", b"y" * 3_000_000):
        tail.feed(chunk)
    first, long, unfinished = str(tail).splitlines()
    assert first == "first"
    assert long.endswith("x the end")
    assert (len(long), len(unfinished)) == (2000, 2000)


def test_only_what_no_earlier_pass_had_is_fresh_however_the_passes_are_cut() -> None:
    high_water = HighWater()
    first = [high_water.fresh(chunk) for chunk in (b"one ", b"two ")]
    high_water.rewind()
    second = [high_water.fresh(chunk) for chunk in (b"o", b"ne two th", b"ree")]
    assert b"".join(first + second) == b"one two three"


class FakeContainer:
    """A container whose log connection breaks as often as told. `states` are what the engine says when asked, one after another."""

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


def passes_over(container: FakeContainer, *, patience: float = 0.0) -> list[list[bytes]]:
    return [list(chunks) for chunks in LogStream(container, "stdout", patience=patience).passes()]  # type: ignore[arg-type]


def test_a_log_is_read_again_from_its_beginning_until_a_pass_began_after_the_containers_end() -> None:
    container = FakeContainer(["running", "running", "exited"], [[b"a", ConnectionError("cut")], [b"a", b"b"], [b"a", b"b", b"c"]])
    assert passes_over(container) == [[b"a"], [b"a", b"b"], [b"a", b"b", b"c"]]
    assert container.followed == [True, True, False]


def test_a_pass_that_was_cut_is_not_the_last_though_the_container_has_ended() -> None:
    container = FakeContainer(["exited"] * 2, [[b"a", ProtocolError("IncompleteRead")], [b"a", b"b"]])
    assert passes_over(container, patience=60.0) == [[b"a"], [b"a", b"b"]]


def test_a_log_that_is_cut_each_time_is_given_up() -> None:
    with pytest.raises(ContainerLostError, match="not be read to the end"):
        passes_over(FakeContainer(["exited"], [[b"a", ProtocolError("IncompleteRead")]]))


def test_a_log_that_the_engine_cannot_read_is_not_asked_for_for_ever() -> None:
    refusal = APIError("501 Server Error", explanation="configured logging driver does not support reading")
    with pytest.raises(ContainerLostError, match=r"json-file"):
        passes_over(FakeContainer(["running"], [[refusal]]))


def test_a_container_that_is_gone_and_an_engine_that_is_silent_are_told_apart() -> None:
    never = threading.Event()
    gone = FakeContainer([NotFound("No such container")], [])
    with pytest.raises(ContainerLostError, match="removed from outside"):
        container_state(gone, patience=0.0, abandoned=never)  # type: ignore[arg-type]
    silent = FakeContainer([ConnectionError("refused")] * 9, [])
    with pytest.raises(ContainerLostError, match="did not answer for 0 seconds"):
        container_state(silent, patience=0.0, abandoned=never)  # type: ignore[arg-type]


def test_the_environment_is_put_together_in_the_order_that_the_fields_promise(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / "one.env", tmp_path / "two.env"]
    files[0].write_text("A=one\nB=one\nC=one\nD=one\n")
    files[1].write_text("B=two\nC=two\nD=two\n")
    monkeypatch.setenv("C", "passed")
    monkeypatch.setenv("D", "passed")
    launcher = DockerLauncher(image="i", env_file=[str(file) for file in files], pass_env=["C", "D", "UNSET_ONE"], env={"D": "given"})
    assert json.dumps(launcher.environ()) == json.dumps({"A": "one", "B": "two", "C": "passed", "D": "given"})
