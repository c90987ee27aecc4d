"""Projects planned once a session, copied for each test: a plan costs seconds."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from contract.streams import SCENARIOS
from integration.runner.harness import Finished, ProjectCopy, planned_orders


@pytest.fixture(scope="session")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planned_orders(tmp_path_factory.mktemp("planned"))


@pytest.fixture
def orders(planned: Path, tmp_path: Path) -> ProjectCopy:
    return ProjectCopy(Path(shutil.copytree(planned, tmp_path / "project")))


@pytest.fixture(scope="session")
def scenario(planned: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Finished]:
    """Return the run of one of the contract's scenarios, done once: a start costs seconds."""

    @functools.cache
    def run(name: str) -> Finished:
        path = tmp_path_factory.mktemp(name) / "project"
        return SCENARIOS[name](ProjectCopy(Path(shutil.copytree(planned, path))))

    return run
