"""A restatement from Dagster's launchpad on PostgreSQL, after a late correction of the source."""

import textwrap
from pathlib import Path

import pytest
from acceptance.local.deployment import Deployment, preloaded_runner
from acceptance.schedule.conftest import Database

CONFIG = """\
gateways:
  pg:
    connection:
      type: postgres
      host: 127.0.0.1
      port: {port}
      user: postgres
      password: postgres
      database: {name}
model_defaults:
  dialect: postgres
  start: 2026-01-01
"""
MODELS = {
    "orders": """
        MODEL (
          name sales.orders,
          kind INCREMENTAL_BY_TIME_RANGE (time_column day),
          audits (not_null(columns := (amount)))
        );
        SELECT day::DATE AS day, amount::INT AS amount FROM source.orders
        WHERE day BETWEEN @start_ds AND @end_ds
    """,
    "totals": """
        MODEL (name sales.totals, kind INCREMENTAL_BY_TIME_RANGE (time_column day));
        SELECT day, SUM(amount)::INT AS total FROM sales.orders
        WHERE day BETWEEN @start_ds AND @end_ds GROUP BY day
    """,
}
SOURCE = """
    CREATE SCHEMA source;
    CREATE TABLE source.orders AS
    SELECT day::DATE AS day, 10 AS amount
    FROM GENERATE_SERIES('2026-01-01'::DATE, '2026-01-05', '1 day') AS t(day)
"""
ROWS = "SELECT COUNT(*), SUM(amount) FROM sales.orders"
TOTALS = "SELECT COUNT(*), SUM(total) FROM sales.totals"


@pytest.fixture
def deployment(tmp_path: Path, database: Database) -> Deployment:
    """Deploy two models, one above the other, planned with the source as it was first."""
    project = tmp_path / "sales"
    (project / "models").mkdir(parents=True)
    (project / "config.yaml").write_text(CONFIG.format(port=database.port, name=database.name))
    for name, text in MODELS.items():
        (project / "models" / f"{name}.sql").write_text(textwrap.dedent(text))
    connection = database.connect()
    connection.cursor().execute(SOURCE)
    connection.close()
    deployment = Deployment(root=tmp_path, project=project, runner=preloaded_runner())
    deployment.sqlmesh("plan", "--auto-apply", "--no-prompts")
    deployment.write(allow_restate=True)
    return deployment


def test_restatement_corrects_rows_downstream_too_and_doubles_none(
    deployment: Deployment, database: Database
) -> None:
    assert database.ask(ROWS) == database.ask(TOTALS) == (5, 50)
    connection = database.connect()
    connection.cursor().execute("UPDATE source.orders SET amount = 15 WHERE day = '2026-01-03'")
    connection.close()
    config = {"restate": True, "start": "2026-01-03", "end": "2026-01-03"}
    run = deployment.materialize('key:"*sales/orders"', config=config)
    assert run.success, run.error
    assert set(run.materialized) == {"orders", "totals"}
    assert run.verdicts == {("orders", "not_null"): (True, "ERROR")}
    assert database.ask(ROWS) == database.ask(TOTALS) == (5, 55)


def test_restatement_with_other_files_than_planned_is_refused(
    deployment: Deployment, database: Database
) -> None:
    model = deployment.project / "models" / "orders.sql"
    model.write_text(model.read_text().replace("amount::INT", "2 * amount::INT"))
    config = {"restate": True, "start": "2026-01-03"}
    run = deployment.materialize('key:"*sales/orders"', config=config)
    assert not run.success
    assert "differ from environment 'prod'" in run.error
    assert database.ask(ROWS) == (5, 50)
