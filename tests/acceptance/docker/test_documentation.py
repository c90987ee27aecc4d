"""The Dockerfile of docs/how-to/docker.md, built as it stands there."""

import json
import shutil
import subprocess
from pathlib import Path

import docker
import pytest
from documentation import ROOT, blocks

pytestmark = pytest.mark.docker

IMAGE = "dagster-sqlmesh-documented"


def build(folder: Path, *arguments: str) -> None:
    subprocess.run(["docker", "build", "--quiet", *arguments, str(folder)], check=True)


def copy_wheel(engine: docker.DockerClient, folder: Path) -> None:
    """Copy the runner's wheel, which docker/runner.Dockerfile makes as well."""
    dockerfile = str(ROOT / "docker/runner.Dockerfile")
    build(ROOT, "--file", dockerfile, "--target", "package", "--tag", f"{IMAGE}-package")
    container = engine.containers.create(f"{IMAGE}-package")
    try:
        copy = ["docker", "cp", f"{container.id}:/wheels/.", str(folder)]
        subprocess.run(copy, check=True)
    finally:
        container.remove()


def test_documented_dockerfile_makes_an_image(engine: docker.DockerClient, tmp_path: Path) -> None:
    (dockerfile,) = blocks("dockerfile")
    project = Path(shutil.copytree(ROOT / "examples/shop", tmp_path / "shop"))
    copy_wheel(engine, project)
    (project / "Dockerfile").write_text(dockerfile.text)
    build(project, "--tag", IMAGE)
    try:
        environment = {"SHOP_PG_HOST": "unused"}
        written = engine.containers.run(IMAGE, ["manifest"], environment=environment, remove=True)
    finally:
        engine.images.remove(IMAGE)
    names = [model["name"] for model in json.loads(written)["models"]]
    assert "marts.daily_revenue" in names
