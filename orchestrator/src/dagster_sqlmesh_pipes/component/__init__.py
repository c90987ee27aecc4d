"""A SQLMesh project as a component of `dg`: definitions from a few lines of YAML."""

from dagster_sqlmesh_pipes.component.project import SQLMeshProjectComponent

__all__ = ["SQLMeshProjectComponent"]
