"""How tests talk with the talker, in place of the orchestrator."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import docker
import pytest
from docker.models.containers import Container

from dagster_sqlmesh_pipes._messages import MessageSequence
from dagster_sqlmesh_pipes.launchers._docker_engine import MARK
from dagster_sqlmesh_pipes.launchers.base import Invocation, LaunchRequest
from dagster_sqlmesh_pipes.launchers.docker import DockerLauncher

MakeLauncher = Callable[..., DockerLauncher]


def request_for(*arguments: str, models: dict[str, Any] | None = None, run_id: str = "1b2c3d4e-run", step: str = "shop") -> LaunchRequest:
    """Ask for the talker."""
    return LaunchRequest(
        arguments=arguments,
        context={"extras": {"models": models or {}}},  # type: ignore[typeddict-item]
        labels={"dagster/run_id": run_id, "dagster/step_key": step, "dagster/code_location": "tests"},
    )


def messages_of(invocation: Invocation, *, after: int | None = None) -> tuple[list[dict[str, Any]], MessageSequence]:
    """Read to the end, as the caller of a launcher does. `after` is the number of the last message read before."""
    sequence = MessageSequence()
    if after is not None:
        sequence.accept(json.dumps({"seq": after}).encode())
        sequence.missing.clear()
    messages = []
    while (line := invocation.read()) is not None:
        message = sequence.accept(line)
        if message is not None:
            messages.append(dict(message))
    return messages, sequence


def payloads_of(messages: list[dict[str, Any]]) -> list[Any]:
    """Give the custom messages' payloads."""
    return [message["params"]["payload"] for message in messages if "payload" in message["params"]]


def wait_for(invocation: Invocation, method: str) -> None:
    """Read up to a message of that method."""
    while (line := invocation.read()) is not None:
        if json.loads(line)["method"] == method:
            return
    pytest.fail(f"{method} never came: {invocation.wait()}")


def containers_with(engine: docker.DockerClient, labels: Mapping[str, str], **options: Any) -> list[Container]:
    """List the launcher's containers that have the labels."""
    return engine.containers.list(filters={"label": [MARK, *(f"{name}={value}" for name, value in labels.items())]}, **options)


def container_of(engine: docker.DockerClient, invocation: Invocation) -> Container:
    """Find an invocation's container."""
    return engine.containers.get(invocation.name.split()[1])
