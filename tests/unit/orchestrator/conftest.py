"""Resources over a manifest made by hand."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster_home import make_home
from unit.orchestrator.shop import SHOP, Make, manifest

from dagster_sqlmesh_pipes import SQLMeshResource
from dagster_sqlmesh_pipes.launchers.base import Launcher


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """Return an instance on SQLite that several threads may use."""
    home = make_home(tmp_path / "home")
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
