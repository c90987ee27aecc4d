"""The talker's containers on the engine."""

from collections.abc import Callable, Mapping
from typing import Any

import docker
from docker.models.containers import Container

from dagster_sqlmesh_pipes.launchers.base import Invocation
from dagster_sqlmesh_pipes.launchers.docker import DockerLauncher
from dagster_sqlmesh_pipes.launchers.labels import KEEP_LABEL

MakeLauncher = Callable[..., DockerLauncher]


def containers_with(
    engine: docker.DockerClient, labels: Mapping[str, str], **options: Any
) -> list[Container]:
    """List the launcher's containers that have the labels."""
    wanted = [KEEP_LABEL, *(f"{name}={value}" for name, value in labels.items())]
    return engine.containers.list(filters={"label": wanted}, **options)


def container_of(engine: docker.DockerClient, invocation: Invocation) -> Container:
    """Find an invocation's container."""
    return engine.containers.get(invocation.name.split()[1])
