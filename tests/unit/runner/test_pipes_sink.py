"""Events as numbered Pipes messages."""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster_pipes import PipesContext, encode_param, open_dagster_pipes

from sqlmesh_runner.errors import ConfigurationError
from sqlmesh_runner.events import AuditFinished, Log, ModelStarted, RunFinished, from_epoch_ms
from sqlmesh_runner.sinks.pipes import open_pipes

EXTRAS = {"protocol_version": 1, "selection": "all", "models": {"m": {"asset_key": "a/m", "checks": {}}}, "standalone_audits": {}}
CONTEXT = {"asset_keys": None, "run_id": "r", "job_name": None, "retry_number": 0, "extras": EXTRAS}


@pytest.fixture(autouse=True)
def no_context_left_behind() -> Iterator[None]:
    yield
    PipesContext._instance = None


def _environ(tmp_path: Path, **variables: str) -> dict[str, str]:
    return {
        "DAGSTER_PIPES_CONTEXT": encode_param({"data": CONTEXT}),
        "DAGSTER_PIPES_MESSAGES": encode_param({"path": str(tmp_path / "messages")}),
        **variables,
    }


def _messages(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "messages").read_text(encoding="ascii").splitlines()]


def _started(model: str) -> ModelStarted:
    return ModelStarted(attempt=1, model=model, batches=1, interval_start=from_epoch_ms(0), interval_end=from_epoch_ms(1))


def test_messages_are_numbered_from_opened_to_closed(tmp_path: Path) -> None:
    sink = open_pipes(_environ(tmp_path))
    sink.emit(_started("m"))
    sink.emit(Log(level="WARNING", message="größer"))
    sink.close()

    messages = _messages(tmp_path)
    assert [(message["seq"], message["method"]) for message in messages] == [
        (0, "opened"), (1, "report_custom_message"), (2, "log"), (3, "closed"),
    ]  # fmt: skip
    assert messages[2]["params"] == {"message": "größer", "level": "WARNING"}


def test_a_message_is_in_the_file_before_emit_returns(tmp_path: Path) -> None:
    sink = open_pipes(_environ(tmp_path))

    sink.emit(_started("m"))

    assert _messages(tmp_path)[-1]["params"]["payload"]["model"] == "m"
    sink.close()


def test_models_without_an_asset_are_unknown_and_have_no_key(tmp_path: Path) -> None:
    sink = open_pipes(_environ(tmp_path))
    sink.emit(_started("m"))
    sink.emit(_started("other"))
    sink.emit(RunFinished(outcome="success", exit_code=0, duration=1.0))
    sink.close()

    payloads = [message["params"]["payload"] for message in _messages(tmp_path)[1:-1]]
    assert [payload.get("asset_key") for payload in payloads] == ["a/m", None, None]
    assert payloads[-1]["unknown_models"] == ["other"]


@pytest.mark.parametrize("whole", [{"data": CONTEXT}, CONTEXT])
def test_a_context_cut_over_several_variables_is_put_together(tmp_path: Path, whole: dict[str, Any]) -> None:
    encoded = encode_param(whole)
    half = len(encoded) // 2
    chunks = {"DAGSTER_PIPES_CONTEXT_0": encoded[:half], "DAGSTER_PIPES_CONTEXT_1": encoded[half:]}

    sink = open_pipes(_environ(tmp_path, DAGSTER_PIPES_CONTEXT=encode_param({"chunks": 2}), **chunks))
    sink.close()

    assert sink.extras == EXTRAS


def test_a_missing_chunk_is_an_error_and_not_a_smaller_selection(tmp_path: Path) -> None:
    chunk = {"DAGSTER_PIPES_CONTEXT_0": encode_param(CONTEXT)}

    with pytest.raises(ConfigurationError, match="DAGSTER_PIPES_CONTEXT_1"):
        open_pipes(_environ(tmp_path, DAGSTER_PIPES_CONTEXT=encode_param({"chunks": 2}), **chunk))


def test_messages_can_not_go_where_this_runner_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="bucket"):
        open_pipes(_environ(tmp_path, DAGSTER_PIPES_MESSAGES=encode_param({"bucket": "b"})))


def test_a_reader_that_is_gone_raises_nothing_and_is_said_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    sink = open_pipes(_environ(tmp_path, DAGSTER_PIPES_MESSAGES=encode_param({"path": f"/dev/fd/{writing}"})))
    os.close(writing)
    os.close(reading)

    sink.emit(_started("m"))
    sink.emit(_started("m"))
    sink.close()

    assert capfd.readouterr().err.count("can't be written any more") == 1


def test_a_python_model_that_opens_pipes_gets_the_numbered_channel(tmp_path: Path) -> None:
    sink = open_pipes(_environ(tmp_path))
    open_dagster_pipes().log.info("from a model")
    sink.close()

    assert [message["seq"] for message in _messages(tmp_path)] == [0, 1, 2]


def test_messages_of_many_threads_stay_whole_and_in_order(tmp_path: Path) -> None:
    sink = open_pipes(_environ(tmp_path))

    def emit_many() -> None:
        for _ in range(50):
            sink.emit(_started("m" * 5000))

    threads = [threading.Thread(target=emit_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sink.close()

    assert [message["seq"] for message in _messages(tmp_path)] == list(range(202))


def test_a_standalone_audit_that_fails_and_has_no_check_is_logged(tmp_path: Path) -> None:
    sink = open_pipes(_environ(tmp_path))
    for failing_rows in (0, 2):
        sink.emit(
            AuditFinished(
                model="totals",
                standalone=True,
                audit_id="totals:1",
                audit="totals",
                args={},
                blocking=False,
                passed=not failing_rows,
                failing_rows=failing_rows,
                batches=1,
                duration=0.1,
                interval_start=None,
                interval_end=None,
                query=None,
                dialect=None,
                error=None,
                note=None,
            )
        )
    sink.close()

    (said,) = _messages(tmp_path)[1:-1]
    assert said["params"]["level"] == "WARNING"
    assert said["params"]["message"] == "Standalone audit totals, which has no check in this run, failed: 2 rows."
