"""The shop in the Compose stack: its models as assets, each run of theirs in a container beside
this one.
"""

import os
from collections.abc import Iterator

import dagster as dg
from raw_data import write_raw_tables

from dagster_sqlmesh_pipes.definitions import sqlmesh_definitions_factory
from dagster_sqlmesh_pipes.launchers import remove_orphans
from dagster_sqlmesh_pipes.launchers.docker import DockerLauncher

STACK = os.environ["COMPOSE_PROJECT_NAME"]
"""What Compose puts before the names of networks and volumes."""

LAUNCHER = DockerLauncher(
    image=os.environ["SHOP_RUNNER_IMAGE"],
    network=f"{STACK}_default",
    volumes=[f"{STACK}_cache:/var/cache/sqlmesh"],
    pass_env=["SHOP_PG_HOST", "SHOP_PG_PASSWORD"],
    mem_limit="2g",
    container_kwargs={"read_only": True, "tmpfs": {"/tmp": ""}},
)


@dg.multi_asset(
    specs=[dg.AssetSpec(["raw", table], group_name="raw") for table in ("events", "customers")]
)
def raw_tables() -> Iterator[dg.MaterializeResult]:
    """Write what a web shop's server would have written until now."""
    for table, rows in write_raw_tables().items():
        yield dg.MaterializeResult(asset_key=table.split("."), metadata={"dagster/row_count": rows})


@dg.sensor(minimum_interval_seconds=60, default_status=dg.DefaultSensorStatus.RUNNING)
def orphaned_runners(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Stop and remove runners whose Dagster run is over: its container was killed and could not do
    it.
    """
    orphans = remove_orphans(context.instance, LAUNCHER)
    return dg.SkipReason(
        "\n".join(f"Removed {orphan.name}: {orphan.reason}." for orphan in orphans)
        or "No runner is orphaned."
    )


defs = dg.Definitions.merge(
    sqlmesh_definitions_factory(
        project_dir="/project",  # in the runner's image
        manifest_path="/manifest/manifest.json",  # written by the service `plan`
        gateway="postgres",
        external_asset_mapping="{node.schema}/{node.name}",
        launcher=LAUNCHER,
    ),
    dg.Definitions(assets=[raw_tables], sensors=[orphaned_runners]),
)
