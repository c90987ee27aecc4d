"""How tests of launchers talk with the talker, in place of a step."""

import json
from typing import Any

import pytest

from dagster_sqlmesh_pipes.launchers.base import Invocation, LaunchRequest
from dagster_sqlmesh_pipes.launchers.labels import CODE_LOCATION_LABEL, RUN_ID_LABEL, STEP_LABEL
from dagster_sqlmesh_pipes.run.sequence import MessageSequence


def request_for(
    *arguments: str,
    models: dict[str, Any] | None = None,
    run_id: str = "1b2c3d4e-run",
    step: str = "shop",
) -> LaunchRequest:
    """Return a request for the talker."""
    return LaunchRequest(
        arguments=arguments,
        context={"extras": {"models": models or {}}},  # type: ignore[typeddict-item]
        labels={RUN_ID_LABEL: run_id, STEP_LABEL: step, CODE_LOCATION_LABEL: "tests"},
    )


def messages_of(
    invocation: Invocation, *, after: int | None = None
) -> tuple[list[dict[str, Any]], MessageSequence]:
    """Read to the end, as a step does. `after` is the number of the last message read before."""
    sequence = MessageSequence(first=0 if after is None else after + 1)
    messages = []
    while (line := invocation.read()) is not None:
        message = sequence.accept(line)
        if message is not None:
            messages.append(dict(message))
    return messages, sequence


def payloads_of(messages: list[dict[str, Any]]) -> list[Any]:
    """Return the custom messages' payloads."""
    return [message["params"]["payload"] for message in messages if "payload" in message["params"]]


def wait_for(invocation: Invocation, method: str) -> None:
    """Read up to a message of that method."""
    while (line := invocation.read()) is not None:
        if json.loads(line)["method"] == method:
            return
    pytest.fail(f"{method} never came: {invocation.wait()} {invocation.log_tail()}")
