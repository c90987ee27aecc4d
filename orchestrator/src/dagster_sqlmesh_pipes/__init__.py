"""SQLMesh models as Dagster assets, with SQLMesh running outside Dagster."""

from typing import TYPE_CHECKING, Any

from dagster_sqlmesh_pipes.assets import sqlmesh_assets, sqlmesh_assets_factory
from dagster_sqlmesh_pipes.definitions import sqlmesh_definitions_factory
from dagster_sqlmesh_pipes.launchers.subprocess import SubprocessLauncher
from dagster_sqlmesh_pipes.project import SQLMeshProject
from dagster_sqlmesh_pipes.resource import SQLMeshResource, SQLMeshRunConfig
from dagster_sqlmesh_pipes.schedule import freshness_from_cron, sqlmesh_adaptive_schedule_factory
from dagster_sqlmesh_pipes.translator import SQLMeshTranslator

if TYPE_CHECKING:
    from dagster_sqlmesh_pipes.launchers.docker import DockerLauncher, remove_orphans

__all__ = [
    "DockerLauncher",
    "SQLMeshProject",
    "SQLMeshResource",
    "SQLMeshRunConfig",
    "SQLMeshTranslator",
    "SubprocessLauncher",
    "freshness_from_cron",
    "remove_orphans",
    "sqlmesh_adaptive_schedule_factory",
    "sqlmesh_assets",
    "sqlmesh_assets_factory",
    "sqlmesh_definitions_factory",
]


def __getattr__(name: str) -> Any:
    # The Docker SDK is imported by those who use it only.
    if name in {"DockerLauncher", "remove_orphans"}:
        from dagster_sqlmesh_pipes.launchers import docker  # noqa: PLC0415

        return getattr(docker, name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
