"""Custom messages are typed where they are read."""

from typing import Any

import pytest

from dagster_sqlmesh_pipes.errors import ProtocolError
from dagster_sqlmesh_pipes.run.messages import (
    BatchFinished,
    ModelFailed,
    ModelSkipped,
    ModelStarted,
    RunFinished,
    RunRestarted,
    RunStarted,
    parse_message,
)
from dagster_sqlmesh_pipes.testing import custom


def payload_of(kind: str, **keys: Any) -> dict[str, Any]:
    payload: dict[str, Any] = custom(kind, **keys)["params"]["payload"]
    return {**payload, "materialized": []} if kind == "run_finished" else payload


@pytest.mark.parametrize(
    "message_type",
    [RunStarted, ModelStarted, BatchFinished, ModelSkipped, ModelFailed, RunRestarted, RunFinished],
)
def test_missing_key_is_an_error_that_names_it(message_type: Any) -> None:
    model = {"model": '"shop"."orders"'} if "model" in message_type.model_fields else {}
    payload = payload_of(message_type.type, **model)
    assert isinstance(parse_message(payload), message_type)
    for key in message_type.model_fields.keys() - {"protocol_version"}:
        misspelt = {f"{name}s" if name == key else name: value for name, value in payload.items()}
        with pytest.raises(ProtocolError, match=f"{key}: Field required"):
            parse_message(misspelt)


def test_unknown_keys_are_a_newer_runner_s() -> None:
    restarted = parse_message(payload_of("run_restarted", colour="red"))
    assert isinstance(restarted, RunRestarted)
    assert restarted.model_dump() == {"attempt": 2, "reason": "a plan changed the environment"}


@pytest.mark.parametrize("payload", [{"type": "model_admired"}, {"rows": 3}, "text", None, [1]])
def test_other_payloads_are_ignored(payload: Any) -> None:
    assert parse_message(payload) is None


@pytest.mark.parametrize(("version", "upgrade"), [(2, "dagster-sqlmesh-pipes"), (0, "sqlmesh-")])
def test_other_protocol_version_names_what_to_upgrade(version: int, upgrade: str) -> None:
    with pytest.raises(ProtocolError, match=f"Upgrade {upgrade}"):
        parse_message({"type": "run_started", "protocol_version": version})
