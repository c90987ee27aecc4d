"""Projects planned on 2 January 2026 and run on 5 January, when three days are due."""

import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
from acceptance.local.deployment import PROJECTS, Deployment, Run, copy_of, preloaded_runner

PLANNED_AT = "2026-01-02 00:00:00"
RUN_AT = "2026-01-05 00:00:00"


def planned_at_a_fixed_time(
    name: str, tmp_path_factory: pytest.TempPathFactory, *, database: str = "audited.duckdb"
) -> Path:
    """Fill a project's raw tables and plan it, once a session."""
    planned = tmp_path_factory.getbasetemp() / "planned" / name
    if not planned.exists():
        root = tmp_path_factory.mktemp(name)
        project = Path(shutil.copytree(PROJECTS / name, root / name))
        if (project / "raw.sql").exists():
            sql(project / database, (project / "raw.sql").read_text())
        deployment = Deployment(root=root, project=project)
        deployment.sqlmesh(
            "plan", "--auto-apply", "--no-prompts", "--skip-tests", "--execution-time", PLANNED_AT
        )
        planned.parent.mkdir(exist_ok=True)
        project.rename(planned)  # a plan that fails leaves nothing there
    return planned


def deploy_planned(
    name: str,
    tmp_path_factory: pytest.TempPathFactory,
    *,
    env: dict[str, str] | None = None,
    runner: Path | None = None,
    **settings: Any,
) -> Deployment:
    """Deploy a copy of a planned project. Its runner is a preloaded one by default."""
    planned = planned_at_a_fixed_time(name, tmp_path_factory)
    root = tmp_path_factory.mktemp(name)
    deployment = Deployment(
        root=root,
        project=copy_of(planned, root / name),
        env=env or {},
        runner=runner or preloaded_runner(),
    )
    deployment.write(**settings)
    return deployment


def sql(database: Path, statement: str) -> list[Any]:
    """Run SQL on a DuckDB database, which no runner may have open meanwhile."""
    with duckdb.connect(str(database)) as connection:
        rows: list[Any] = connection.execute(statement).fetchall()
        return rows


def recorded_until(project: Path, database: str = "audited.duckdb") -> dict[str, str]:
    """Return the last day that SQLMesh's state has recorded for each model, by its plain name."""
    rows = sql(
        project / database,
        "SELECT name, MAX(epoch_ms(end_ts)) FROM sqlmesh._intervals "
        "WHERE NOT is_removed AND NOT is_dev GROUP BY name",
    )
    return {name.replace('"', "").rpartition(".")[2]: str(end)[:10] for name, end in rows}


def values(
    event: dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.AssetObservation,
) -> dict[str, Any]:
    """Return an event's metadata as plain values."""
    return {key: value.value for key, value in event.metadata.items()}


def observations(run: Run) -> list[dg.AssetObservation]:
    """Return the observations of a run that hold results of audits on EXTERNAL models."""
    found = [entry.asset_observation for entry in run.logs if entry.asset_observation is not None]
    of_failures = {"sqlmesh/error", "sqlmesh/failed"}
    return [each for each in found if of_failures.isdisjoint(each.metadata)]
