"""A restatement from the launchpad: what the runner is asked for, and what Dagster stores."""

from typing import Any

import dagster as dg
from unit.orchestrator.shop import Make, audit, fqn, materialized, model, run, step_error

from dagster_sqlmesh_pipes.testing import FakeLauncher, check, finished, materialization

MODELS = [
    model("staging.events"),
    model("staging.inlined", kind={"name": "EMBEDDED"}, materialized=False)
    | {"depends_on": [fqn("staging.events")]},
    model("marts.orders", depends_on=[fqn("staging.inlined")], audits=[audit("not_null")]),
    model(
        "marts.kept",
        kind={"name": "INCREMENTAL_BY_TIME_RANGE", "disable_restatement": True},
        depends_on=[fqn("staging.events")],
    ),
    model("marts.other"),
]
EVENTS = dg.AssetKey(["shop", "staging", "events"])


def config(**options: Any) -> dict[str, Any]:
    return {"ops": {"sqlmesh_prod": {"config": {"restate": True, **options}}}}


def test_restatement_reports_unselected_downstream_models(make_resource: Make) -> None:
    launcher = FakeLauncher(
        messages=[
            materialization("shop/staging/events"),
            materialization("shop/marts/orders"),
            check("shop/marts/orders", "not_null", passed=True),
            finished(),
        ]
    )
    resource = make_resource(launcher, MODELS, allow_restate=True)
    result = run(
        resource, selection=[EVENTS], run_config=config(start="2026-01-01", end="2026-01-02")
    )
    assert result.success
    assert sorted(materialized(result)) == ["shop/marts/orders", "shop/staging/events"]
    (evaluation,) = result.get_asset_check_evaluations()
    assert (evaluation.check_name, evaluation.passed) == ("not_null", True)
    (request,) = launcher.requests
    assert request.arguments[0] == "restate"
    assert " ".join(request.arguments).endswith("--start 2026-01-01 --end 2026-01-02")
    extras: Any = request.context["extras"]
    assert extras["selection"] == "models"
    assert {*extras["models"]} == {fqn("staging.events"), fqn("marts.orders")}


def test_restatement_of_checks_alone_fails(make_resource: Make) -> None:
    launcher = FakeLauncher()
    resource = make_resource(launcher, MODELS, allow_restate=True)
    checks = dg.AssetSelection.checks_for_assets(dg.AssetKey(["shop", "marts", "orders"]))
    result = run(resource, selection=checks, run_config=config(start="2026-01-01"))
    assert "select the assets of the models" in step_error(result)
    assert launcher.requests == []
