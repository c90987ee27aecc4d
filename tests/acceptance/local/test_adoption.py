"""Dagster shows what SQLMesh recorded without it, from the next run on."""

import dagster as dg
from acceptance.local.conftest import Deploy
from acceptance.local.planned import PLANNED_AT, RUN_AT

DOWNSTREAM = """\
import dagster as dg
from dagster_sqlmesh_pipes import SQLMeshResource, sqlmesh_assets_factory

resource = SQLMeshResource(project_dir={project!r})
assets = sqlmesh_assets_factory(sqlmesh_resource=resource)


@dg.asset(deps=[dg.AssetKey(["audited", "audited", "orders"])])
def report() -> None: ...


defs = dg.Definitions(assets=[*assets, report])
"""


def test_first_run_after_the_plan_shows_every_model_once(deploy: Deploy) -> None:
    deployment = deploy("audited_models")
    deployment.write_definitions(DOWNSTREAM.format(project=str(deployment.project)))
    first = deployment.execute(config={"execution_time": PLANNED_AT})
    assert first.success, first.error
    with deployment.instance() as instance:
        known = {
            key.path[-1]
            for key in instance.all_asset_keys()
            if instance.get_latest_materialization_event(key)
        }
    assert first.adopted.keys() | {"report"} == known
    assert "report" in first.materialized  # it is downstream of an adopted asset
    again = deployment.execute(config={"execution_time": PLANNED_AT})
    assert again.success
    assert again.adopted == {}


def test_run_in_a_shell_is_shown_by_the_next_run(deploy: Deploy) -> None:
    deployment = deploy("audited_models")
    deployment.execute(config={"execution_time": PLANNED_AT})
    deployment.sqlmesh_runner("run", "--execution-time", RUN_AT)
    run = deployment.execute(config={"execution_time": RUN_AT})
    assert run.success
    assert "orders" in run.adopted
    assert "orders" not in run.materialized
    with deployment.instance() as instance:
        event = instance.get_latest_materialization_event(
            dg.AssetKey(["audited", "audited", "orders"])
        )
    assert event is not None
