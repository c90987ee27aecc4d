"""The session: one bad message does not keep the valid ones from being stored."""

import json
from typing import Any

import dagster as dg
import pytest
from unit.orchestrator.shop import Make, fqn, materialized, run, step_error

from dagster_sqlmesh_pipes import sqlmesh_assets_factory
from dagster_sqlmesh_pipes.launchers.base import ExitStatus
from dagster_sqlmesh_pipes.testing import (
    FakeLauncher,
    check,
    custom,
    finished,
    materialization,
    message,
)

EVENTS, ORDERS = "shop/staging/events", "shop/marts/orders"


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (materialization("shop/marts/nobody"), "asset shop/marts/nobody, which was not requested"),
        (check(EVENTS, "nobody", passed=True), "events:nobody, which was not requested"),
        (materialization(EVENTS), "the asset shop/staging/events twice"),
        (message("report_weather"), "Unknown message method: report_weather"),
        (message("report_asset_check", asset_key=EVENTS), "could not be handled: TypeError"),
        (message("log", message=1), "could not be handled: ParameterCheckError"),
        (custom("model_failed", model=fqn("marts.orders"), error=None), "model_failed could not"),
    ],
    ids=["asset", "check", "twice", "method", "params", "type", "payload"],
)
def test_bad_message_fails_the_step_after_the_rest_is_stored(
    make_resource: Make, bad: dict[str, Any], error: str
) -> None:
    rest = [materialization(ORDERS), check(ORDERS, "positive", passed=False)]
    launcher = FakeLauncher(
        messages=[materialization(EVENTS), bad],
        wait_for_stop=True,
        after_stop=[*rest, finished("interrupted", exit_code=130)],
        exit=ExitStatus(code=130),
    )
    result = run(make_resource(launcher))
    assert not result.success
    assert error in step_error(result)
    assert materialized(result) == [EVENTS, ORDERS]
    assert [each.check_name for each in result.get_asset_check_evaluations()] == ["positive"]


def test_batches_without_result_are_shown_as_incomplete(make_resource: Make) -> None:
    days = [f"2026-01-0{day}T00:00:00+00:00" for day in range(1, 4)]
    batches = [
        custom(
            "batch_finished",
            model=fqn("marts.orders"),
            asset_key=ORDERS,
            batch=number,
            batches=3,
            interval_start=days[number - 1],
            interval_end=days[number],
        )
        for number in (1, 2)
    ]
    ended = custom("batch_finished", model=fqn("staging.events"), asset_key=EVENTS)
    again = custom("batch_finished", model=fqn("marts.customers"), asset_key=None)
    launcher = FakeLauncher(
        messages=[
            custom("run_started", plan_id="7"),
            *(ended, materialization(EVENTS), ended),
            *(*batches, again),
        ],
        exit=ExitStatus(code=137, reason="killed by SIGKILL"),
    )

    result = run(make_resource(launcher))

    assert "broke off" in step_error(result)
    assert materialized(result) == [EVENTS, ORDERS]
    _, incomplete = result.asset_materializations_for_node("sqlmesh_prod")
    metadata: dict[str, Any] = {key: each.value for key, each in incomplete.metadata.items()}
    assert metadata["sqlmesh/complete"] is False
    assert (metadata["sqlmesh/batches"], metadata["sqlmesh/batches_planned"]) == (2, 3)
    assert (metadata["sqlmesh/environment"], metadata["sqlmesh/plan_id"]) == ("prod", "7")
    assert metadata["sqlmesh/interval_end"] - metadata["sqlmesh/interval_start"] == 2 * 86400


def test_dependency_reported_late_is_stored_all_the_same(make_resource: Make) -> None:
    launcher = FakeLauncher(
        messages=[materialization(ORDERS), materialization(EVENTS, rows=3), finished()]
    )
    result = run(make_resource(launcher))
    assert result.success
    assert materialized(result) == [ORDERS, EVENTS]
    events = result.asset_materializations_for_node("sqlmesh_prod")
    assert events[1].metadata["rows"].value == 3


@pytest.mark.parametrize(
    ("reported", "claimed", "error"),
    [
        ([EVENTS], ["staging.events", "marts.orders"], f"materialized {fqn('marts.orders')} with"),
        ([EVENTS, ORDERS], ["marts.orders"], f"reported results of {fqn('staging.events')} with"),
    ],
)
def test_outcome_that_contradicts_the_results_fails_the_step(
    make_resource: Make, reported: list[str], claimed: list[str], error: str
) -> None:
    outcome = finished(materialized=[fqn(name) for name in claimed])
    messages = [*(materialization(key) for key in reported), outcome]
    result = run(make_resource(FakeLauncher(messages=messages)))
    assert not result.success
    assert error in step_error(result)
    assert materialized(result) == reported


def test_unnumbered_outcome_is_not_believed(
    make_resource: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    foreign = json.dumps(finished(materialized=[])).encode()
    result = run(make_resource(FakeLauncher(messages=[materialization(EVENTS), foreign])))
    assert not result.success
    assert "without the outcome of its run" in step_error(result)
    assert "Another process writes to the runner's messages" in capfd.readouterr().err
    assert materialized(result) == [EVENTS]


@pytest.mark.parametrize(
    ("selection", "command"),
    [
        (None, "sqlmesh-runner run --environment prod"),
        (["marts/orders"], "sqlmesh-runner run --environment prod --select marts.orders"),
    ],
    ids=["everything", "one model"],
)
def test_log_has_the_command_that_repeats_the_run(
    make_resource: Make,
    instance: dg.DagsterInstance,
    selection: list[str] | None,
    command: str,
) -> None:
    assets = sqlmesh_assets_factory(sqlmesh_resource=make_resource(FakeLauncher()))
    keys = selection and [f"shop/{key}" for key in selection]
    result = dg.materialize(assets, selection=keys, instance=instance)
    log = [entry.user_message for entry in instance.all_logs(result.run_id)]
    assert f"Started fake runner.\nTo repeat this in a shell: {command}" in log
