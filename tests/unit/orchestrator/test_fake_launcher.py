"""The launcher that users test their code locations with."""

from typing import Any

import dagster as dg
from unit.orchestrator.shop import Make, fqn, materialized, run

from dagster_sqlmesh_pipes.launchers.base import LaunchRequest
from dagster_sqlmesh_pipes.testing import FakeLauncher, check, custom, finished, materialization

EVENTS, ORDERS = (
    dg.AssetKey(["shop", *name]) for name in (("staging", "events"), ("marts", "orders"))
)


def test_by_default_nothing_was_due(make_resource: Make) -> None:
    result = run(make_resource(FakeLauncher()))
    assert result.success
    assert materialized(result) == []


def test_results_are_said_by_key_name_and_plain_metadata(make_resource: Make) -> None:
    messages = [
        materialization(EVENTS, rows=3),
        check("shop/staging/events", "not_null", passed=False, why="two were"),
        finished(),
    ]
    result = run(make_resource(FakeLauncher(messages=messages)))
    (event,) = result.get_asset_materialization_events()
    assert event.materialization.metadata["rows"].value == 3
    (evaluation,) = result.get_asset_check_evaluations()
    assert (evaluation.asset_key, evaluation.passed, evaluation.metadata["why"].value) == (
        EVENTS,
        False,
        "two were",
    )


def test_each_runner_that_a_step_starts_can_say_something_else(make_resource: Make) -> None:
    """An asset and the check of another one are two runners."""

    def said(request: LaunchRequest) -> list[Any]:
        if request.arguments[0] == "audit":
            return [check(EVENTS, "not_null", passed=True), finished()]
        return [materialization(ORDERS), finished()]

    selection = dg.AssetSelection.assets(ORDERS).without_checks() | dg.AssetSelection.checks(
        dg.AssetCheckKey(EVENTS, "not_null")
    )
    launcher = FakeLauncher(messages=said)
    result = run(make_resource(launcher), selection=selection)
    assert result.success
    assert [request.arguments[0] for request in launcher.requests] == ["run", "audit"]
    assert materialized(result) == ["shop/marts/orders"]
    assert [evaluation.check_name for evaluation in result.get_asset_check_evaluations()] == [
        "not_null"
    ]


def test_a_retry_can_end_otherwise_than_the_first_try(make_resource: Make) -> None:
    failed = custom("model_failed", model=fqn("marts.orders"), error="a deadlock")
    tries = iter([[failed, finished("failed")], [materialization(ORDERS), finished()]])
    launcher = FakeLauncher(messages=lambda _request: next(tries))
    result = run(make_resource(launcher), retry_policy=dg.RetryPolicy(max_retries=1))
    assert result.success
    assert len(launcher.requests) == 2
    assert materialized(result) == ["shop/marts/orders"]
