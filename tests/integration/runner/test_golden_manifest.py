"""The runner writes the manifest that `tests/contract/manifest.json` says it writes."""

import json
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest
from contract.streams import DIRECTORY
from integration.runner.harness import PROJECTS

from sqlmesh_runner.manifest import build_manifest

GOLDEN = DIRECTORY / "manifest.json"


@pytest.mark.skipif(not version("sqlmesh").startswith("0.236."), reason="hashes and rendered SQL differ from release to release")
def test_the_golden_manifest_is_what_the_runner_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Path(shutil.copytree(PROJECTS / "run_orders", tmp_path / "run_orders"))
    monkeypatch.chdir(project)
    written = json.loads(json.dumps(build_manifest(paths=[project], column_lineage=True)))
    golden = json.loads(GOLDEN.read_text())
    assert without_versions(written) == without_versions(golden)


def without_versions(manifest: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in manifest.items() if key != "generator"}
