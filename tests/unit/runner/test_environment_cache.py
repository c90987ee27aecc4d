"""An environment's record is parsed once for each plan."""

from typing import Any

import duckdb
import pytest
from sqlglot import exp
from sqlmesh.core.engine_adapter import EngineAdapter, create_engine_adapter

from sqlmesh_runner.sqlmesh_api.environment_cache import cache_environments


class FakeState:
    """Keep which environments were read."""

    def __init__(self, adapter: EngineAdapter) -> None:
        self.engine_adapter = adapter
        self.environment_state = self
        self.environments_table = exp.to_table("environments")
        self.read: list[str] = []

    def get_environment(self, environment: str) -> Any:
        self.read.append(environment)
        return object()


@pytest.fixture
def state() -> FakeState:
    adapter = create_engine_adapter(duckdb.connect, "duckdb")
    adapter.execute("CREATE TABLE environments (name TEXT, plan_id TEXT, finalized_ts BIGINT)")
    adapter.execute("INSERT INTO environments VALUES ('prod', 'p1', 1), ('dev', 'p2', NULL)")
    state = FakeState(adapter)
    cache_environments(state)
    return state


def test_unchanged_environment_is_read_once(state: FakeState) -> None:
    assert state.get_environment("prod") is state.get_environment("prod")
    assert state.read == ["prod"]


@pytest.mark.parametrize("change", ["plan_id = 'p3'", "finalized_ts = 2", "finalized_ts = NULL"])
def test_changed_environment_is_read_again(state: FakeState, change: str) -> None:
    before = state.get_environment("prod")
    state.engine_adapter.execute(f"UPDATE environments SET {change} WHERE name = 'prod'")

    assert state.get_environment("prod") is not before


@pytest.mark.parametrize("name", ["dev", "unknown"])
def test_unfinished_or_unknown_environment_is_read_each_time(state: FakeState, name: str) -> None:
    state.get_environment(name)
    state.get_environment(name)

    assert state.read == [name, name]


def test_state_of_another_kind_is_left_as_it_is() -> None:
    class OtherState:
        def get_environment(self, environment: str) -> str:
            return environment

    state = OtherState()
    cache_environments(state)

    assert "get_environment" not in vars(state)
