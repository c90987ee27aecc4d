"""Dagster's environment has no sqlmesh, SQLMesh's no dagster, and dagster-dbt does not clash."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from acceptance.local.deployment import ROOT, RUNNER_BIN


def importable(python: Path, module: str) -> bool:
    return (
        subprocess.run(
            [str(python), "-c", f"import {module}"], capture_output=True, check=False
        ).returncode
        == 0
    )


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
    assert [name for name in own if not importable(python, name)] == []
    assert [name for name in other if importable(python, name)] == []


def test_the_docker_sdk_is_imported_only_by_who_uses_it() -> None:
    script = (
        "import sys, dagster_sqlmesh_pipes as p; assert 'docker' not in sys.modules; "
        "p.DockerLauncher; assert 'docker' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_demo_runs_with_dagster_dbt_beside_the_orchestrator(tmp_path: Path) -> None:
    # dagster-dbt installs a compiled sqlglot, with which `import sqlmesh` fails. Dagster's
    # environment does not import SQLMesh.
    uv = shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv")
    environment = tmp_path / "with-dbt"
    subprocess.run(
        [uv, "venv", "--quiet", "--python", sys.executable, str(environment)], check=True
    )
    locked = [
        uv,
        "export",
        "--quiet",
        "--frozen",
        "--package",
        "dagster-sqlmesh-pipes",
        "--no-emit-workspace",
        "--no-hashes",
    ]
    constraints = tmp_path / "constraints.txt"
    constraints.write_text(
        subprocess.run(locked, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    )
    install = [
        uv,
        "pip",
        "install",
        "--quiet",
        "--python",
        str(environment),
        "--constraints",
        str(constraints),
    ]
    subprocess.run(
        [*install, "dagster-dbt", "duckdb", "-e", str(ROOT / "orchestrator")], check=True
    )
    python = environment / "bin" / "python"
    assert importable(python, "dagster_dbt, dagster_sqlmesh_pipes")
    left_out = shutil.ignore_patterns("*.db*", ".cache", ".sqlmesh-pipes", "logs", "__pycache__")
    examples = shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=left_out)
    home = tmp_path / "home"
    home.mkdir()
    env = {
        **os.environ,
        "SQLMESH_RUNNER": str(RUNNER_BIN / "sqlmesh-runner"),
        "DAGSTER_HOME": str(home),
    }
    done = subprocess.run(
        [str(python), str(examples / "demo.py")],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout
    assert "shop/marts/daily_revenue" in done.stdout
    assert "FAILED (WARN)" in done.stdout
