"""A dbt project, loaded through SQLMesh, in the environment that `tests/matrix.sh` makes."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from integration.runner.harness import PROJECTS, Finished, ProjectCopy, asset_key, extras

pytestmark = pytest.mark.skipif(find_spec("dbt") is None, reason="dbt is not installed here")

ORDERS, TOTALS, VIEW, SEED = (
    f'"jaffle"."main"."{name}"' for name in ("orders", "totals", "totals_view", "customers")
)
NOT_NULL, UNIQUE = "not_null_orders_id:4f53cda1", "unique_orders_id:4f53cda1"


@pytest.fixture(scope="module")
def planned_jaffle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("planned") / "dbt"
    shutil.copytree(PROJECTS / "dbt", path)
    project = ProjectCopy(path, "jaffle.duckdb")
    project.sql("""
        CREATE SCHEMA raw;
        CREATE TABLE raw.orders AS
        SELECT i::INT AS id, ['ann', 'bob'][i::INT % 2 + 1] AS customer, i::INT AS amount
        FROM RANGE(6) AS numbers(i);
    """)
    project.plan()
    return path


@pytest.fixture
def jaffle(planned_jaffle: Path, tmp_path: Path) -> ProjectCopy:
    return ProjectCopy(Path(shutil.copytree(planned_jaffle, tmp_path / "project")), "jaffle.duckdb")


def _run(project: ProjectCopy) -> Finished:
    asked = extras([ORDERS, TOTALS, VIEW, SEED], selection="all", standalone_audits={})
    asked["models"][ORDERS]["checks"] = {NOT_NULL: "not_null", UNIQUE: "unique"}
    return project.run("--row-counts", extras=asked)


def test_a_dbt_project_runs_and_its_tests_are_checks(jaffle: ProjectCopy) -> None:
    run = _run(jaffle)

    assert (run.code, run.end["outcome"], run.end["unknown_models"]) == (0, "success", [])
    counts = {key: metadata.get("dagster/row_count") for key, metadata in run.materialized.items()}
    assert counts == {asset_key(ORDERS): 6, asset_key(TOTALS): 2, asset_key(VIEW): None}
    assert {name: check["passed"] for (_, name), check in run.checks.items()} == {
        "not_null": True,
        "unique": True,
    }


def test_failed_dbt_test_fails_model_and_skips_downstream(jaffle: ProjectCopy) -> None:
    jaffle.sql("INSERT INTO raw.orders VALUES (NULL, 'ann', 1)")

    run = _run(jaffle)

    assert (run.code, run.end["failed"]) == (1, [ORDERS])
    assert run.checks[asset_key(ORDERS), "not_null"]["audit_failing_rows"] == 1
    assert run.failed(ORDERS)["path"] == "models/orders.sql"
    assert run.skipped(VIEW)["upstream"] == [ORDERS]


def test_dbt_manifest_on_stdout_is_only_json(
    jaffle: ProjectCopy,
) -> None:
    written = jaffle.command("manifest")

    models = {model["name"]: model for model in json.loads(written.stdout)["models"]}
    assert "Registered adapter" in written.stderr
    kinds = {name: model["kind"]["name"] for name, model in models.items()}
    assert kinds == {
        "main.customers": "SEED",
        "main.orders": "INCREMENTAL_BY_UNIQUE_KEY",
        "main.totals": "FULL",
        "main.totals_view": "VIEW",
    }
    orders = models["main.orders"]
    assert (orders["path"], orders["tags"], orders["description"]) == (
        "models/orders.sql",
        ["money"],
        "Orders as they come in.",
    )
    assert [audit["id"] for audit in orders["audits"]] == [NOT_NULL, UNIQUE]
    assert orders["relation"] == "jaffle.main.orders"
    assert written.stdout == jaffle.command("manifest").stdout, "the same files, the same bytes"


def test_dbt_hashes_from_files_equal_those_from_state(jaffle: ProjectCopy) -> None:
    (started,) = _run(jaffle).events("run_started")

    models = json.loads(jaffle.command("manifest").stdout)["models"]
    assert started["environment_models"] == {model["fqn"]: model["data_hash"] for model in models}
