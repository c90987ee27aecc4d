"""Dagster's environment has no sqlmesh, and SQLMesh's no dagster."""

import subprocess
import sys
from pathlib import Path

import pytest
from acceptance.local.deployment import RUNNER_BIN


@pytest.mark.parametrize(
    ("python", "own", "other"),
    [
        (
            Path(sys.executable),
            ["dagster_sqlmesh_pipes", "dagster"],
            ["sqlmesh", "sqlglot", "sqlmesh_runner"],
        ),
        (
            RUNNER_BIN / "python",
            ["sqlmesh_runner", "sqlmesh"],
            ["dagster", "dagster_sqlmesh_pipes"],
        ),
    ],
    ids=["orchestrator", "runner"],
)
def test_an_environment_holds_its_own_world_only(
    python: Path, own: list[str], other: list[str]
) -> None:
    script = (
        f"import {', '.join(own)}; from importlib.util import find_spec; "
        f"print([name for name in {other} if find_spec(name)])"
    )
    found = subprocess.run([python, "-c", script], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_the_docker_sdk_is_imported_only_by_who_uses_it() -> None:
    script = (
        "import sys, dagster_sqlmesh_pipes as p; assert 'docker' not in sys.modules; "
        "p.DockerLauncher; assert 'docker' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
