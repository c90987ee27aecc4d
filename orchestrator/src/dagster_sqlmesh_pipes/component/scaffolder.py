"""What `dg scaffold defs dagster_sqlmesh_pipes.SQLMeshProjectComponent NAME` writes."""

import os
from pathlib import Path

import dagster as dg
from pydantic import BaseModel, Field

__all__ = ["SQLMeshProjectScaffolder"]


class _Params(BaseModel):
    project_path: str | None = Field(
        default=None,
        description="The SQLMesh project's folder. None where it is in the runner's image only.",
    )
    gateway: str | None = Field(default=None, description="SQLMesh's gateway.")


class SQLMeshProjectScaffolder(dg.Scaffolder[_Params]):
    """Write a `defs.yaml` for a project."""

    @classmethod
    def get_scaffold_params(cls) -> type[_Params]:
        """Return the command's options."""
        return _Params

    def scaffold(self, request: dg.ScaffoldRequest[_Params]) -> None:
        """Write the file. The project's folder becomes relative to it."""
        attributes: dict[str, str] = {}
        if request.params.project_path is not None:
            folder = Path(request.params.project_path).expanduser()
            if not folder.is_dir():
                msg = (
                    f"There is no folder {folder}. For a project that is in the runner's image "
                    "only, leave out --project-path, and set a launcher in the YAML."
                )
                raise FileNotFoundError(msg)
            attributes["project_dir"] = os.path.relpath(folder.resolve(), request.target_path)
        if request.params.gateway is not None:
            attributes["gateway"] = request.params.gateway
        dg.scaffold_component(request, attributes)
