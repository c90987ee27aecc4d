"""Run the runner in a container on a Docker engine, in the project's own image."""

import contextlib
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import docker
import requests
from dagster_pipes import DAGSTER_PIPES_MESSAGES_ENV_VAR, encode_param
from docker.errors import ImageNotFound, NotFound
from docker.models.containers import RUN_CREATE_KWARGS, RUN_HOST_CONFIG_KWARGS, Container
from docker.types import LogConfig
from pydantic import Field, field_validator

from dagster_sqlmesh_pipes.errors import LaunchError
from dagster_sqlmesh_pipes.launchers.base import Invocation, LaunchRequest, RunnerInfo
from dagster_sqlmesh_pipes.launchers.container import ContainerLauncher, image_hint, runner_name
from dagster_sqlmesh_pipes.launchers.context import context_variables
from dagster_sqlmesh_pipes.launchers.docker.engine import (
    ENGINE_ERRORS,
    connect,
    engine_url,
    explained,
    explanation,
    stop_and_remove,
)
from dagster_sqlmesh_pipes.launchers.docker.env_file import read_env_file
from dagster_sqlmesh_pipes.launchers.docker.invocation import ContainerInvocation
from dagster_sqlmesh_pipes.launchers.framing import MAX_LINE
from dagster_sqlmesh_pipes.launchers.labels import KEEP_LABEL
from dagster_sqlmesh_pipes.launchers.output import LogTail

__all__ = ["DockerLauncher"]

_CONTEXT_LIMIT = 1536 * 1024
"""Bytes. Linux takes 2 MiB of arguments and variables together; the image and the user have some
too.
"""

_RESERVED_KWARGS = {"image", "command", "detach", "environment", "labels", "name"}
_FORBIDDEN_KWARGS = {
    "auto_remove": "the container would be gone before its log and exit code are read; use `keep`",
    "remove": "the container would be gone before its log and exit code are read; use `keep`",
    "restart_policy": "a failed run would silently be started again; use Dagster's retry policy",
    "tty": "a terminal mixes the runner's messages with its log",
}
_KNOWN_KWARGS = {
    *RUN_CREATE_KWARGS,
    *RUN_HOST_CONFIG_KWARGS,
    "network",
    "networking_config",
    "ports",
    "volumes",
}

_FILE_DRIVERS = {"json-file", "local"}  # those that rotate
_KEEP_ALL = {"mode": "blocking", "max-size": "1p", "max-file": "1", "compress": "false"}
"""Every option by which those drivers lose lines. There is no value for "no limit"."""

_RUNNING = {"running", "paused", "restarting"}


class DockerLauncher(ContainerLauncher):
    """Start the runner in a container.

    The engine is that of `base_url`, else of `DOCKER_HOST`, else the local socket. Credentials for
    registries come from the Docker config file (`docker login`). A runner is stopped by SIGINT,
    after `stop_grace` seconds by SIGTERM, after `kill_grace` more by SIGKILL.
    """

    pull: Literal["missing", "always", "never"] = "missing"
    """When to pull the image."""
    entrypoint: Sequence[str] | None = None
    """The command before the runner's arguments, where it is not the image's own entrypoint."""
    network: str | None = None
    """The network to join, by name. A Compose project's is `PROJECT_default`."""
    volumes: Sequence[str] = ()
    """Mounts as `docker run --volume` writes them: `/host/path:/path:ro`, `volume:/path`."""
    env_file: str | Sequence[str] | None = None
    """Files of `NAME=value` lines, by the rules of `docker run --env-file`, on the machine where
    the step runs. `pass_env` and `env` win over them.
    """
    mem_limit: str | int | None = None
    """Bytes, or with a unit: `512m`, `4g`."""
    cpus: float | None = None
    """Processors' worth of time: `1.5`."""
    user: str | None = None
    """Name or `uid:gid`, where it is not the image's."""
    base_url: str | None = None
    """The engine: `unix:///var/run/docker.sock`, `tcp://host:2376`."""
    container_kwargs: Mapping[str, Any] = Field(default_factory=dict)
    """Any further argument of the Docker SDK's `containers.create` (`read_only`, `tmpfs`,
    `extra_hosts`, …). These win."""

    @field_validator("container_kwargs")
    @classmethod
    def _check_kwargs(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        for name in value:
            if name in _RESERVED_KWARGS:
                msg = (
                    f"container_kwargs may not have {name!r}: the launcher sets it, from its own "
                    "fields and the run"
                )
                raise ValueError(msg)
            if value[name] and name in _FORBIDDEN_KWARGS:
                msg = f"container_kwargs may not have {name!r}: {_FORBIDDEN_KWARGS[name]}"
                raise ValueError(msg)
            if name not in _KNOWN_KWARGS:
                msg = (
                    f"container_kwargs has {name!r}, which the Docker SDK's containers.create does "
                    "not take"
                )
                raise ValueError(msg)
        options = LogConfig(**(value.get("log_config") or {})).config
        if "max-size" in options or options.get("mode") == "non-blocking":
            msg = (
                "log_config in container_kwargs may not rotate or drop: results are read from the "
                "log, and what goes before it is read is lost"
            )
            raise ValueError(msg)
        return value

    def launch(self, request: LaunchRequest) -> Invocation:
        """Start a runner. See `Launcher.launch`."""
        pipes = {
            DAGSTER_PIPES_MESSAGES_ENV_VAR: encode_param({"stdio": "stdout", "max_line": MAX_LINE}),
            **context_variables(request.context, limit=_CONTEXT_LIMIT),
        }
        environment = {**self.environ(), **pipes}
        client = connect(self.base_url)
        name = runner_name(request)
        try:
            container = self._start(client, name, request.arguments, environment, request)
            return ContainerInvocation(
                self,
                client,
                container,
                engine=engine_url(self.base_url),
                debug_command=self.debug_command(),
                command=self.entrypoint,
            )
        except BaseException:
            # By name: the engine may have created it although its answer never came.
            _remove_quietly(client, name)
            client.close()
            raise

    def run_to_end(self, arguments: Sequence[str], *, timeout: float | None = None) -> str:
        """Run the runner to its end and return its stdout. See `Launcher.run_to_end`."""
        environment = self.environ()
        client = connect(self.base_url)
        name = runner_name(None)
        try:
            container = self._start(client, name, arguments, environment, None)
            with explained("return how its container ended", self.base_url):
                code = self._exit_code(container, timeout)
                output = container.logs(stdout=True, stderr=False)
                log = container.logs(stdout=False, stderr=True)
        finally:
            _remove_quietly(client, name)
            client.close()
        if code:
            tail = LogTail()
            tail.feed(log)
            msg = (
                f"`{' '.join(arguments)}` in a container of image {self.image} ended with exit "
                f"code {code}:\n{tail}"
            )
            if code in (126, 127):
                msg += f"\nIt seems that {image_hint(self.image, code)}."
            raise LaunchError(msg)
        return output.decode()

    def _exit_code(self, container: Container, timeout: float | None) -> int:
        try:
            return int(container.wait(timeout=timeout)["StatusCode"])
        except requests.exceptions.RequestException as exc:
            # The SDK has two errors for it: ReadTimeout, and ConnectionError after a first byte.
            if timeout is None or "timed out" not in str(exc).lower():
                raise
            msg = f"A container of image {self.image} did not end within {timeout:g} seconds."
            raise LaunchError(msg) from exc

    def list_runners(self, labels: Mapping[str, str]) -> Sequence[RunnerInfo]:
        """Return the engine's containers that have all labels. See `Launcher.list_runners`."""
        wanted = [KEEP_LABEL, *(f"{name}={value}" for name, value in labels.items())]
        client = connect(self.base_url)
        try:
            with explained("list containers", self.base_url):
                containers = client.containers.list(
                    all=True, filters={"label": wanted}, ignore_removed=True
                )
                return [_info(container) for container in containers]
        finally:
            client.close()

    def remove_runner(self, runner: RunnerInfo) -> None:
        """Stop and remove a container. See `Launcher.remove_runner`."""
        client = connect(self.base_url)
        try:
            with explained(f"remove container {runner.name}", self.base_url):
                stop_and_remove(client.containers.get(runner.name), grace=self.stop_grace)
        except LaunchError as exc:
            if not isinstance(exc.__cause__, NotFound):  # somebody else has removed it
                raise
        finally:
            client.close()

    def environ(self) -> dict[str, str]:
        """Return the runner's environment variables, without those of Pipes.

        Raises:
            LaunchError: a file of `env_file` is missing or is no such file.
        """
        files = map(read_env_file, self._env_files())
        from_files = {name: value for file in files for name, value in file.items()}
        return {**from_files, **self.own_variables()}

    def _env_files(self) -> Sequence[str]:
        return [self.env_file] if isinstance(self.env_file, str) else self.env_file or ()

    def debug_command(self) -> str:
        """Return the command that opens a shell in a container like a runner's.

        Variables are named without their values, which may be secret; Docker takes them from the
        shell. `container_kwargs` are left out.
        """
        options = {
            "--network": [self.network],
            "--volume": self.volumes,
            "--user": [self.user],
            "--memory": [self.mem_limit],
            "--cpus": [self.cpus],
            "--env-file": self._env_files(),
            "--env": self.own_variables(),
            "--entrypoint": ["sh"],
        }
        given = [f"{name}={each}" for name, values in options.items() for each in values if each]
        host = [f"--host={self.base_url}"] if self.base_url else []
        return shlex.join(
            ["docker", *host, "run", "--rm", "--interactive", "--tty", *given, self.image]
        )

    def _start(
        self,
        client: docker.DockerClient,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        request: LaunchRequest | None,
    ) -> Container:
        self._require_image(client)
        settings = {
            **self._settings(),
            "environment": environment,
            "labels": self.runner_labels(request),
            "name": name,
        }
        with explained(f"create a container of image {self.image}", self.base_url):
            container = client.containers.create(self.image, list(arguments), **settings)
        with explained(f"start the container of image {self.image}", self.base_url):
            container.start()
        return container

    def _settings(self) -> dict[str, Any]:
        given = {
            "entrypoint": self.entrypoint and list(self.entrypoint),
            "network": self.network,
            "volumes": list(self.volumes),
            "mem_limit": self.mem_limit,
            "nano_cpus": self.cpus and int(self.cpus * 1_000_000_000),
            "user": self.user,
        }
        return {
            "init": True,  # as process 1, Python would ignore SIGTERM
            **{name: value for name, value in given.items() if value},
            **self.container_kwargs,
            "log_config": self._log_config(),
        }

    def _log_config(self) -> LogConfig:
        # Results are read from the log, so it must keep everything: an engine's default may drop
        # lines or not be readable. Where the driver is the engine's default one, the engine adds
        # its default options to those that are not given: so all that lose lines are given.
        given = LogConfig(**(self.container_kwargs.get("log_config") or {"type": "json-file"}))
        if given.type not in _FILE_DRIVERS:
            return given
        return LogConfig(type=given.type, config={**_KEEP_ALL, **given.config})

    def _require_image(self, client: docker.DockerClient) -> None:
        if self.pull != "always" and self._has_image(client):
            return
        engine = f"the Docker engine at {engine_url(self.base_url)}"
        if self.pull == "never":
            msg = (
                f"Image {self.image} is not on {engine}, and pull='never'. Build it there "
                f"(`docker build -t {self.image} …`), or load it."
            )
            raise LaunchError(msg)
        try:
            client.images.pull(self.image)
        except ENGINE_ERRORS as exc:
            msg = (
                f"Image {self.image} could not be pulled to {engine}: {explanation(exc)}\n"
                "Check its name, log in to its registry (`docker login`), or build it there and "
                "set pull='never'."
            )
            raise LaunchError(msg) from exc

    def _has_image(self, client: docker.DockerClient) -> bool:
        with explained("look for the image", self.base_url):
            try:
                client.images.get(self.image)
            except ImageNotFound:
                return False
            return True


def _info(container: Container) -> RunnerInfo:
    return RunnerInfo(
        name=container.name or container.short_id,
        labels=container.labels,
        created=datetime.fromisoformat(container.attrs["Created"][:19]).replace(tzinfo=UTC),
        status=container.status,
        is_running=container.status in _RUNNING,
        keep=container.labels[KEEP_LABEL],
    )


def _remove_quietly(client: docker.DockerClient, name: str) -> None:
    # What matters more is on its way to the caller, and remove_orphans finds the container.
    with contextlib.suppress(*ENGINE_ERRORS):
        client.api.remove_container(name, force=True, v=True)
