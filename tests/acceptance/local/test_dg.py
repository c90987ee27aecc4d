"""A SQLMesh project as a component, through the `dg` command line."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import pytest
from acceptance.local.deployment import (
    DAGSTER_BIN,
    PROJECTS,
    ROOT,
    Deployment,
    preloaded_runner,
    run_dagster_program,
)
from acceptance.local.webserver import served

TYPE = "dagster_sqlmesh_pipes.SQLMeshProjectComponent"
PYPROJECT = """
[project]
name = "my-project"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["dagster"]

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "my_project"
code_location_target_module = "my_project.definitions"
"""
DEFINITIONS = """
from pathlib import Path

import dagster as dg


@dg.definitions
def defs():
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""


class DgProject:
    """A project of `dg` beside a SQLMesh project that is planned."""

    def __init__(self, root: Path) -> None:
        self.warehouse = Path(shutil.copytree(PROJECTS / "reads_variables", root / "warehouse"))
        self.root = root / "dg"
        package = self.root / "src" / "my_project"
        (package / "defs").mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "defs" / "__init__.py").touch()
        (package / "definitions.py").write_text(DEFINITIONS)
        (self.root / "pyproject.toml").write_text(PYPROJECT)
        self.yaml = package / "defs" / "warehouse" / "defs.yaml"
        deployment = Deployment(root=root, project=self.warehouse, runner=preloaded_runner())
        deployment.make_home()
        self.env = {
            **deployment.environ(),
            "REGION": "EU",
            "PYTHONPATH": str(self.root / "src"),
            "PATH": f"{DAGSTER_BIN}:/usr/bin:/bin",
        }
        deployment.env = {"REGION": "EU"}
        deployment.sqlmesh("plan", "--auto-apply", "--no-prompts", "--skip-tests")

    def dg(self, *arguments: str, fails: bool = False) -> str:
        return run_dg(*arguments, cwd=self.root, env=self.env, fails=fails)

    def dev(self, port: str, output: IO[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(DAGSTER_BIN / "dg"), "dev", "--port", port],
            cwd=self.root,
            env=self.env,
            stdout=output,
            stderr=output,
            text=True,
            start_new_session=True,
        )


def run_dg(*arguments: str, cwd: Path, env: Mapping[str, str], fails: bool = False) -> str:
    done = run_dagster_program("dg", *arguments, cwd=cwd, env={**env, "COLUMNS": "200"})
    output = done.stdout + done.stderr
    assert bool(done.returncode) == fails, output
    return output


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> DgProject:
    made = DgProject(tmp_path_factory.mktemp("dg"))
    made.dg("scaffold", "defs", TYPE, "warehouse", "--project-path", str(made.warehouse))
    return made


def test_scaffolded_component_is_listed_and_described(project: DgProject) -> None:
    assert "project_dir: ../../../../../warehouse" in project.yaml.read_text()
    assert TYPE in project.dg("list", "components")
    described = project.dg("utils", "inspect-component", TYPE)
    assert "How runners are started" in described
    project.dg("check", "yaml")


def test_definitions_are_made_from_refreshed_state_and_run(project: DgProject) -> None:
    project.dg("utils", "refresh-defs-state")
    listed = project.dg("list", "defs")
    assert "audited/shop/sales" in listed
    assert "sqlmesh_adaptive_schedule" in listed
    assert "RUN_SUCCESS" in project.dg("launch", "--assets", "*")


def test_dg_dev_follows_the_files_and_keeps_the_last_manifest(project: DgProject) -> None:
    added, log = project.warehouse / "models" / "added.sql", project.root / "dev.log"
    with served(project.dev, log=log) as server:
        assert "audited/shop/sales" in server.reload()
        try:
            added.write_text("MODEL (name shop.added); SELECT 1 AS x")
            assert "audited/shop/added" in server.reload()
            added.write_text("MODEL (")
            assert "audited/shop/added" in server.reload()
            assert "Definitions are those of its last manifest" in log.read_text()
        finally:
            added.unlink()


def test_yaml_that_cannot_work_is_found_with_file_and_line(project: DgProject) -> None:
    good = project.yaml.read_text()
    try:
        project.yaml.write_text(f"{good}  launcher:\n    type: dokcer\n")
        found = project.dg("check", "yaml", fails=True)
        assert f"{project.yaml}:6 - {TYPE} attributes.launcher.type 'dokcer' is not one of" in found
        project.yaml.write_text(f"{good}  gateway: '{{{{ env.NOT_SET }}}}'\n")
        found = project.dg("check", "defs", fails=True)
        assert f"{project.yaml}:5" in found
        assert "gateway: {{ env.NOT_SET }} is empty" in found
    finally:
        project.yaml.write_text(good)


def test_example_is_a_project_of_dg(project: DgProject, tmp_path: Path) -> None:
    left_out = shutil.ignore_patterns("*.db", ".cache", "logs", ".sqlmesh-pipes", "__pycache__")
    for name in ("shop", "dg"):
        shutil.copytree(ROOT / "examples" / name, tmp_path / name, ignore=left_out)
    env = {**project.env, "PYTHONPATH": str(tmp_path / "dg" / "src")}
    listed = run_dg("list", "defs", cwd=tmp_path / "dg", env=env)
    assert "shop/marts/daily_revenue" in listed
    assert "external" not in listed, "raw tables are those that Dagster writes"
