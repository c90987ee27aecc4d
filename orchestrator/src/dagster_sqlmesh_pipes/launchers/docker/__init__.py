"""Runners in containers on a Docker engine. Needs the extra `docker`."""

from dagster_sqlmesh_pipes.launchers.docker.launcher import DockerLauncher

__all__ = ["DockerLauncher"]
