"""Run the runner in a container on a Docker engine, in the project's own image."""

import contextlib
import logging
import os
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import docker
from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, DAGSTER_PIPES_MESSAGES_ENV_VAR, PipesContextData, encode_param
from docker.errors import ImageNotFound
from docker.models.containers import RUN_CREATE_KWARGS, RUN_HOST_CONFIG_KWARGS, Container
from docker.types import LogConfig
from pydantic import Field, field_validator

from dagster_sqlmesh_pipes.errors import LaunchError
from dagster_sqlmesh_pipes.launchers._docker_container import ContainerInvocation, doubt
from dagster_sqlmesh_pipes.launchers._docker_engine import (
    ENGINE_ERRORS,
    MARK,
    RUN_ID,
    STEP_KEY,
    connect,
    engine_url,
    explained,
    explanation,
    stop_and_remove,
)
from dagster_sqlmesh_pipes.launchers._docker_env_file import read_env_file
from dagster_sqlmesh_pipes.launchers._docker_orphans import Orphan, remove_orphans
from dagster_sqlmesh_pipes.launchers.base import EXCLUSIVE_LABEL, Invocation, Launcher, LaunchRequest, LogTail

__all__ = ["DockerLauncher", "Orphan", "remove_orphans"]

_logger = logging.getLogger("dagster_sqlmesh_pipes")

_CHUNK = 96 * 1024  # bytes; Linux takes 128 KiB per variable, its name included
_CONTEXT_LIMIT = 1536 * 1024  # bytes; Linux takes 2 MiB of arguments and variables together, and the image and the user have some too

_OURS = {"image", "command", "detach", "environment", "labels", "name"}
_BREAKING = {
    "auto_remove": "the container would be gone before its log and exit code are read; `keep` decides what stays",
    "remove": "the container would be gone before its log and exit code are read; `keep` decides what stays",
    "restart_policy": "a run that failed would silently be started again; use Dagster's retry policy",
    "tty": "a terminal mixes the runner's messages with its log",
}
_KNOWN = {*RUN_CREATE_KWARGS, *RUN_HOST_CONFIG_KWARGS, "network", "networking_config", "ports", "volumes"}

_FILES = {"json-file", "local"}  # the drivers that rotate files
_KEEP_ALL = {"mode": "blocking", "max-size": "1p", "max-file": "1", "compress": "false"}
"""Every option by which those drivers lose lines. There is no word for "no limit", so it is a petabyte."""

_SOMEBODYS = (
    "Container %s of run %s has the same %s to itself, and this Dagster instance does not know that run to be over: it is left at work. "
    "SQLMesh has no lock on a run, and two at once double rows: let one instance run a project. Others that only share "
    "the name need a lock_key of their own."
)


class DockerLauncher(Launcher):
    """Start the runner in a container.

    The engine is that of `base_url`, else of `DOCKER_HOST`, else the local socket. Credentials for registries come from the Docker config
    file (`docker login`).
    """

    image: str = Field(min_length=1)
    """An image whose entrypoint is `sqlmesh-runner`."""
    pull: Literal["missing", "always", "never"] = "missing"
    """When to pull the image."""
    entrypoint: Sequence[str] | None = None
    """The command before the runner's arguments, where it is not the image's own entrypoint."""
    network: str | None = None
    """The network to join, by name. A Compose project's is `PROJECT_default`."""
    volumes: Sequence[str] = ()
    """Mounts as `docker run --volume` writes them: `/host/path:/path:ro`, `volume:/path`."""
    env: Mapping[str, str] = Field(default_factory=dict, repr=False)
    """Variables for the runner, over those of `pass_env` and `env_file`."""
    pass_env: Sequence[str] = ()
    """Names of variables of this process to pass on where they are set: secrets that stay out of the definitions."""
    env_file: str | Sequence[str] | None = None
    """Files of `NAME=value` lines, by the rules of `docker run --env-file`, on the machine where the step runs."""
    mem_limit: str | int | None = None
    """Bytes, or with a unit: `512m`, `4g`."""
    cpus: float | None = None
    """Processors' worth of time: `1.5`."""
    user: str | None = None
    """Name or `uid:gid`, where it is not the image's."""
    labels: Mapping[str, str] = Field(default_factory=dict)
    """Labels besides those that say which Dagster run, step and code location it is."""
    keep: Literal["never", "failed", "always"] = "never"
    """Which containers to leave on the engine once they have ended."""
    stop_grace: float = 30.0
    """Seconds a runner has to stop by itself after SIGINT, before SIGTERM."""
    kill_grace: float = 10.0
    """Seconds after SIGTERM before SIGKILL."""
    reconnect_timeout: float = 300.0
    """Seconds that an engine may be silent (restarted, say) before its container is given up."""
    base_url: str | None = None
    """The engine: `unix:///var/run/docker.sock`, `tcp://host:2376`."""
    container_kwargs: Mapping[str, Any] = Field(default_factory=dict)
    """Any further argument of the Docker SDK's `containers.create` (`read_only`, `tmpfs`, `extra_hosts`, …). These win."""

    @field_validator("container_kwargs")
    @classmethod
    def _leaves_us_in_charge(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        for name in value:
            if name in _OURS:
                msg = f"container_kwargs may not have {name!r}: the launcher sets it, from its own fields and the run"
                raise ValueError(msg)
            if value[name] and name in _BREAKING:
                msg = f"container_kwargs may not have {name!r}: {_BREAKING[name]}"
                raise ValueError(msg)
            if name not in _KNOWN:
                msg = f"container_kwargs has {name!r}, which the Docker SDK's containers.create does not take"
                raise ValueError(msg)
        logged = LogConfig(**(value.get("log_config") or {})).config
        if "max-size" in logged or logged.get("mode") == "non-blocking":
            msg = "log_config in container_kwargs may not rotate or drop: results are read from the log, and what goes before it is read is lost"
            raise ValueError(msg)
        return value

    def launch(self, request: LaunchRequest) -> Invocation:
        """Start a runner. See `Launcher.launch`."""
        pipes = {DAGSTER_PIPES_MESSAGES_ENV_VAR: encode_param({"stdio": "stdout"}), **context_variables(request.context)}
        environment = {**self.environ(), **pipes}
        client = connect(self.base_url)
        name = _new_name(request.labels.get(RUN_ID))
        try:
            self._stop_leftovers(client, request)
            container = self._start(client, name, request.arguments, environment, request.labels)
            return ContainerInvocation(self, client, container)
        except BaseException:  # by name: the engine may have made it although we were interrupted before its answer
            _remove_quietly(client, name)
            client.close()
            raise

    def run_to_end(self, arguments: Sequence[str]) -> str:
        """Run the runner to its end and return its stdout. See `Launcher.run_to_end`."""
        environment = self.environ()
        client = connect(self.base_url)
        name = _new_name(None)
        try:
            container = self._start(client, name, arguments, environment, {})
            with explained("tell how its container ended", self.base_url):
                code = container.wait()["StatusCode"]
                output, log = container.logs(stdout=True, stderr=False), container.logs(stdout=False, stderr=True)
        finally:
            _remove_quietly(client, name)
            client.close()
        if code:
            tail = LogTail()
            tail.feed(log)
            msg = f"`{' '.join(arguments)}` in a container of image {self.image} ended with exit code {code}:\n{tail}"
            if code in (126, 127):
                msg += f"\nIt seems that {doubt(self.image, code)}."
            raise LaunchError(msg)
        return output.decode()

    def environ(self) -> dict[str, str]:
        """Give the runner's environment variables, without those of Pipes.

        Raises:
            LaunchError: a file of `env_file` is missing or is no such file.
        """
        files = [self.env_file] if isinstance(self.env_file, str) else self.env_file or ()
        from_files = {name: value for file in files for name, value in read_env_file(file).items()}
        passed = {name: os.environ[name] for name in self.pass_env if name in os.environ}
        return {**from_files, **passed, **self.env}

    def _start(
        self, client: docker.DockerClient, name: str, arguments: Sequence[str], environment: Mapping[str, str], labels: Mapping[str, str]
    ) -> Container:
        self._see_to_image(client)
        settings = {**self._settings(), "environment": environment, "labels": {**self.labels, **labels, MARK: self.keep}, "name": name}
        with explained(f"create a container of image {self.image}", self.base_url):
            container = client.containers.create(self.image, list(arguments), **settings)
        with explained(f"start the container of image {self.image}", self.base_url):
            container.start()
        return container

    def _stop_leftovers(self, client: docker.DockerClient, request: LaunchRequest) -> None:
        """Stop what a dead step left at work on the same, because two runners on one state double rows.

        That is: a container of a run that is over, with the same `EXCLUSIVE_LABEL`; and one of this run, with that label or of an earlier attempt
        at this very step. Whatever else has the label may be at work for another Dagster instance on the same engine.
        """
        labels = request.labels
        for names in ((EXCLUSIVE_LABEL,), (RUN_ID, STEP_KEY)):
            if not all(name in labels for name in names):
                continue
            same = [MARK, *(f"{name}={labels[name]}" for name in names)]
            with explained("stop the container that a dead step has left", self.base_url):
                for container in client.containers.list(filters={"label": same}, ignore_removed=True):
                    run_id = container.labels.get(RUN_ID, "")
                    if run_id == labels.get(RUN_ID) or request.is_over(run_id):
                        _logger.warning("Stopping container %s, left by a step of run %s.", container.name, run_id)
                        stop_and_remove(container, grace=self.stop_grace)
                    else:
                        _logger.warning(_SOMEBODYS, container.name, run_id, labels[EXCLUSIVE_LABEL])

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
        # Results are read from the log, so it must keep everything: an engine's default may drop lines or not be readable. Where the driver is
        # the engine's default one, the engine adds its default options to those that are not given: so all that lose lines are given.
        given = LogConfig(**(self.container_kwargs.get("log_config") or {"type": "json-file"}))
        return LogConfig(type=given.type, config={**_KEEP_ALL, **given.config}) if given.type in _FILES else given

    def _see_to_image(self, client: docker.DockerClient) -> None:
        where = f"the Docker engine at {engine_url(self.base_url)}"
        if self.pull != "always":
            with explained("look for the image", self.base_url):
                try:
                    client.images.get(self.image)
                except ImageNotFound as exc:
                    if self.pull == "never":
                        msg = f"Image {self.image} is not on {where}, and pull='never'. Build it there (`docker build -t {self.image} …`), or load it."
                        raise LaunchError(msg) from exc
                else:
                    return
        try:
            client.images.pull(self.image)
        except ENGINE_ERRORS as exc:
            msg = (
                f"Image {self.image} could not be pulled to {where}: {explanation(exc)}\n"
                "Check its name, log in to its registry (`docker login`), or build it there and set pull='never'."
            )
            raise LaunchError(msg) from exc


def context_variables(context: PipesContextData) -> dict[str, str]:
    """Encode the Pipes context as variables: one, or as many as it takes (see docs/contract.md, section 2).

    Raises:
        LaunchError: it is larger than any process can be given.
    """
    encoded = encode_param({"data": context})
    if len(encoded) > _CONTEXT_LIMIT:
        msg = (
            f"The selection's Pipes context takes {len(encoded):,} bytes, and a container can be given {_CONTEXT_LIMIT:,}. "
            "Select fewer assets in one run, or split the project's assets into several."
        )
        raise LaunchError(msg)
    if len(encoded) <= _CHUNK:
        return {DAGSTER_PIPES_CONTEXT_ENV_VAR: encoded}
    chunks = [encoded[at : at + _CHUNK] for at in range(0, len(encoded), _CHUNK)]
    return {
        DAGSTER_PIPES_CONTEXT_ENV_VAR: encode_param({"chunks": len(chunks)}),
        **{f"{DAGSTER_PIPES_CONTEXT_ENV_VAR}_{number}": chunk for number, chunk in enumerate(chunks)},
    }


def _new_name(run_id: str | None) -> str:
    return "-".join(["sqlmesh", *([run_id[:8]] if run_id else []), secrets.token_hex(4)])


def _remove_quietly(client: docker.DockerClient, name: str) -> None:
    with contextlib.suppress(*ENGINE_ERRORS):  # what matters more is on its way to the caller, and remove_orphans finds the container
        client.api.remove_container(name, force=True, v=True)
