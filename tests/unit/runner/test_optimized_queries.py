"""Optimized queries are in memory while their models run."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlmesh.core.config import Config, DuckDBConnectionConfig, GatewayConfig, ModelDefaultsConfig
from sqlmesh.core.context import Context
from sqlmesh.core.scheduler import Scheduler
from sqlmesh.core.snapshot import Snapshot

from sqlmesh_runner.sqlmesh_api import optimized_queries as module
from sqlmesh_runner.sqlmesh_api.environment import load_snapshots, read_finalized_environment
from sqlmesh_runner.sqlmesh_api.optimized_queries import load_queries_late
from sqlmesh_runner.sqlmesh_api.run_context import RunContext

QUERIES = {"a": "SELECT 1 AS n", "b": "SELECT n FROM s.a", "c": "SELECT n FROM s.b"}


@pytest.fixture
def context(tmp_path: Path) -> Iterator[RunContext]:
    """Return a context over a planned project with no model in memory."""
    (tmp_path / "models").mkdir()
    for name, query in QUERIES.items():
        text = f"MODEL (name s.{name}, kind FULL, start '2024-01-01');\n{query}"
        (tmp_path / "models" / f"{name}.sql").write_text(text)
    connection = DuckDBConnectionConfig(database=str(tmp_path / "data.db"))
    config = Config(
        gateways={"": GatewayConfig(connection=connection)},
        model_defaults=ModelDefaultsConfig(dialect="duckdb"),
    )
    planning = Context(paths=[str(tmp_path)], config=config)
    planning.plan(auto_apply=True, no_prompts=True, execution_time="2024-01-02")
    planning.close()
    context = RunContext(paths=[str(tmp_path)], config=config, load=False)
    yield context
    context.close()


def in_memory(snapshots: dict[str, Snapshot]) -> set[str]:
    """Return the names of the models with a rendered query in memory."""
    return {
        snapshot.model.view_name
        for snapshot in snapshots.values()
        if "_query_renderer" in vars(snapshot.model)
    }


def test_queries_are_loaded_for_the_models_that_run(
    context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEPT", 2)
    environment = read_finalized_environment(context, "prod")
    snapshots = load_snapshots(context, environment.snapshots)
    assert in_memory(snapshots) == set()
    in_turn: list[tuple[str, set[str], bool]] = []
    evaluate = Scheduler.evaluate

    def note(scheduler: Scheduler, snapshot: Snapshot, *args: Any, **kwargs: Any) -> Any:
        model = snapshot.model
        is_loaded = model._query_renderer._optimized_cache is not None
        in_turn.append((model.view_name, in_memory(scheduler.snapshots_by_name), is_loaded))
        return evaluate(scheduler, snapshot, *args, **kwargs)

    monkeypatch.setattr(Scheduler, "evaluate", note)
    context.run("prod")
    assert in_turn == [("a", {"a"}, True), ("b", {"a", "b"}, True), ("c", {"b", "c"}, True)]
    assert context.fetchdf("SELECT n FROM s.c").n.tolist() == [1]


def test_query_that_cannot_be_loaded_is_rendered(context: RunContext) -> None:
    read_finalized_environment(context, "prod")
    queries = load_queries_late(context._provided_state_sync)
    assert queries is not None
    queries._on_disk = None
    assert context.run("prod").is_success


def test_state_of_another_kind_is_left_as_it_is() -> None:
    assert load_queries_late(object()) is None
    assert load_queries_late(None) is None


def test_another_version_of_a_model_gets_its_own_query(context: RunContext) -> None:
    environment = read_finalized_environment(context, "prod")
    queries = load_queries_late(context._provided_state_sync)
    assert queries is not None
    evaluate = queries.loaded_for(lambda snapshot: snapshot.model._query_renderer._optimized_cache)
    (snapshot,) = load_snapshots(context, environment.snapshots[:1]).values()
    for model in (snapshot.model, snapshot.model.copy()):
        assert evaluate(SimpleNamespace(is_model=True, model=model)) is not None
