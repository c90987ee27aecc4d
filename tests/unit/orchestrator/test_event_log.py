"""Which models the event log shows as running."""

import logging
from collections.abc import Callable
from typing import Any, cast

import dagster as dg
import pytest
from unit.orchestrator.shop import SHOP, manifest

from dagster_sqlmesh_pipes.launchers.base import LaunchRequest
from dagster_sqlmesh_pipes.manifest.loading import parse_manifest
from dagster_sqlmesh_pipes.run import event_log
from dagster_sqlmesh_pipes.run.messages import parse_message
from dagster_sqlmesh_pipes.run.report import RunReport
from dagster_sqlmesh_pipes.testing import custom

Write = Callable[..., None]


@pytest.fixture
def report() -> RunReport:
    request = LaunchRequest(arguments=["run"], context=cast("Any", {"extras": {}}))
    return RunReport(parse_manifest(manifest(SHOP)), request)


@pytest.fixture
def log(report: RunReport, caplog: pytest.LogCaptureFixture) -> event_log.EventLog:
    caplog.set_level(logging.INFO)
    return event_log.EventLog(cast("dg.DagsterLogManager", logging.getLogger()), report)


@pytest.fixture
def write(log: event_log.EventLog, report: RunReport) -> Write:
    def write(kind: str, **keys: Any) -> None:
        message = parse_message(custom(kind, asset_key=None, **keys)["params"]["payload"])
        assert message is not None
        report.add(message)
        log.write(message)

    return write


@pytest.fixture
def all_are_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "RUNNING_AFTER", 0.0)


@pytest.mark.usefixtures("all_are_late")
def test_late_models_are_written_once(
    log: event_log.EventLog, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    write("model_started", model="orders", batches=2)
    write("model_started", model="events")
    log.write_running()
    log.write_running()
    assert [text.split(" [")[0] for text in caplog.messages] == [
        "orders is running: 2 batches",
        "events is running: 1 batch",
    ]


@pytest.mark.usefixtures("all_are_late")
@pytest.mark.parametrize("later", ["batch_finished", "model_failed", "model_skipped"])
def test_model_that_went_on_is_not_written(
    later: str, log: event_log.EventLog, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    write("model_started", model="orders")
    write(later, model="orders")
    log.write_running()
    assert "is running" not in caplog.text


def test_model_just_started_is_not_written(
    log: event_log.EventLog, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    write("model_started", model="orders")
    log.write_running()
    assert caplog.messages == []
