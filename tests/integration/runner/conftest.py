"""Projects planned once a session, copied for each test: a plan costs seconds."""

import shutil
from pathlib import Path

import pytest
from integration.runner.harness import ProjectCopy, planned_orders


@pytest.fixture(scope="session")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planned_orders(tmp_path_factory.mktemp("planned"))


@pytest.fixture
def orders(planned: Path, tmp_path: Path) -> ProjectCopy:
    return ProjectCopy(Path(shutil.copytree(planned, tmp_path / "project")))
