"""How a manifest comes to be, and when it is made anew."""

import json
import multiprocessing
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.orchestrator.shop import SHOP, manifest

from dagster_sqlmesh_pipes import SQLMeshProject
from dagster_sqlmesh_pipes.errors import ManifestError
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
    expected = ["manifest", "--project-dir", str(folder), "--gateway", "duckdb", "--environment", "dev", "--column-lineage"]
    assert launcher.requests[0].arguments == expected
    assert len(project.manifest().models) == len(SHOP)
    assert sorted(path.name for path in project.manifest_path.parent.iterdir()) == ["manifest.inputs", "manifest.json"]


def test_in_development_it_is_made_again_when_files_or_settings_change(folder: Path, launcher: FakeLauncher) -> None:
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


def test_in_development_one_that_this_version_can_not_read_or_did_not_make_is_made_again(
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


@pytest.mark.parametrize("process", ["no dev", "run worker", "step", "spawned"])
def test_no_other_process_starts_anything(process: str, folder: Path, launcher: FakeLauncher, monkeypatch: pytest.MonkeyPatch) -> None:
    if process == "no dev":
        monkeypatch.delenv("DAGSTER_IS_DEV_CLI")
    elif process == "spawned":
        monkeypatch.setattr(multiprocessing, "parent_process", os.getppid)
    else:
        monkeypatch.setattr(sys, "argv", ["dagster", "api", "execute_run" if process == "run worker" else "execute_step"])
    SQLMeshProject(folder, launcher=launcher).prepare_if_dev()
    assert launcher.requests == []


def test_several_folders_are_passed_on_and_one_that_is_not_here_as_it_is(folder: Path, launcher: FakeLauncher) -> None:
    project = SQLMeshProject([folder, "/in/the/image"], launcher=launcher)
    assert project.runner_arguments() == ["--project-dir", str(folder), "--project-dir", "/in/the/image", "--environment", "prod"]
    assert project.local_dirs == [folder]


def test_a_project_in_an_image_needs_a_manifest_path(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="needs project_dir, or manifest_path"):
        SQLMeshProject()
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(manifest(SHOP)))
    assert len(SQLMeshProject(manifest_path=path).manifest().models) == len(SHOP)
