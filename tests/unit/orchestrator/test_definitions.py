"""Everything for a project from one call, also several times in a code location."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
from unit.orchestrator.shop import SHOP, manifest

from dagster_sqlmesh_pipes import SQLMeshTranslator, sqlmesh_definitions_factory
from dagster_sqlmesh_pipes.testing import FakeLauncher, finished, materialization


class Dev(SQLMeshTranslator):
    def get_asset_key(self, model: Any) -> dg.AssetKey:
        return super().get_asset_key(model).with_prefix("dev")


def definitions(
    folder: Path, *, launcher: FakeLauncher | None = None, **options: Any
) -> dg.Definitions:
    path = folder / "manifest.json"
    path.write_text(json.dumps(manifest(SHOP)))
    return sqlmesh_definitions_factory(
        manifest_path=path, launcher=launcher or FakeLauncher(), **options
    )


def names(made: dg.Definitions) -> list[str]:
    return sorted(
        job.name
        for job in made.get_repository_def().get_all_jobs()
        if not job.name.startswith("__")
    )


def test_two_environments_of_a_project_fit_into_one_code_location(tmp_path: Path) -> None:
    merged = dg.Definitions.merge(
        definitions(tmp_path), definitions(tmp_path, environment="dev", translator=Dev())
    )
    dg.Definitions.validate_loadable(merged)
    assert names(merged) == ["sqlmesh_adaptive_schedule_job", "sqlmesh_dev_adaptive_schedule_job"]


def test_two_projects_fit_into_one_location_by_name(tmp_path: Path) -> None:
    merged = dg.Definitions.merge(
        definitions(tmp_path), definitions(tmp_path, name="stock", translator=Dev())
    )
    dg.Definitions.validate_loadable(merged)
    assert names(merged) == ["sqlmesh_adaptive_schedule_job", "stock_adaptive_schedule_job"]


def test_the_options_reach_the_runner_and_the_op(tmp_path: Path) -> None:
    launcher = FakeLauncher(messages=[materialization("shop/marts/orders"), finished()])
    made = definitions(
        tmp_path, launcher=launcher, skip_janitor=True, ignore_cron=True, pool="warehouse"
    )
    job = made.resolve_job_def("sqlmesh_adaptive_schedule_job")
    assert job.execute_in_process().success
    assert launcher.requests[0].arguments == [
        "run",
        "--environment",
        "prod",
        "--ignore-cron",
        "--skip-janitor",
    ]
    assert job.get_node_named("sqlmesh_prod").definition.pools == {"warehouse"}
