"""SQLMesh models as Dagster assets, with SQLMesh running outside Dagster."""

from dagster_sqlmesh_pipes.assets import sqlmesh_assets, sqlmesh_assets_factory
from dagster_sqlmesh_pipes.launchers.subprocess import SubprocessLauncher
from dagster_sqlmesh_pipes.project import SQLMeshProject
from dagster_sqlmesh_pipes.resource import SQLMeshResource, SQLMeshRunConfig
from dagster_sqlmesh_pipes.translator import SQLMeshTranslator

__all__ = [
    "SQLMeshProject",
    "SQLMeshResource",
    "SQLMeshRunConfig",
    "SQLMeshTranslator",
    "SubprocessLauncher",
    "sqlmesh_assets",
    "sqlmesh_assets_factory",
]
