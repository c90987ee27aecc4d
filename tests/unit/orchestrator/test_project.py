"""How a manifest comes to be, and when it is made anew."""

import json
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from unit.orchestrator.shop import SHOP, manifest

from dagster_sqlmesh_pipes import SQLMeshProject, SubprocessLauncher
from dagster_sqlmesh_pipes.errors import LaunchError, ManifestError
from dagster_sqlmesh_pipes.project import _is_dev_code_server
from dagster_sqlmesh_pipes.testing import FakeLauncher


@pytest.fixture(autouse=True)
def code_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be the code server of `dagster dev`."""
    monkeypatch.setenv("DAGSTER_IS_DEV_CLI", "1")
    monkeypatch.setattr(sys, "argv", ["dagster", "api", "grpc"])
    _is_dev_code_server.cache_clear()
    yield
    _is_dev_code_server.cache_clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "orders.sql").write_text("SELECT 1")
    return tmp_path


@pytest.fixture
def launcher() -> FakeLauncher:
    return FakeLauncher(manifest=manifest(SHOP))


def test_the_manifest_is_made_by_the_runner_and_read(folder: Path, launcher: FakeLauncher) -> None:
    project = SQLMeshProject(folder, gateway="duckdb", environment="dev", launcher=launcher)
    assert project.prepare() == folder / ".sqlmesh-pipes" / "manifest.json"
    expected = [
        "manifest",
        "--project-dir",
        str(folder),
        "--gateway",
        "duckdb",
        "--environment",
        "dev",
        "--column-lineage",
    ]
    assert launcher.requests[0].arguments == expected
    assert len(project.manifest().models) == len(SHOP)
    assert sorted(path.name for path in project.manifest_path.parent.iterdir()) == [
        "manifest.inputs",
        "manifest.json",
        "manifest.lock",
    ]


def test_changed_files_or_settings_remake_manifest(folder: Path, launcher: FakeLauncher) -> None:
    def prepare(**settings: str) -> int:
        SQLMeshProject(folder, launcher=launcher, **settings).prepare_if_dev()  # type: ignore[arg-type]
        return len(launcher.requests)

    assert prepare() == 1
    assert prepare() == 1
    (folder / "models" / "orders.sql").write_text("SELECT 2 AS other")
    assert prepare() == 2
    (folder / "models" / "added.sql").write_text("SELECT 3")
    assert prepare() == 3
    (folder / "models" / "added.sql").unlink()
    assert prepare() == 4
    (folder / "warehouse.db").write_text("data is no source")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x.sql").write_text("nor is a cache")
    assert prepare() == 4
    assert prepare(gateway="other") == 5


def test_unreadable_manifest_is_made_again_in_development(
    folder: Path, launcher: FakeLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = SQLMeshProject(folder, launcher=launcher)
    project.prepare()
    assert not project.is_stale()
    project.manifest_path.write_text(json.dumps({**manifest(SHOP), "schema_version": 0}))
    project.prepare_if_dev()
    assert len(project.manifest().models) == len(SHOP)
    monkeypatch.setattr("dagster_sqlmesh_pipes.project.version", lambda _name: "99.0")
    assert project.is_stale()


@pytest.mark.parametrize(
    "path",
    ["models/logs/a.sql", "models/target/a.sql", "models/node_modules/a.sql", "docs/blocks.md"],
)
def test_files_in_any_folder_that_a_project_reads_make_it_stale(
    path: str, folder: Path, launcher: FakeLauncher
) -> None:
    project = SQLMeshProject(folder, launcher=launcher)
    project.prepare()
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text("SELECT 1")
    assert project.is_stale()


@pytest.mark.parametrize(
    "path", ["logs/sqlmesh.sql", "target/compiled.sql", "node_modules/a.json", "venv/lib/a.py"]
)
def test_outputs_in_the_projects_own_folder_do_not_make_it_stale(
    path: str, folder: Path, launcher: FakeLauncher
) -> None:
    project = SQLMeshProject(folder, launcher=launcher)
    project.prepare()
    (folder / path).parent.mkdir(parents=True)
    (folder / path).write_text("SELECT 1")
    (folder / path.partition("/")[0] / "pyvenv.cfg").touch()
    assert not project.is_stale()


def test_links_in_a_circle_are_followed_once(folder: Path, launcher: FakeLauncher) -> None:
    (folder / "models" / "again").symlink_to(folder)
    project = SQLMeshProject(folder, launcher=launcher)
    project.prepare()
    assert not project.is_stale()


def test_variable_that_the_project_reads_makes_it_stale(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {**manifest(SHOP), "environment_variables": [{"name": "REGION", "path": "a.py"}]}
    project = SQLMeshProject(folder, launcher=FakeLauncher(manifest=content))
    monkeypatch.setenv("REGION", "EU")
    project.prepare()
    assert not project.is_stale()
    monkeypatch.setenv("REGION", "US")
    assert project.is_stale()


def test_files_that_sqlmesh_reads_elsewhere_make_it_stale(
    folder: Path,
    launcher: FakeLauncher,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    project = SQLMeshProject(folder, dotenv=home / "prod.env", launcher=launcher)
    project.prepare()
    for file in (home / "prod.env", home / ".sqlmesh" / "config.yaml"):
        assert not project.is_stale()
        file.parent.mkdir(exist_ok=True)
        file.write_text("REGION=EU")
        assert project.is_stale()
        project.prepare()


def test_processes_at_once_make_it_once(folder: Path, tmp_path: Path) -> None:
    runner = tmp_path / "runner"
    content = tmp_path / "content.json"
    content.write_text(json.dumps(manifest(SHOP)))
    runner.write_text(f"#!/bin/sh\necho run >> {tmp_path}/runs\nsleep 0.2\ncat {content}\n")
    runner.chmod(0o755)
    launcher = SubprocessLauncher(executable=str(runner))
    project = SQLMeshProject(folder, launcher=launcher)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: project.prepare_if_stale(), range(4)))
    assert (tmp_path / "runs").read_text() == "run\n"


class Broken(FakeLauncher):
    """A runner that can't load the project."""

    def run_to_end(self, arguments: Sequence[str], *, timeout: float | None = None) -> str:
        msg = "models/orders.sql: no such column"
        raise LaunchError(msg)


def test_broken_model_keeps_last_manifest_with_warning(
    folder: Path, launcher: FakeLauncher, caplog: pytest.LogCaptureFixture
) -> None:
    SQLMeshProject(folder, launcher=launcher).prepare()
    (folder / "models" / "orders.sql").write_text("SELECT none FROM nothing")
    project = SQLMeshProject(folder, launcher=Broken())
    project.prepare_if_dev()
    assert len(project.manifest().models) == len(SHOP)
    assert "models/orders.sql: no such column" in caplog.text
    assert project.is_stale(), "it is tried again"
    with pytest.raises(LaunchError):
        SQLMeshProject(folder, launcher=Broken(), keep_last_manifest=False).prepare_if_dev()


def test_broken_project_without_a_manifest_is_an_error(folder: Path) -> None:
    with pytest.raises(LaunchError, match="no such column"):
        SQLMeshProject(folder, launcher=Broken()).prepare_if_dev()


@pytest.mark.parametrize("process", ["no dev", "run worker", "step", "spawned"])
def test_no_other_process_starts_anything(
    process: str, folder: Path, launcher: FakeLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    if process == "no dev":
        monkeypatch.delenv("DAGSTER_IS_DEV_CLI")
    elif process == "spawned":
        monkeypatch.setattr(multiprocessing, "parent_process", os.getppid)
    else:
        monkeypatch.setattr(
            sys,
            "argv",
            ["dagster", "api", "execute_run" if process == "run worker" else "execute_step"],
        )
    SQLMeshProject(folder, launcher=launcher).prepare_if_dev()
    assert launcher.requests == []


def test_several_folders_are_passed_on_unchanged(folder: Path, launcher: FakeLauncher) -> None:
    project = SQLMeshProject([folder, "/in/the/image"], launcher=launcher)
    assert project.runner_arguments() == [
        "--project-dir",
        str(folder),
        "--project-dir",
        "/in/the/image",
        "--environment",
        "prod",
    ]
    assert project.local_dirs == [folder]


def test_a_project_in_an_image_needs_a_manifest_path(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="needs project_dir, or manifest_path"):
        SQLMeshProject()
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(manifest(SHOP)))
    assert len(SQLMeshProject(manifest_path=path).manifest().models) == len(SHOP)


def test_settings_of_sqlmeshs_command_line_are_passed_on(
    folder: Path, launcher: FakeLauncher
) -> None:
    (folder / "prod.env").touch()
    project = SQLMeshProject(
        folder,
        config_name="staging",
        dotenv=folder / "prod.env",
        working_directory="/in/the/image",
        launcher=launcher,
    )
    arguments = " ".join(project.runner_arguments())
    assert f"--config staging --dotenv {folder / 'prod.env'}" in arguments
    assert "--working-directory /in/the/image" in arguments
