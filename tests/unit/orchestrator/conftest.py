"""Resources over a manifest made by hand."""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from unit.orchestrator.shop import SHOP, Make, manifest

from dagster_sqlmesh_pipes import SQLMeshResource
from dagster_sqlmesh_pipes.launchers.base import Launcher


@pytest.fixture(scope="session")
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the SQLite files of an instance once: that takes half a second."""
    home = tmp_path_factory.mktemp("home")
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        instance.get_run_records(limit=1)
        instance.get_asset_records([dg.AssetKey("none")])
    return home


@pytest.fixture
def instance(empty_home: Path, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """Return an instance on SQLite that several threads may use."""
    home = shutil.copytree(empty_home, tmp_path / "home")
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        yield instance


@pytest.fixture
def make_resource(tmp_path: Path) -> Make:
    """Make a resource over a manifest, with any launcher."""

    def make(
        launcher: Launcher,
        models: Sequence[dict[str, Any]] = SHOP,
        *,
        other: dict[str, Any] | None = None,
        **fields: Any,
    ) -> SQLMeshResource:
        path = tmp_path / "manifest.json"
        path.write_text(json.dumps(manifest(models, **(other or {}))))
        return SQLMeshResource(manifest_path=str(path), launcher=launcher, **fields)

    return make
