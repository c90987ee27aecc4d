"""SQLMesh models as Dagster assets, with SQLMesh running outside Dagster."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dagster_sqlmesh_pipes.allocation import garbage_collection_paused

with garbage_collection_paused():  # or it goes through all that Dagster's import made
    from dagster_sqlmesh_pipes.asset_selection import (
        build_schedule_from_sqlmesh_selection,
        build_sqlmesh_asset_selection,
    )
    from dagster_sqlmesh_pipes.assets import sqlmesh_assets, sqlmesh_assets_factory
    from dagster_sqlmesh_pipes.definitions import sqlmesh_definitions_factory
    from dagster_sqlmesh_pipes.launchers import remove_orphans
    from dagster_sqlmesh_pipes.launchers.kubernetes import KubernetesLauncher
    from dagster_sqlmesh_pipes.launchers.subprocess import SubprocessLauncher
    from dagster_sqlmesh_pipes.project import SQLMeshProject
    from dagster_sqlmesh_pipes.resource import SQLMeshResource
    from dagster_sqlmesh_pipes.run.config import SQLMeshRunConfig
    from dagster_sqlmesh_pipes.schedule import (
        freshness_from_cron,
        sqlmesh_adaptive_schedule_factory,
    )
    from dagster_sqlmesh_pipes.state import sqlmesh_state_sensor_factory
    from dagster_sqlmesh_pipes.translator import SQLMeshTranslator

if TYPE_CHECKING:
    from dagster_sqlmesh_pipes.component import SQLMeshProjectComponent
    from dagster_sqlmesh_pipes.launchers.docker import DockerLauncher

__all__ = [
    "DockerLauncher",
    "KubernetesLauncher",
    "SQLMeshProject",
    "SQLMeshProjectComponent",
    "SQLMeshResource",
    "SQLMeshRunConfig",
    "SQLMeshTranslator",
    "SubprocessLauncher",
    "build_schedule_from_sqlmesh_selection",
    "build_sqlmesh_asset_selection",
    "freshness_from_cron",
    "remove_orphans",
    "sqlmesh_adaptive_schedule_factory",
    "sqlmesh_assets",
    "sqlmesh_assets_factory",
    "sqlmesh_definitions_factory",
    "sqlmesh_state_sensor_factory",
]


_LAZY = {
    "DockerLauncher": "dagster_sqlmesh_pipes.launchers.docker",
    "SQLMeshProjectComponent": "dagster_sqlmesh_pipes.component",
}
"""What only some users need, and what takes time to import: Docker's SDK, Dagster's components."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    try:
        return getattr(import_module(_LAZY[name]), name)
    except ModuleNotFoundError as exc:
        if exc.name != "docker":
            raise
        msg = f"{name} needs Docker's SDK: pip install 'dagster-sqlmesh-pipes[docker]'"
        raise ImportError(msg) from exc


def __dir__() -> list[str]:
    # `dg` finds components by `dir`. It must not find what needs an extra.
    return sorted({*globals(), "SQLMeshProjectComponent"})
