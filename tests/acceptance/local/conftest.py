"""Planned projects: each is planned once a session, because that takes seconds, and copied for each test."""

import datetime
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from acceptance.local.deployment import PROJECTS, Deployment, copy_of

Deploy = Callable[..., Deployment]


@pytest.fixture(scope="session")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Plan a project of tests/projects, once."""
    done: dict[str, Path] = {}

    def plan(name: str) -> Path:
        if name not in done:
            root = tmp_path_factory.mktemp(name)
            deployment = Deployment(root=root, project=Path(shutil.copytree(PROJECTS / name, root / name)))
            deployment.sqlmesh("plan", "--auto-apply", "--no-prompts")
            done[name] = deployment.project
        return done[name]

    return plan


@pytest.fixture
def deploy(tmp_path: Path, planned: Callable[[str], Path]) -> Deploy:
    """Deploy a planned project."""

    def make(name: str, *, env: dict[str, str] | None = None, **settings: Any) -> Deployment:
        deployment = Deployment(root=tmp_path, project=copy_of(planned(name), tmp_path / name), env=env or {})
        deployment.write(**settings)
        return deployment

    return make


@pytest.fixture
def in_three_days() -> str:
    """A time at which every daily model of a project planned today has something to do."""
    return (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=3)).strftime("%Y-%m-%d")


def wait_until(condition: Callable[[], Any], *, timeout: float = 60.0) -> Any:  # seconds
    """Wait for a condition, and give what it gave."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)
    return value
