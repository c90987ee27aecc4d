"""A real engine for every test here, and nothing left on it afterwards."""

import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from acceptance.docker.talking import MakeLauncher, containers_with
from docker.errors import DockerException

from dagster_sqlmesh_pipes.launchers.docker import DockerLauncher

IMAGE = os.environ.get("TEST_PYTHON_IMAGE", "python:3.11-slim-bookworm")


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """Connect to the engine, or skip (fail, with REQUIRE_DOCKER=1)."""
    try:
        client = docker.from_env()
    except DockerException as exc:
        if os.environ.get("REQUIRE_DOCKER") == "1":
            raise
        pytest.skip(f"no Docker engine: {exc}")
    yield client
    client.close()


@pytest.fixture(scope="session")
def python_image(engine: docker.DockerClient) -> str:
    """Name a Python image that the engine has."""
    if not engine.images.list(IMAGE):
        engine.images.pull(IMAGE)
    return IMAGE


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    """Return the folder that the talker sees as /talk."""
    folder = tmp_path / "talk"
    folder.mkdir()
    shutil.copy(Path(__file__).parents[1] / "talker.py", folder)
    return folder


@pytest.fixture
def mine() -> dict[str, str]:
    """Return the label of this test's containers: others may be on the engine."""
    return {"test": secrets.token_hex(4)}


@pytest.fixture
def talker(
    engine: docker.DockerClient, python_image: str, talk: Path, mine: dict[str, str]
) -> Iterator[MakeLauncher]:
    """Make launchers whose runner is the talker, and see that they leave nothing behind."""

    def make(**fields: Any) -> DockerLauncher:
        given = {
            "image": python_image,
            "pull": "never",
            "entrypoint": ["python", "/talk/talker.py"],
            "volumes": [f"{talk}:/talk"],
            "labels": mine,
            **fields,
        }
        return DockerLauncher(**given)

    yield make
    left = containers_with(engine, mine, all=True)
    for container in left:
        container.remove(force=True)
    assert left == []
