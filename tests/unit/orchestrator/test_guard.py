"""However a step ends, its runner is stopped and each result is stored once before the run ends."""

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import pytest
from unit.orchestrator.shop import Make, model

from dagster_sqlmesh_pipes import (
    SQLMeshResource,
    SQLMeshTranslator,
    sqlmesh_assets,
    sqlmesh_assets_factory,
)
from dagster_sqlmesh_pipes.testing import FakeLauncher, check, finished, materialization

EVENTS, ORDERS = "shop/staging/events", "shop/marts/orders"

Happening = Callable[[], None]


def interrupted() -> FakeLauncher:
    """A runner that goes on until it is stopped, and has more to report then."""
    return FakeLauncher(
        messages=[materialization(EVENTS, rows=1)],
        wait_for_stop=True,
        after_stop=[
            materialization(ORDERS, rows=2),
            check(ORDERS, "positive", passed=False),
            finished("interrupted", exit_code=130),
        ],
    )


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def fail() -> None:
    msg = "database is locked"
    raise RuntimeError(msg)


@pytest.fixture
def on_storing(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, Happening], None]:
    """Let something happen right after the first event of a kind was stored, or after each."""

    def arrange(kind: str, happening: Happening, *, each: bool = False) -> None:
        storage: Any = instance.event_log_storage
        store_event, left = storage.store_event, [happening]

        def store(entry: dg.EventLogEntry) -> None:
            store_event(entry)
            if (
                left
                and entry.dagster_event is not None
                and entry.dagster_event.event_type_value == kind
            ):
                (left[0] if each else left.pop())()

        monkeypatch.setattr(storage, "store_event", store)

    return arrange


def stored(instance: dg.DagsterInstance) -> list[str]:
    """What the log of the one run has: results of its step, and its end."""
    (run,) = instance.get_runs()
    found = []
    for entry in instance.all_logs(run.run_id):
        event = entry.dagster_event
        if event is None:
            continue
        if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION and event.asset_key:
            found.append(f"{event.step_key}: {event.asset_key.to_user_string()}")
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data.asset_check_key
            found.append(f"{event.step_key}: {check.to_user_string()}")
        elif event.event_type == dg.DagsterEventType.RUN_FAILURE:
            found.append("end of the run")
    return found


EVERYTHING = [
    f"sqlmesh_prod: {EVENTS}",
    f"sqlmesh_prod: {ORDERS}",
    f"sqlmesh_prod: {ORDERS}:positive",
    "end of the run",
]


@pytest.mark.parametrize("happening", [terminate, fail])
@pytest.mark.parametrize("kind", ["STEP_OUTPUT", "ASSET_MATERIALIZATION"])
def test_interruption_while_storing_loses_no_result(
    make_resource: Make,
    instance: dg.DagsterInstance,
    on_storing: Callable[..., None],
    kind: str,
    happening: Happening,
) -> None:
    on_storing(kind, happening)

    @dg.asset(deps=[EVENTS.split("/")])
    def downstream() -> None: ...

    assets = sqlmesh_assets_factory(sqlmesh_resource=make_resource(interrupted()))
    if kind == "STEP_OUTPUT":  # results are outputs only where another step uses them
        assets = [*assets, downstream]
    assert not dg.materialize(assets, instance=instance, raise_on_error=False).success
    assert stored(instance) == EVERYTHING
    assert instance.get_dynamic_partitions("sqlmesh/lock/sqlmesh/duckdb") == []  # released


def test_terminating_twice_loses_no_result(
    make_resource: Make, instance: dg.DagsterInstance, on_storing: Callable[..., None]
) -> None:
    on_storing("ASSET_MATERIALIZATION", terminate, each=True)
    assets = sqlmesh_assets_factory(sqlmesh_resource=make_resource(interrupted()))
    assert not dg.materialize(assets, instance=instance, raise_on_error=False).success
    assert stored(instance) == EVERYTHING


def test_function_iterating_over_results_loses_none(
    make_resource: Make, instance: dg.DagsterInstance, on_storing: Callable[..., None]
) -> None:
    resource = make_resource(interrupted())

    @sqlmesh_assets(project=resource.project)
    def models(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource) -> Iterator[Any]:
        for number, result in enumerate(sqlmesh.run(context)):
            context.log.info(f"result {number}")
            yield result

    on_storing("ASSET_MATERIALIZATION", terminate)
    assert not dg.materialize(
        [models], resources={"sqlmesh": resource}, instance=instance, raise_on_error=False
    ).success
    assert stored(instance) == EVERYTHING


def test_next_step_does_not_wait_for_one_that_cannot_store(
    make_resource: Make, instance: dg.DagsterInstance, on_storing: Callable[..., None]
) -> None:
    class Later(SQLMeshTranslator):
        def get_asset_key(self, model: Any) -> dg.AssetKey:
            return super().get_asset_key(model).with_prefix("later")

    on_storing("ASSET_MATERIALIZATION", fail)
    first = sqlmesh_assets_factory(sqlmesh_resource=make_resource(interrupted()), name="first")
    launcher = FakeLauncher(messages=[materialization(f"later/{EVENTS}"), finished()])
    second = sqlmesh_assets_factory(
        sqlmesh_resource=make_resource(launcher, translator=Later()), name="second"
    )
    assert not dg.materialize([*first, *second], instance=instance, raise_on_error=False).success
    assert {f"first: {EVENTS}", f"first: {ORDERS}", f"second: later/{EVENTS}"} < set(
        stored(instance)
    )


def test_sqlmesh_is_not_run_by_other_assets(make_resource: Make) -> None:
    resource = make_resource(launcher := FakeLauncher(), [model("staging.events")])

    @dg.asset(key=["shop", "staging", "events"])
    def events(context: dg.AssetExecutionContext) -> None:
        list(resource.run(context))

    result = dg.materialize([events], raise_on_error=False)
    error = result.get_step_failure_events()[0].step_failure_data.error
    assert error is not None
    assert (
        "SQLMesh is run by assets that @sqlmesh_assets or sqlmesh_assets_factory made"
        in error.to_string()
    )
    assert launcher.requests == []
