"""Models that fail, each in its own way: the events of it and of those beside and behind it."""

import json
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from integration.runner.harness import (
    PROJECTS,
    RUN_AT,
    SQLMESH,
    Finished,
    ProjectCopy,
    asset_key,
    extras,
)

ASKED_TWICE, BEHIND, BROKEN_AUDIT, ELSEWHERE, FIRST, IN_STEPS, MAKES_DO, QUITS, SECOND, THIRD = (
    f'"troubles"."marts"."{name}"'
    for name in (
        "asked_twice", "behind", "broken_audit", "elsewhere", "first",
        "in_steps", "makes_do", "quits", "second", "third",
    )
)  # fmt: skip
EXTRAS = extras(
    [ASKED_TWICE, BEHIND, BROKEN_AUDIT, ELSEWHERE, FIRST, IN_STEPS, MAKES_DO, QUITS, SECOND, THIRD],
    selection="all",
    standalone_audits={},
)
EXTRAS["models"][ASKED_TWICE]["checks"] = {"not_null:549ef709": "not_null"}
EXTRAS["models"][BROKEN_AUDIT]["checks"] = {"no_zero:4f53cda1": "no_zero"}
EXTRAS["models"][IN_STEPS]["checks"] = {"not_null:549ef709": "not_null"}


@pytest.fixture(scope="module")
def planned_troubles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("planned") / "failing_models"
    shutil.copytree(PROJECTS / "failing_models", path)
    project = ProjectCopy(path, "troubles.duckdb")
    project.sql(
        "CREATE SCHEMA raw; CREATE TABLE raw.knobs (rows_to_make BIGINT); "
        "INSERT INTO raw.knobs VALUES (10)"
    )
    project.plan()
    return path


@pytest.fixture
def troubles(planned_troubles: Path, tmp_path: Path) -> ProjectCopy:
    return ProjectCopy(
        Path(shutil.copytree(planned_troubles, tmp_path / "project")), "troubles.duckdb"
    )


@pytest.fixture(scope="module")
def ran(planned_troubles: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run of everything, for the tests that only look at it."""
    path = shutil.copytree(planned_troubles, tmp_path_factory.mktemp("ran") / "project")
    return ProjectCopy(Path(path), "troubles.duckdb").run("--row-counts", extras=EXTRAS)


def _subject(message: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return what a message is, and which model or asset it is about."""
    params = message["params"] or {}
    payload = params.get("payload")
    return (
        (payload["type"], payload.get("model"))
        if payload
        else (message["method"], params.get("asset_key"))
    )


def test_model_without_table_is_reported(ran: Finished) -> None:
    assert "dagster/row_count" not in ran.materialized[asset_key(ELSEWHERE)]
    assert ran.materialized[asset_key(FIRST)]["dagster/row_count"] == 1
    (warning,) = ran.params("log")
    assert warning["level"] == "WARNING"
    assert f"The rows of {ELSEWHERE} could not be counted: Catalog Error" in warning["message"]


def test_model_without_pending_batches_is_reported_early(
    ran: Finished,
) -> None:
    reported = [_subject(message) for message in ran.messages]
    before = reported[: reported.index(("model_started", THIRD))]
    assert [kind for kind, subject in before if subject in {IN_STEPS, asset_key(IN_STEPS)}] == [
        "model_started", "batch_finished", "model_failed",
        "report_asset_materialization", "report_asset_check",
    ]  # fmt: skip
    model = ran.materialized[asset_key(IN_STEPS)]
    assert (
        model["sqlmesh/batches"],
        model["sqlmesh/batches_planned"],
        model["sqlmesh/complete"],
    ) == (1, 3, False)
    assert ran.checks[asset_key(IN_STEPS), "not_null"]["audit_batches"] == 1
    assert (ran.failed(IN_STEPS)["interval_start"], ran.failed(IN_STEPS)["batches_done"]) == (
        "2026-01-03T00:00:00+00:00",
        1,
    )


def test_broken_nonblocking_audit_fails_its_model(
    ran: Finished,
) -> None:
    check = ran.checks[asset_key(BROKEN_AUDIT), "no_zero"]
    assert (check["passed"], check["severity"], check["audit_blocking"]) == (False, "ERROR", False)
    assert "Could not convert string 'none'" in check["audit_error"]
    failed = ran.failed(BROKEN_AUDIT)
    assert (failed["audit"], failed["error_type"]) == ("no_zero", "ConversionException")
    assert failed["query"].startswith("SELECT COUNT(*)")


def test_of_two_uses_of_an_audit_the_blocking_one_counts(
    ran: Finished, troubles: ProjectCopy
) -> None:
    check = ran.checks[asset_key(ASKED_TWICE), "not_null"]
    assert (
        check["passed"],
        check["severity"],
        check["audit_blocking"],
        check["audit_failing_rows"],
    ) == (False, "ERROR", True, 1)
    assert ran.failed(ASKED_TWICE)["audit"] == "not_null"
    manifest = json.loads(troubles.command("manifest").stdout)
    (audits,) = [model["audits"] for model in manifest["models"] if model["fqn"] == ASKED_TWICE]
    assert [(audit["name"], audit["blocking"]) for audit in audits] == [
        ("not_null", True),
        ("number_of_rows", True),
    ]


def test_query_error_that_a_model_caught_is_not_its_failure(
    ran: Finished,
) -> None:
    failed = ran.failed(MAKES_DO)
    assert "the service is down" in failed["error"]
    assert failed["query"] is None
    assert ran.failed(IN_STEPS)["query"].startswith("CREATE TABLE")


@pytest.mark.parametrize(
    "tasks",
    [
        "1",
        pytest.param(
            "4",
            marks=pytest.mark.skipif(
                SQLMESH < (0, 236), reason="SQLMesh waited for ever for a thread that exits then"
            ),
        ),
    ],
)
def test_code_that_exits_fails_its_model_and_the_run_in_words(
    troubles: ProjectCopy, tasks: str
) -> None:
    (troubles.path / "quits").touch()

    run = troubles.run(extras=EXTRAS, environ={"TASKS": tasks})

    assert (run.code, run.end["outcome"], run.messages[-1]["method"]) == (1, "error", "closed")
    assert run.end["error"].startswith(
        "The project's code ended the run: sys.exit('no such customer') was called."
    )
    assert f"Error: {run.end['error']}" in run.stderr
    assert (run.failed(QUITS)["error"], run.failed(QUITS)["error_type"]) == (
        "sys.exit('no such customer') was called",
        "SystemExit",
    )
    assert asset_key(QUITS) not in run.materialized


@pytest.mark.skipif(
    SQLMESH < (0, 200), reason="SQLMesh reported what had failed after that statement then"
)
def test_failing_after_all_keeps_skip_reasons(
    troubles: ProjectCopy,
) -> None:
    (troubles.path / "farewell_fails").touch()

    run = troubles.run(extras=EXTRAS)

    assert run.end["outcome"] == "error"
    assert "nobody is there to say goodbye to" in run.end["error"]
    assert asset_key(THIRD) in run.materialized
    assert (run.skipped(BEHIND)["reason"], run.skipped(BEHIND)["upstream"]) == (
        "upstream_failed",
        [IN_STEPS],
    )
    assert run.end["skipped"] == [BEHIND]


def test_failure_before_a_stop_stays_a_failure(
    troubles: ProjectCopy,
) -> None:
    assert troubles.run(extras=extras([FIRST], standalone_audits={})).code == 0
    troubles.sql("UPDATE raw.knobs SET rows_to_make = 300000")

    with troubles.start("run", "--execution-time", RUN_AT, extras=EXTRAS) as runner:
        runner.wait_for("model_started", THIRD)
        runner.wait_for("model_failed", IN_STEPS)
        runner.signal(signal.SIGTERM)
        run = runner.finish()

    assert (run.code, run.end["outcome"]) == (143, "interrupted")
    assert run.end["failed"] == [ASKED_TWICE, BROKEN_AUDIT, IN_STEPS, MAKES_DO]
    assert {event["model"]: event["reason"] for event in run.events("model_skipped")} == {
        BEHIND: "upstream_failed",
        FIRST: "nothing_due",
        THIRD: "interrupted",
    }
