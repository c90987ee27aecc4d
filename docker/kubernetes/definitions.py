"""The shop on Kubernetes: its models as assets, each run of theirs in a pod of its own."""

import os
from collections.abc import Iterator

import dagster as dg
from raw_data import write_raw_tables

from dagster_sqlmesh_pipes import (
    KubernetesLauncher,
    remove_orphans,
    sqlmesh_definitions_factory,
)

LAUNCHER = KubernetesLauncher(
    image=os.environ["RUNNER_IMAGE"],
    image_pull_policy="IfNotPresent",
    env_secrets=["warehouse"],
    resources={"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}},
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
    """Stop and remove runners whose Dagster run has finished: its process died."""
    orphans = remove_orphans(context.instance, LAUNCHER)
    return dg.SkipReason(
        "\n".join(f"Removed {orphan.name}: {orphan.reason}." for orphan in orphans)
        or "No runner is orphaned."
    )


defs = dg.Definitions.merge(
    sqlmesh_definitions_factory(
        project_dir="/project",  # in the runner's image
        manifest_path="/manifest/manifest.json",  # written by the runner's image at the pod's start
        gateway="postgres",
        external_asset_mapping="{node.schema}/{node.name}",
        launcher=LAUNCHER,
    ),
    dg.Definitions(assets=[raw_tables], sensors=[orphaned_runners]),
)
