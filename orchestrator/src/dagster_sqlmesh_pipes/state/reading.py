"""SQLMesh's state as the runner reads it (docs/reference/state.md)."""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from dagster_sqlmesh_pipes.errors import LaunchError
from dagster_sqlmesh_pipes.project import SQLMeshProject
from dagster_sqlmesh_pipes.run.recorded import RecordedModel

__all__ = ["RecordedState", "read_state"]

_SCHEMA_VERSION = 1


class RecordedState(BaseModel):
    """What the state has recorded of an environment's models, in topological order."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    cursor: str
    """Two states with the same cursor are the same."""
    changed: bool
    """False: the cursor is the one given, and there are no models."""
    environment: str
    plan_id: str
    models: tuple[RecordedModel, ...]


def read_state(project: SQLMeshProject, *, since: str | None, timeout: float) -> RecordedState:
    """Read the state of the project's environment with a runner.

    Args:
        project: the project.
        since: the cursor of the state that was read before.
        timeout: seconds that the runner may take.

    Raises:
        LaunchError: the runner failed or did not end in time, or this package can't read what it
            wrote.
    """
    arguments = ["state", *project.runner_arguments(), *(["--since", since] if since else [])]
    text = project.launcher.run_to_end(arguments, timeout=timeout)
    try:
        raw: Any = json.loads(text)
        version = raw.get("schema_version")
        if version != _SCHEMA_VERSION:
            msg = f"it has schema version {version}, and this package reads {_SCHEMA_VERSION}"
            raise ValueError(msg)  # noqa: TRY301 - one sentence for all that can be wrong with it
        return RecordedState.model_validate(raw)
    except (ValueError, AttributeError, ValidationError) as exc:
        msg = (
            f"`sqlmesh-runner state` wrote a state that can't be read: {exc}. Use versions of "
            "sqlmesh-runner and dagster-sqlmesh-pipes that fit together."
        )
        raise LaunchError(msg) from exc
