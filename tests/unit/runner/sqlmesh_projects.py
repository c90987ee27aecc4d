"""SQLMesh projects: copied, planned on DuckDB, and opened from files or from state."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb
from sqlmesh import Context

SQLMESH = tuple(int(part) for part in version("sqlmesh").split(".")[:2])

PROJECTS = Path(__file__).parents[2] / "projects"

RAW_TABLES = """
CREATE SCHEMA raw;
CREATE TABLE raw.events AS
SELECT 1 AS id, 1.5::DOUBLE AS amount, TIMESTAMP '2024-01-05 10:00:00' AS happened_at;
CREATE TABLE raw.undeclared AS SELECT 1 AS id, 'x' AS extra;
"""


def copy_project(name: str, into: Path) -> Path:
    """Copy a project of tests/projects, without what a run in place may have left there."""
    return Path(
        shutil.copytree(
            PROJECTS / name,
            into / name,
            ignore=shutil.ignore_patterns(".cache", "logs", "*.db", "__pycache__"),
        )
    )


def plan_kinds(into: Path) -> Path:
    """Copy the project `manifest_models` and plan it, in a process of its own as a user would."""
    project = copy_project("manifest_models", into)
    with duckdb.connect(str(project / "kinds.db")) as connection:
        connection.execute(RAW_TABLES)
    command = [
        str(Path(sys.executable).with_name("sqlmesh")),
        "plan",
        "--auto-apply",
        "--no-prompts",
    ]
    environment = {
        **os.environ,
        "SQLMESH__DISABLE_ANONYMIZED_ANALYTICS": "true",
        "MAX_FORK_WORKERS": "1",
    }
    done = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return project


def manifest_by_itself(project: Path) -> Any:
    """Make a project's manifest in a process of its own: old SQLMesh mixes up two projects."""
    code = (
        "import sys, pathlib; from sqlmesh_runner.manifest.build import *; "
        "print(dump(build_manifest(paths=[pathlib.Path(sys.argv[1])])))"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(project)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@contextmanager
def opened_from_state(
    project: Path, environment: str = "prod"
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Return an environment and its snapshots by name, as a run sees them."""
    before = Path.cwd()
    os.chdir(project)
    context = Context(paths=[str(project)], load=False)
    try:
        held = context.state_reader.get_environment(environment)
        assert held is not None
        snapshots = context.state_reader.get_snapshots(held.snapshots)
        yield held, {snapshot.name: snapshot for snapshot in snapshots.values()}
    finally:
        context.close()
        os.chdir(before)


def write_project(folder: Path, *, config: str, **models: str) -> Path:
    """Write a project of a few SQL models; a name's double underscore is a folder."""
    (folder / "models").mkdir(parents=True)
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    for name, text in models.items():
        path = folder / "models" / f"{name.replace('__', '/')}.sql"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder
