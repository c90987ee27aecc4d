"""When a model is due next, by SQLMesh's own models."""

from datetime import UTC, datetime

import pytest
from sqlmesh.core.dialect import parse
from sqlmesh.core.model import load_sql_based_model
from sqlmesh.core.snapshot import Snapshot

from sqlmesh_runner.sqlmesh_api.run_scope import next_due


def _snapshot(properties: str) -> Snapshot:
    kind = "INCREMENTAL_BY_TIME_RANGE (time_column day)"
    model = load_sql_based_model(
        parse(f"MODEL (name a.m, kind {kind}, {properties}); SELECT @start_ds AS day"),
        dialect="duckdb",
    )
    return Snapshot.from_node(model, nodes={})


@pytest.mark.parametrize(
    ("properties", "due"),
    [
        ("start '2099-01-01'", datetime(2099, 1, 2, tzinfo=UTC)),
        ("start '2099-01-01', cron '0 12 * * *'", datetime(2099, 1, 2, 12, tzinfo=UTC)),
        ("start '2099-01-01', cron '@hourly'", datetime(2099, 1, 1, 1, tzinfo=UTC)),
        ("start '2099-01-01', end '2099-01-31', cron '@daily'", datetime(2099, 1, 2, tzinfo=UTC)),
        ("start '2020-01-01', end '2020-01-31'", None),
        ("start '2020-01-01', end '2020-01-31 12:00:00', cron '@hourly'", None),
    ],
)
def test_next_due_is_the_first_tick_between_start_and_end(
    properties: str, due: datetime | None
) -> None:
    assert next_due(_snapshot(properties)) == due


@pytest.mark.parametrize(
    "properties", ["start '2020-01-01'", "start '2020-01-01', end '2099-01-01'"]
)
def test_next_due_of_a_current_model_is_the_next_tick(properties: str) -> None:
    snapshot = _snapshot(properties)

    before = snapshot.node.cron_next(datetime.now(tz=UTC))
    due = next_due(snapshot)
    after = snapshot.node.cron_next(datetime.now(tz=UTC))

    assert due in {before, after}, "midnight may come in between"


def test_next_due_counts_from_execution_time() -> None:
    due = next_due(_snapshot("start '2020-01-01'"), at="2026-01-05 06:00:00")
    assert due == datetime(2026, 1, 6, tzinfo=UTC)
