"""`sqlmesh-runner restate` evaluates again what is promoted, downstream too; deploys nothing."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from integration.runner.harness import (
    ORDERS,
    PROJECTS,
    RUN_AT,
    TOTALS,
    VIEW,
    ProjectCopy,
    asset_key,
    extras,
    sqlmesh,
)
from postgres_server import PostgresServer, postgres_server

LATE_DAY = ("--start", "2026-01-02", "--end", "2026-01-02")


@pytest.fixture
def corrected(orders: ProjectCopy) -> ProjectCopy:
    """A project that ran, and a source that was corrected afterwards."""
    orders.run()
    orders.sql("UPDATE raw.orders SET amount = '100' WHERE ordered_at = '2026-01-02'")
    return orders


def test_late_correction_reaches_downstream_models_once(
    corrected: ProjectCopy,
) -> None:
    restated = corrected.command("restate", *LATE_DAY, extras=extras([ORDERS, TOTALS, VIEW]))

    assert (restated.code, restated.end["outcome"]) == (0, "success")
    assert restated.materialized.keys() == {asset_key(fqn) for fqn in (ORDERS, TOTALS, VIEW)}
    assert restated.checks[asset_key(ORDERS), "not_null"]["passed"]
    plans = {metadata["sqlmesh/plan_id"] for metadata in restated.materialized.values()}
    ((plan_id,),) = corrected.sql("SELECT plan_id FROM sqlmesh._environments")
    assert plans == {plan_id}
    assert corrected.sql("SELECT id, amount FROM staging.orders ORDER BY id") == [
        (number, 100 if 4 <= number <= 6 else number) for number in range(1, 13)
    ]
    assert corrected.sql("SELECT SUM(amount), SUM(orders) FROM marts.totals") == [(363, 12)]
    assert corrected.sql("SELECT SUM(amount) FROM marts.totals_view") == [(363,)]


def test_models_downstream_are_restated_though_not_selected(corrected: ProjectCopy) -> None:
    restated = corrected.command("restate", "--select", "stag*", *LATE_DAY)

    assert restated.code == 0, restated.stderr
    assert corrected.sql("SELECT SUM(amount) FROM marts.totals") == [(363,)]


def test_failing_audit_fails_the_restatement(corrected: ProjectCopy) -> None:
    corrected.sql("UPDATE raw.orders SET id = NULL WHERE ordered_at = '2026-01-02'")

    restated = corrected.command("restate", *LATE_DAY, extras=extras([ORDERS, TOTALS, VIEW]))

    assert (restated.code, restated.end["outcome"]) == (1, "failed")
    assert restated.failed(ORDERS)["audit"] == "not_null"
    assert restated.skipped(TOTALS)["upstream"] == [ORDERS]


def test_changed_files_are_refused_and_change_nothing(corrected: ProjectCopy) -> None:
    totals = corrected.path / "models" / "totals.sql"
    totals.write_text(totals.read_text().replace("SELECT", "SELECT 1 AS added,", 1))
    before = corrected.sql("SELECT * FROM sqlmesh._intervals ORDER BY ALL")

    restated = corrected.command("restate", *LATE_DAY, extras=extras([ORDERS, TOTALS, VIEW]))

    assert (restated.code, restated.end["outcome"]) == (2, "error")
    assert f"files differ from environment 'prod': changed {TOTALS}" in restated.end["error"]
    assert "Restating deploys nothing" in restated.end["error"]
    assert corrected.sql("SELECT * FROM sqlmesh._intervals ORDER BY ALL") == before


def test_restating_everything_by_accident_is_refused(orders: ProjectCopy) -> None:
    restated = orders.command("restate")

    assert restated.code == 2
    assert "Name the models to restate with --select" in restated.stderr


DAYS = """\
MODEL (name marts.days, kind INCREMENTAL_BY_TIME_RANGE (time_column day, batch_size 1));
SELECT day, amount FROM raw.days WHERE day BETWEEN @start_date AND @end_date
"""
TOTAL = "MODEL (name marts.total, kind FULL); SELECT SUM(amount) AS amount FROM marts.days"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as server, pytest.MonkeyPatch.context() as environment:
        environment.setenv("GATES_HOST", str(server.socket))
        environment.setenv("GATES_PORT", str(server.port))
        yield server


def query(server: PostgresServer, *statements: str) -> list[Any]:
    """Run statements, and return the rows of the last one if it has some."""
    connection = server.connect()
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        rows: list[Any] = cursor.fetchall() if cursor.description else []
    connection.close()
    return rows


@pytest.mark.postgres
def test_late_correction_on_postgres_doubles_nothing(
    server: PostgresServer, tmp_path: Path
) -> None:
    (tmp_path / "project" / "models").mkdir(parents=True)
    project = ProjectCopy(tmp_path / "project")
    shutil.copy(PROJECTS / "locked_models" / "config.yaml", project.path)
    (project.path / "models" / "days.sql").write_text(DAYS)
    (project.path / "models" / "total.sql").write_text(TOTAL)
    query(
        server,
        "CREATE SCHEMA raw",
        "CREATE TABLE raw.days AS SELECT DATE '2026-01-01' + i AS day, 1 AS amount "
        "FROM generate_series(0, 3) AS i",
    )
    sqlmesh(
        project.path,
        *("plan", "--auto-apply", "--no-prompts", "--skip-tests", "--execution-time", RUN_AT),
    )
    query(server, "UPDATE raw.days SET amount = 10 WHERE day = '2026-01-02'")

    restated = project.command("restate", "--select", "marts.days", *LATE_DAY)

    assert restated.code == 0, restated.stderr
    rows = query(server, "SELECT day::text, amount FROM marts.days ORDER BY day")
    assert rows == [
        ("2026-01-01", 1),
        ("2026-01-02", 10),
        ("2026-01-03", 1),
        ("2026-01-04", 1),
    ]
    assert query(server, "SELECT amount FROM marts.total") == [(13,)]
