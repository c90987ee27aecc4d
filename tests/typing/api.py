"""The public API as its users write it. Never run: mypy reads it, so that a change of a signature is noticed."""

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


launcher = pipes.SubprocessLauncher(executable="/opt/sqlmesh/bin/sqlmesh-runner", pass_env=["AWS_*"], env={"A": "b"}, stop_grace=10)
container = pipes.DockerLauncher(image="warehouse-runner", network="default", mem_limit="2g", env={"A": "b"})

project = pipes.SQLMeshProject("warehouse", gateway="snowflake", environment="prod", launcher=launcher)
project.prepare_if_dev()


@pipes.sqlmesh_assets(project=project, translator=Translator(), group_name="warehouse", owners=["team:data"])
def warehouse(
    context: dg.AssetExecutionContext, sqlmesh: pipes.SQLMeshResource
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult | dg.AssetObservation]:
    yield dg.AssetObservation("landing")
    yield from sqlmesh.run(context, pipes.SQLMeshRunConfig(ignore_cron=True))


resource = pipes.SQLMeshResource(project_dir="warehouse", launcher=container, translator=Translator(), concurrency_limit=1)
assets: list[dg.AssetsDefinition | dg.AssetSpec] = pipes.sqlmesh_assets_factory(sqlmesh_resource=resource, op_tags={"a": "b"})
schedule, job, scheduled = pipes.sqlmesh_adaptive_schedule_factory(
    sqlmesh_resource=resource, name="nightly", selection="all", assets=assets
)

definitions: dg.Definitions = pipes.sqlmesh_definitions_factory(
    project_dir="warehouse",
    environment="prod",
    external_asset_mapping="sling/{node.name}",
    retry_policy=dg.RetryPolicy(max_retries=2),
    pool="warehouse",
    wait_for_others=False,
    skip_janitor=True,
    freshness_policy=lambda model: pipes.freshness_from_cron(model, grace=datetime.timedelta(hours=2)),
)

fake = FakeLauncher(messages=[message("closed")])


def said(request: LaunchRequest) -> list[dict[str, Any]]:
    key = dg.AssetKey(["shop", "orders"])
    return [materialization(key, rows=3), check("shop/orders", "not_null", passed=True, rows=0), finished(request.arguments[0])]


answering = FakeLauncher(messages=said)
