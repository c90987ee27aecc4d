"""The orchestrator understands what the runner writes: the golden files of `tests/contract/`."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from unit.orchestrator.shop import run, step_error

from dagster_sqlmesh_pipes import SQLMeshResource
from dagster_sqlmesh_pipes.launchers.base import ExitStatus
from dagster_sqlmesh_pipes.manifest import load_manifest
from dagster_sqlmesh_pipes.testing import FakeLauncher

CONTRACT = Path(__file__).parents[2] / "contract"
STREAMS = sorted(path.stem for path in CONTRACT.glob("golden/*.json"))

ENDINGS = {
    "bad_cast_with_downstream_skipped": (1, "Could not convert string 'many'"),
    "blocking_failure": (1, "its audit not_null failed"),
    "blocking_failure_after_recorded_batches": (1, "[2 of 3 batches were done]"),
    "external_audits": (1, "its audit assert_positive failed: Conversion Error"),
    "env_not_planned": (3, "Run `sqlmesh plan dev`"),
    "interrupted": (130, "SIGINT received"),
}
"""The exit code of the runs that failed, and what the step's error must say."""


RAW_ORDERS = '"orders"."raw"."orders"'
EXTERNAL_AUDITS = [
    {"id": f"assert_positive:{digest}", "name": "assert_positive", "query": "", "dialect": "duckdb"}
    for digest in ("c334cb69", "0cd1e2ef")
]
"""What the manifest would hold of the project that `external_audits` has planned."""


def messages_of(stream: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = json.loads((CONTRACT / f"golden/{stream}.json").read_text())
    return messages


def lines_of(stream: str) -> list[bytes]:
    """Return the stream as the runner writes it: numbered, a line each."""
    return [
        json.dumps({**message, "seq": number}).encode()
        for number, message in enumerate(messages_of(stream))
    ]


def reported(stream: str, method: str) -> list[dict[str, Any]]:
    return [message["params"] for message in messages_of(stream) if message["method"] == method]


def selection_of(reports: list[dict[str, Any]]) -> dg.AssetSelection:
    """Select the assets and checks that were reported on."""
    keys = [dg.AssetKey.from_user_string(params["asset_key"]) for params in reports]
    named = list(zip(keys, reports, strict=True))
    checks = [
        dg.AssetCheckKey(key, params["check_name"])
        for key, params in named
        if "check_name" in params
    ]
    assets = [key for key, params in named if "check_name" not in params]
    return dg.AssetSelection.assets(*assets) | dg.AssetSelection.checks(*checks)


@pytest.mark.parametrize("stream", STREAMS)
def test_what_a_golden_stream_reports_is_stored_and_nothing_else(
    stream: str, tmp_path: Path
) -> None:
    code, said = ENDINGS.get(stream, (0, ""))
    launcher = FakeLauncher(messages=lines_of(stream), exit=ExitStatus(code=code))
    manifest = json.loads((CONTRACT / "manifest.json").read_text())
    for model in manifest["models"]:
        if model["fqn"] == RAW_ORDERS and stream == "external_audits":
            model["audits"] = EXTERNAL_AUDITS
    checks = reported(stream, "report_asset_check")
    (finished,) = (
        params["payload"]
        for params in reported(stream, "report_custom_message")
        if params["payload"]["type"] == "run_finished"
    )
    selection = None
    if finished["unknown_models"]:  # the request names the others only
        reports = [*reported(stream, "report_asset_materialization"), *checks]
        selection = selection_of(reports)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    resource = SQLMeshResource(manifest_path=str(tmp_path / "manifest.json"), launcher=launcher)
    result = run(resource, selection=selection)
    assert result.success == (stream not in ENDINGS)
    made = [
        event.step_materialization_data.materialization
        for event in result.get_asset_materialization_events()
    ]
    recorded = [
        each["asset_key"]
        for params in reported(stream, "report_custom_message")
        if params["payload"]["type"] == "models_recorded"
        for each in params["payload"]["models"]
    ]
    assert [each.asset_key.to_user_string() for each in made[: len(recorded)]] == recorded
    assert all("sqlmesh/recorded_by" in each.metadata for each in made[: len(recorded)])
    materializations = made[len(recorded) :]
    assert [each.asset_key.to_user_string() for each in materializations] == [
        params["asset_key"] for params in reported(stream, "report_asset_materialization")
    ]
    for event, params in zip(
        materializations, reported(stream, "report_asset_materialization"), strict=True
    ):
        assert {key: event.metadata[key].value for key in params["metadata"]} == {
            key: value["raw_value"] for key, value in params["metadata"].items()
        }
    evaluations = [
        (e.asset_key.to_user_string(), e.check_name, e.passed, e.severity.value)
        for e in result.get_asset_check_evaluations()
    ]
    observed = [
        event.asset_observation_data.asset_observation
        for event in result.get_asset_observation_events()
    ]
    observations = [
        (
            each.asset_key.to_user_string(),
            each.metadata["audit_passed"].value,
            each.metadata["audit_severity"].value,
        )
        for each in observed
        if "audit_passed" in each.metadata
    ]
    assert evaluations == [
        (params["asset_key"], params["check_name"], params["passed"], params["severity"])
        for params in checks
        if not params["asset_key"].startswith("external/")
    ]
    assert observations == [
        (params["asset_key"], params["passed"], params["severity"])
        for params in checks
        if params["asset_key"].startswith("external/")
    ]
    if said:
        assert said in step_error(result)


def test_the_golden_manifest_is_read_whole() -> None:
    manifest = load_manifest(CONTRACT / "manifest.json")
    raw = json.loads((CONTRACT / "manifest.json").read_text())
    assert list(manifest.models) == [model["fqn"] for model in raw["models"]]
    for model in raw["models"]:
        read = manifest.models[model["fqn"]].model_dump(mode="json")
        assert {key: read[key] for key in model if key in read} == model, (
            "a key of the contract is not read, or read as something else"
        )
    assert [audit.name for audit in manifest.standalone_audits] == [
        audit["name"] for audit in raw["standalone_audits"]
    ]
