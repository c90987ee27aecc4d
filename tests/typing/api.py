"""The public API as its users write it. Never run: mypy notices changed signatures."""

import datetime
from collections.abc import Iterator
from typing import Any

import dagster as dg

import dagster_sqlmesh_pipes as pipes
from dagster_sqlmesh_pipes.launchers.base import LaunchRequest
from dagster_sqlmesh_pipes.manifest import Manifest, Model
from dagster_sqlmesh_pipes.testing import FakeLauncher, check, finished, materialization, message


class Translator(pipes.SQLMeshTranslator):
    def get_asset_key(self, model: Model) -> dg.AssetKey:
        return dg.AssetKey([model.schema_name, model.view_name])

    def get_group_name(self, context: Manifest, model: Model) -> str | None:
        return model.schema_name if model.fqn in context.models else None


launcher = pipes.SubprocessLauncher(
    executable="/opt/sqlmesh/bin/sqlmesh-runner", pass_env=["AWS_*"], env={"A": "b"}, stop_grace=10
)
container = pipes.DockerLauncher(
    image="warehouse-runner", network="default", mem_limit="2g", env={"A": "b"}
)

project = pipes.SQLMeshProject(
    "warehouse", gateway="snowflake", environment="prod", launcher=launcher
)
project.prepare_if_dev()


@pipes.sqlmesh_assets(
    project=project, translator=Translator(), group_name="warehouse", owners=["team:data"]
)
def warehouse(context: dg.AssetExecutionContext, sqlmesh: pipes.SQLMeshResource) -> Iterator[Any]:
    yield dg.AssetObservation("landing")
    yield from sqlmesh.run(context, pipes.SQLMeshRunConfig(ignore_cron=True))


resource = pipes.SQLMeshResource(
    project_dir="warehouse", launcher=container, translator=Translator(), concurrency_limit=1
)
assets: list[dg.AssetsDefinition | dg.AssetSpec] = pipes.sqlmesh_assets_factory(
    sqlmesh_resource=resource, op_tags={"a": "b"}
)
schedule, job, scheduled = pipes.sqlmesh_adaptive_schedule_factory(
    sqlmesh_resource=resource, name="nightly", selection="all", assets=assets
)
sensor: dg.SensorDefinition = pipes.sqlmesh_state_sensor_factory(
    sqlmesh_resource=resource, assets=assets, enable_sensor=True, minimum_interval_seconds=60
)

definitions: dg.Definitions = pipes.sqlmesh_definitions_factory(
    project_dir=["warehouse", "stock"],
    environment="prod",
    select="marts.*",
    external_asset_mapping="sling/{node.name}",
    retry_policy=dg.RetryPolicy(max_retries=2),
    pool="warehouse",
    lock_timeout=0,
    skip_janitor=True,
    freshness_policy=lambda model: pipes.freshness_from_cron(
        model, grace=datetime.timedelta(hours=2)
    ),
)

marts = pipes.build_sqlmesh_asset_selection(sqlmesh_resource=resource, select="+tag:finance")
monthly: dg.ScheduleDefinition = pipes.build_schedule_from_sqlmesh_selection(
    sqlmesh_resource=resource, job_name="monthly", cron_schedule="@monthly", select=["marts.*"]
)


class Component(pipes.SQLMeshProjectComponent):
    def get_asset_spec(self, context: Manifest, model: Model, base: dg.AssetSpec) -> dg.AssetSpec:
        return super().get_asset_spec(context, model, base).merge_attributes(tags={"a": "b"})

    def execute(
        self,
        context: dg.AssetExecutionContext,
        sqlmesh: pipes.SQLMeshResource,
        config: pipes.SQLMeshRunConfig,
    ) -> Iterator[Any]:
        yield from super().execute(context, sqlmesh, config)


component = Component(
    project_dir=["warehouse"], environment="prod", launcher=launcher, select=["marts.*"]
)

fake = FakeLauncher(messages=[message("closed")])


def said(request: LaunchRequest) -> list[dict[str, Any]]:
    key = dg.AssetKey(["shop", "orders"])
    return [
        materialization(key, rows=3),
        check("shop/orders", "not_null", passed=True, rows=0),
        finished(request.arguments[0]),
    ]


answering = FakeLauncher(messages=said)
