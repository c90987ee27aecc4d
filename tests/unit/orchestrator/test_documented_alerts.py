"""What the hooks and sensors of the documentation do."""

from typing import Any

import dagster as dg
import pytest
from documentation import as_module, pages_with
from unit.orchestrator.shop import Make, fqn, run

from dagster_sqlmesh_pipes import sqlmesh_assets_factory
from dagster_sqlmesh_pipes.testing import FakeLauncher, check, custom, finished, materialization

FAILING = [custom("model_failed", model=fqn("marts.orders"), error="boom"), finished("failed")]
WARNING = [
    materialization("shop/marts/orders"),
    check("shop/marts/orders", "positive", passed=False, severity="WARN"),
    finished(),
]


def defined_on(page: str) -> dict[str, Any]:
    """Run a page's Python, and return what it defines."""
    found: dict[str, Any] = {"__name__": "documented"}
    exec(compile(as_module(pages_with("python")[page]), page, "exec"), found)
    return found


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> frozenset[dg.HookDefinition]:
    monkeypatch.setattr("dagster_sqlmesh_pipes.sqlmesh_definitions_factory", lambda **_: None)
    found = defined_on("docs/how-to/hooks.md")
    return frozenset(each for each in found.values() if isinstance(each, dg.HookDefinition))


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        (FAILING, 'Failed: [\'"shop"."marts"."orders"\']'),
        (WARNING, "Everything that was due has run."),
    ],
)
def test_documented_hooks_say_how_the_run_ended(
    make_resource: Make,
    hooks: frozenset[dg.HookDefinition],
    messages: list[Any],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(make_resource(FakeLauncher(messages=messages)), hooks=hooks)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("messages", "sensor", "sent"),
    [
        (FAILING, "alert_on_failed_models", 'failed: [\'"shop"."marts"."orders"\']'),
        (WARNING, "alert_on_audits", "shop/marts/orders: positive failed"),
    ],
)
def test_documented_sensors_send_what_failed(
    make_resource: Make,
    instance: dg.DagsterInstance,
    capsys: pytest.CaptureFixture[str],
    *,
    messages: list[Any],
    sensor: str,
    sent: str,
) -> None:
    found = defined_on("docs/how-to/monitoring.md")
    assets = sqlmesh_assets_factory(sqlmesh_resource=make_resource(FakeLauncher(messages=messages)))
    result = dg.materialize(assets, instance=instance, raise_on_error=False)
    ending = result.all_events[-1]
    context: Any = dg.build_run_status_sensor_context(sensor, ending, instance, result.dagster_run)
    found[sensor](context if result.success else context.for_run_failure())
    assert sent in capsys.readouterr().out
