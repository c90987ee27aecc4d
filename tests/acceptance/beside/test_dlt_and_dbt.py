"""One code location with dlt upstream of SQLMesh's EXTERNAL models, and dbt downstream of them.

`make test-beside` runs it, in an environment with dagster-dlt and dagster-dbt.
"""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from documentation import blocks

for package in ("dagster_dlt", "dagster_dbt"):
    pytest.importorskip(package, reason=f"{package} is not installed; see tests/beside.sh")

# Those of dlt and dbt.
pytestmark = pytest.mark.filterwarnings("ignore")

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "dlt_and_dbt"
RUNNER_BIN = ROOT / ".venv-runner" / "bin"

ORDERS, REVENUE, BEST_DAY = (
    dg.AssetKey(path) for path in ("dlt_shop_orders", ["warehouse", "marts", "revenue"], "best_day")
)


@dataclass(frozen=True)
class Example:
    """The example, after a load by dlt and a plan by SQLMesh."""

    module: Any
    warehouse: Path

    @property
    def definitions(self) -> dg.Definitions:
        definitions: dg.Definitions = self.module.defs
        return definitions

    def rows(self, query: str) -> list[Any]:
        import duckdb  # noqa: PLC0415 - only this environment has it

        with duckdb.connect(str(self.warehouse)) as connection:
            rows: list[Any] = connection.execute(query).fetchall()
            return rows


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = Path(shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("beside") / "example"))
    warehouse = folder / "warehouse.db"
    variables = {
        "DAGSTER_IS_DEV_CLI": "1",  # makes both manifests
        "DLT_DATA_DIR": str(folder / "dlt"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "SQLMESH_RUNNER": str(RUNNER_BIN / "sqlmesh-runner"),
        "SQLMESH__DISABLE_ANONYMIZED_ANALYTICS": "true",
        "WAREHOUSE": str(warehouse),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        module = load(folder / "definitions.py")
        module.pipeline.run(module.shop())
        plan(folder / "warehouse", {**os.environ})
        yield Example(module, warehouse)


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("dlt_and_dbt", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dlt looks for it there
    spec.loader.exec_module(module)
    return module


def plan(project: Path, environ: Mapping[str, str]) -> None:
    options = ("--auto-apply", "--no-prompts", "--skip-tests", "--execution-time", "2026-01-05")
    subprocess.run(
        [RUNNER_BIN / "sqlmesh", "plan", *options],
        cwd=project,
        env=environ,
        check=True,
        capture_output=True,
    )


def test_graph_goes_from_dlt_through_sqlmesh_to_dbt(example: Example) -> None:
    graph = example.definitions.resolve_asset_graph()
    assert graph.get(REVENUE).parent_keys == {ORDERS}
    assert graph.get(BEST_DAY).parent_keys == {REVENUE}


def test_one_run_loads_evaluates_and_reports(example: Example) -> None:
    job = example.definitions.resolve_implicit_global_asset_job_def()
    config = {"ops": {"sqlmesh_prod": {"config": {"execution_time": "2026-01-10"}}}}
    result = job.execute_in_process(run_config=config)
    keys = [event.asset_key for event in result.get_asset_materialization_events()]
    assert keys == [ORDERS, REVENUE, BEST_DAY]
    (audit,) = result.get_asset_check_evaluations()
    assert (audit.asset_key, audit.check_name, audit.passed) == (REVENUE, "not_null", True)
    assert example.rows("SELECT day::TEXT, revenue FROM reports.best_day") == [("2026-01-02", 9)]


def test_compiled_sqlglot_is_installed_and_sqlmesh_is_not() -> None:
    """It comes with dagster-dbt, and is why SQLMesh has an environment of its own."""
    installed = {each.metadata["Name"] for each in importlib.metadata.distributions()}
    assert "sqlglotc" in installed
    assert "sqlmesh" not in installed


def test_documented_source_of_dbt_is_the_examples() -> None:
    (block,) = (block for block in blocks("yaml") if block.title == "sources.yml")
    assert block.text == (EXAMPLE / "reports" / "models" / "sources.yml").read_text()
