"""The runner writes the manifest that `tests/contract/manifest.json` says it writes."""

import json
import shutil
from importlib.metadata import version
from pathlib import Path

import pytest
from contract.streams import DIRECTORY
from integration.runner.harness import PROJECTS, ProjectCopy

GOLDEN = DIRECTORY / "manifest.json"


@pytest.mark.skipif(
    not version("sqlmesh").startswith("0.236."),
    reason="hashes and rendered SQL differ from release to release",
)
def test_the_golden_manifest_is_what_the_runner_writes(tmp_path: Path) -> None:
    project = Path(shutil.copytree(PROJECTS / "orders", tmp_path / "orders"))
    written = json.loads(ProjectCopy(project).command("manifest", "--column-lineage").stdout)
    golden = json.loads(GOLDEN.read_text())
    assert without_versions(written) == without_versions(golden)


def without_versions(manifest: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in manifest.items() if key != "generator"}
