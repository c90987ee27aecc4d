"""Cancelling the queries of running batches, and knowing the one that failed."""

from types import SimpleNamespace
from typing import Any

import duckdb
import pytest
from sqlmesh.core.engine_adapter import EngineAdapter, create_engine_adapter

from sqlmesh_runner.sqlmesh_api.queries import RunningQueries


def _serving(cursor: Any = None, connection: Any = None) -> RunningQueries:
    return RunningQueries(
        lambda _gateway: SimpleNamespace(
            cursor=cursor or object(), connection=connection or object()
        )
    )


@pytest.mark.parametrize(
    ("side", "method"), [("cursor", "interrupt"), ("connection", "cancel"), ("cursor", "cancel")]
)
def test_a_running_batch_is_cancelled_the_way_its_driver_can(side: str, method: str) -> None:
    calls: list[str] = []
    queries = _serving(**{side: SimpleNamespace(**{method: lambda: calls.append(method)})})
    queries.begin(None)

    queries.cancel()
    queries.cancel()

    assert calls == [method, method]


def test_nothing_is_cancelled_outside_a_batch() -> None:
    queries = _serving(cursor=SimpleNamespace(interrupt=pytest.fail))
    queries.cancel()
    queries.begin(None)
    queries.end(None)

    queries.cancel()


def test_driver_that_cannot_cancel_is_passed_over() -> None:
    def refuse() -> None:
        raise RuntimeError

    for queries in (_serving(), _serving(connection=SimpleNamespace(cancel=refuse))):
        queries.begin(None)
        queries.cancel()


@pytest.fixture
def adapter() -> EngineAdapter:
    return create_engine_adapter(duckdb.connect, "duckdb")


def _error_of(adapter: EngineAdapter, sql: str) -> BaseException:
    with (
        RunningQueries().watch(),
        pytest.raises(duckdb.CatalogException, match="nowhere") as raised,
    ):
        adapter.execute(sql)
    error: BaseException = raised.value
    return error


def test_the_query_that_failed_is_known_without_sqlmeshs_mark(adapter: EngineAdapter) -> None:
    error = _error_of(adapter, "/* SQLMESH_RUN: 0a1b */ SELECT * FROM nowhere")

    assert RunningQueries().end(error) == "SELECT * FROM nowhere"
    assert RunningQueries().end(None) is None


@pytest.mark.parametrize("stated", [True, False])
def test_query_is_known_of_errors_that_it_caused(adapter: EngineAdapter, *, stated: bool) -> None:
    outer, other = ValueError("no rows"), ValueError("the service is down")
    setattr(
        outer, "__cause__" if stated else "__context__", _error_of(adapter, "SELECT * FROM nowhere")
    )

    assert RunningQueries().end(outer) == "SELECT * FROM nowhere"
    assert RunningQueries().end(other) is None


def test_a_query_of_many_rows_is_cut(adapter: EngineAdapter) -> None:
    failed = RunningQueries().end(
        _error_of(adapter, "INSERT INTO nowhere VALUES " + "(1), " * 10_000 + "(1)")
    )

    assert failed is not None
    assert failed.endswith("characters)")
    assert len(failed) < 11_000


def test_queries_are_only_watched_while_the_context_lasts(adapter: EngineAdapter) -> None:
    before = EngineAdapter._execute
    with RunningQueries().watch():
        assert EngineAdapter._execute is not before

    assert EngineAdapter._execute is before
