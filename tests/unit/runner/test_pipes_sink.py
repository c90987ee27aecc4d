"""Events as numbered Pipes messages."""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster_pipes import DagsterPipesError, PipesContext, encode_param, open_dagster_pipes

from sqlmesh_runner.errors import ConfigurationError
from sqlmesh_runner.recording.current import set_current_model
from sqlmesh_runner.recording.events import (
    AuditFinished,
    Log,
    ModelMaterialized,
    ModelStarted,
    RunFinished,
    from_epoch_ms,
)
from sqlmesh_runner.sinks.output import Output, open_output
from sqlmesh_runner.sinks.pipes import _NumberedChannel, open_pipes

EXTRAS = {
    "protocol_version": 1,
    "selection": "all",
    "models": {"m": {"asset_key": "a/m", "checks": {}}},
    "standalone_audits": {},
}
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
    return [
        json.loads(line)
        for line in (tmp_path / "messages").read_text(encoding="ascii").splitlines()
    ]


def _started(model: str) -> ModelStarted:
    return ModelStarted(
        attempt=1,
        model=model,
        batches=1,
        interval_start=from_epoch_ms(0),
        interval_end=from_epoch_ms(1),
    )


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
def test_a_context_cut_over_several_variables_is_put_together(
    tmp_path: Path, whole: dict[str, Any]
) -> None:
    encoded = encode_param(whole)
    half = len(encoded) // 2
    chunks = {"DAGSTER_PIPES_CONTEXT_0": encoded[:half], "DAGSTER_PIPES_CONTEXT_1": encoded[half:]}

    sink = open_pipes(
        _environ(tmp_path, DAGSTER_PIPES_CONTEXT=encode_param({"chunks": 2}), **chunks)
    )
    sink.close()

    assert sink.extras == EXTRAS


def test_a_missing_chunk_is_an_error_and_not_a_smaller_selection(tmp_path: Path) -> None:
    chunk = {"DAGSTER_PIPES_CONTEXT_0": encode_param(CONTEXT)}

    with pytest.raises(ConfigurationError, match="DAGSTER_PIPES_CONTEXT_1"):
        open_pipes(_environ(tmp_path, DAGSTER_PIPES_CONTEXT=encode_param({"chunks": 2}), **chunk))


def test_messages_can_not_go_where_this_runner_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="bucket"):
        open_pipes(_environ(tmp_path, DAGSTER_PIPES_MESSAGES=encode_param({"bucket": "b"})))


def test_reader_that_has_gone_fails_the_sink_and_no_python_model(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    sink = open_pipes(
        _environ(tmp_path, DAGSTER_PIPES_MESSAGES=encode_param({"path": f"/dev/fd/{writing}"}))
    )
    os.close(writing)
    os.close(reading)

    open_dagster_pipes().log.info("from a model")
    with pytest.raises(ConnectionError, match="Messages to the orchestrator can't be written"):
        sink.emit(_started("m"))
    sink.close()


def test_python_model_opening_pipes_gets_numbered_channel(tmp_path: Path) -> None:
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


def test_failed_standalone_audit_without_check_is_logged(tmp_path: Path) -> None:
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
    assert (
        said["params"]["message"]
        == "Standalone audit totals, which has no check in this run, failed: 2 rows."
    )


def test_long_messages_go_out_in_parts(tmp_path: Path) -> None:
    """A container's log cuts long lines, and puts lines of the other stream between the pieces."""
    path = tmp_path / "messages"
    sink = open_pipes(
        _environ(
            tmp_path,
            DAGSTER_PIPES_MESSAGES=encode_param({"path": str(path), "max_line": 1000}),
        )
    )
    text = '"quoted" \\ größer ' * 500
    sink.emit(Log(level="INFO", message=text))
    sink.close()
    lines = path.read_bytes().splitlines()
    assert max(map(len, lines)) < 1000
    opened, *parts, closed = map(json.loads, lines)
    assert [opened["seq"], closed["seq"]] == [0, 2]
    assert [(part["params"]["of"], part["params"]["part"]) for part in parts] == [
        (1, number) for number in range(parts[0]["params"]["parts"])
    ]
    message = json.loads("".join(part["params"]["data"] for part in parts))
    assert (message["seq"], message["method"]) == (1, "log")
    assert message["params"]["message"] == text


@pytest.mark.parametrize("max_line", [None, 1000])
def test_output_is_a_message_where_asked_for(
    capfd: pytest.CaptureFixture[str], max_line: int | None
) -> None:
    params = {"stdio": "stdout", **({"max_line": max_line} if max_line else {})}
    text = "größer, " * 1000
    stdout = os.dup(1)
    try:
        with open_output({"DAGSTER_PIPES_MESSAGES": encode_param(params)}) as output:
            os.write(1, b"printed by the project\n")
            output.write(text)
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
    out, err = capfd.readouterr()
    assert err == "printed by the project\n"
    lines = [json.loads(line) for line in out.splitlines()]
    if max_line:
        lines = [json.loads("".join(line["params"]["data"] for line in lines))]
    (message,) = lines
    assert (message["method"], message["params"], message["seq"]) == ("output", {"text": text}, 0)


def _materialized(model: str) -> ModelMaterialized:
    return ModelMaterialized(
        model=model,
        environment="prod",
        complete=True,
        batches=1,
        batches_planned=1,
        duration=1.0,
        interval_start=from_epoch_ms(0),
        interval_end=from_epoch_ms(1),
        rows_processed=None,
        bytes_processed=None,
        row_count=None,
        physical_table=None,
        fingerprint="f",
        plan_id="p",
        auto_restated_by=[],
        data_version="v:1:2",
        recorded_at=None,
        recorded_begin=None,
        recorded_end=None,
        gaps=None,
    )


@pytest.fixture
def in_model() -> Iterator[None]:
    set_current_model("m")
    yield
    set_current_model(None)


def _methods(tmp_path: Path) -> list[str]:
    return [message["method"] for message in _messages(tmp_path)]


@pytest.mark.usefixtures("in_model")
def test_closing_in_a_python_model_keeps_the_messages_open(tmp_path: Path) -> None:
    sink = open_pipes(_environ(tmp_path))
    with open_dagster_pipes() as pipes:
        pipes.log.info("from a model")
    with open_dagster_pipes() as pipes:
        pipes.report_custom_message({"rows": 3})
    sink.emit(_materialized("m"))
    sink.close()

    assert _methods(tmp_path) == [
        "opened",
        "log",
        "report_custom_message",
        "report_asset_materialization",
        "closed",
    ]


@pytest.mark.usefixtures("in_model")
@pytest.mark.parametrize("asset_key", [None, "a/m"])
def test_python_model_adds_metadata_to_its_materialization(
    tmp_path: Path, asset_key: str | None
) -> None:
    sink = open_pipes(_environ(tmp_path))
    reports: list[dict[str, Any]] = [{"files": 1, "sqlmesh/model": "mine"}, {"files": 2}]
    for metadata in reports:
        open_dagster_pipes().report_asset_materialization(
            metadata=metadata, data_version="mine", asset_key=asset_key
        )
    sink.emit(_materialized("m"))
    sink.close()

    (reported,) = [
        message["params"]
        for message in _messages(tmp_path)
        if message["method"] == "report_asset_materialization"
    ]
    assert (reported["asset_key"], reported["data_version"]) == ("a/m", "v:1:2")
    assert reported["metadata"]["files"]["raw_value"] == 2
    assert reported["metadata"]["sqlmesh/model"]["raw_value"] == "m"


@pytest.mark.usefixtures("in_model")
def test_metadata_that_pipes_refuses_is_left_out(tmp_path: Path) -> None:
    sink = open_pipes(_environ(tmp_path))
    metadata: dict[str, Any] = {"bad": object()}
    open_dagster_pipes().report_asset_materialization(metadata=metadata)
    sink.emit(_materialized("m"))
    sink.close()

    assert _methods(tmp_path) == ["opened", "report_asset_materialization", "log", "closed"]
    assert "bad" not in _messages(tmp_path)[1]["params"]["metadata"]


@pytest.mark.usefixtures("in_model")
def test_check_of_a_python_model_is_not_passed_on(tmp_path: Path) -> None:
    sink = open_pipes(_environ(tmp_path))
    open_dagster_pipes().report_asset_check("mine", passed=True)
    sink.close()

    assert _methods(tmp_path) == ["opened", "log", "closed"]
    assert "the check mine of a/m" in _messages(tmp_path)[1]["params"]["message"]


def test_message_of_the_runners_own_type_is_refused(tmp_path: Path) -> None:
    sink = open_pipes(_environ(tmp_path))
    with pytest.raises(DagsterPipesError, match="'run_finished' is the runner's to send"):
        open_dagster_pipes().report_custom_message({"type": "run_finished"})
    sink.close()

    assert _methods(tmp_path) == ["opened", "closed"]


def test_model_without_an_asset_reports_nothing(tmp_path: Path) -> None:
    sink = open_pipes(_environ(tmp_path))
    open_dagster_pipes().report_asset_materialization(metadata={"files": 1})
    sink.close()

    assert _methods(tmp_path) == ["opened", "closed"]


def test_forked_child_writes_no_messages(tmp_path: Path) -> None:
    sink = open_pipes(_environ(tmp_path))
    child = os.fork()
    if not child:
        open_dagster_pipes().log.info("from a child")
        os._exit(0)
    os.waitpid(child, 0)
    sink.close()

    assert [message["seq"] for message in _messages(tmp_path)] == [0, 1]


class _ShortWrites:
    """A pipe that takes a few bytes at a time."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: memoryview) -> int:
        self.written += bytes(data[:7])
        return min(7, len(data))


def test_message_is_whole_when_a_pipe_takes_a_part_at_a_time() -> None:
    stream: Any = _ShortWrites()
    channel = _NumberedChannel(stream, None)
    for text in ("first", "second"):
        channel.write_message({"method": "log", "params": {"message": text}})  # type: ignore[typeddict-item]
    messages = [json.loads(line) for line in stream.written.splitlines()]
    assert [each["params"]["message"] for each in messages] == ["first", "second"]


def test_output_is_whole_when_a_pipe_takes_a_part_at_a_time() -> None:
    stream: Any = _ShortWrites()
    Output(stream, None).write("a manifest of many kilobytes")
    assert stream.written == b"a manifest of many kilobytes"
