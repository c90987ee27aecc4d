"""Resources over a manifest made by hand."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from unit.orchestrator.shop import SHOP, Make, manifest

from dagster_sqlmesh_pipes import SQLMeshResource
from dagster_sqlmesh_pipes.launchers.base import Launcher


@pytest.fixture
def make_resource(tmp_path: Path) -> Make:
    """Make a resource over a manifest, with any launcher."""

    def make(
        launcher: Launcher, models: Sequence[dict[str, Any]] = SHOP, *, other: dict[str, Any] | None = None, **fields: Any
    ) -> SQLMeshResource:
        path = tmp_path / "manifest.json"
        path.write_text(json.dumps(manifest(models, **(other or {}))))
        return SQLMeshResource(manifest_path=str(path), launcher=launcher, **fields)

    return make
