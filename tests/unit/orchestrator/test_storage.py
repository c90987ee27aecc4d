"""A step's connections to Dagster's event log on SQLite, which it keeps."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from unit.orchestrator.shop import Make

from dagster_sqlmesh_pipes import SQLMeshResource, sqlmesh_assets
from dagster_sqlmesh_pipes.run.storage import connected
from dagster_sqlmesh_pipes.testing import FakeLauncher, finished, materialization

NOT_WRITTEN_THROUGH = "**/*.db-wal"
"""SQLite has these files until the last connection to their database is closed."""


def test_files_are_closed_once_in_a_step(
    make_resource: Make, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    reported = [materialization("shop/staging/events"), materialization("shop/marts/orders")]
    resource = make_resource(FakeLauncher(messages=[*reported, finished()]))
    after_each: list[set[str]] = []

    @sqlmesh_assets(project=resource.project)
    def models(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource) -> Iterator[Any]:
        for result in sqlmesh.run(context):
            yield result
            after_each.append({path.stem for path in tmp_path.glob(NOT_WRITTEN_THROUGH)})

    run = dg.materialize([models], resources={"sqlmesh": resource}, instance=instance)
    assert run.success
    assert after_each == [{"index", run.run_id}] * len(reported)
    assert not [*tmp_path.glob(NOT_WRITTEN_THROUGH)]


def test_event_log_in_memory_makes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with dg.DagsterInstance.ephemeral() as instance, connected(instance, "run"):
        assert not [*tmp_path.iterdir()]
