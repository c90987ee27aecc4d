"""Write docs/reference/options.md from the options' declarations, in Dagster's environment."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from dagster_sqlmesh_pipes import DockerLauncher, KubernetesLauncher, SubprocessLauncher
from dagster_sqlmesh_pipes.options import (
    AssetsOptions,
    LaunchpadOptions,
    LocationOptions,
    ProjectOptions,
    ResourceOptions,
    ScheduleOptions,
    SensorOptions,
)

PAGE = Path(__file__).parent / "reference" / "options.md"

INTRODUCTION = """\
<!-- Written by `make reference` from the options' declarations. Don't edit. -->
# Options

Every option is declared once and has the same name everywhere: in the factories, in
`SQLMeshResource`, in the launchpad and in the component's YAML.

| where | options |
|---|---|
| `sqlmesh_definitions_factory`, `SQLMeshProjectComponent` | all but those of a single run |
| `SQLMeshProject` | project |
| `SQLMeshResource` | project, runs |
| `sqlmesh_assets_factory`, `@sqlmesh_assets` | assets |
| `sqlmesh_adaptive_schedule_factory` | schedule, assets |
| `sqlmesh_state_sensor_factory` | state sensor |
| launchpad, run config, `SQLMeshRunConfig` | a single run |
"""

GROUPS: dict[str, type[BaseModel]] = {
    "Project": ProjectOptions,
    "Runs": ResourceOptions,
    "Assets": AssetsOptions,
    "Schedule": ScheduleOptions,
    "State sensor": SensorOptions,
    "Beside other projects": LocationOptions,
    "A single run": LaunchpadOptions,
    "`SubprocessLauncher`": SubprocessLauncher,
    "`DockerLauncher`": DockerLauncher,
    "`KubernetesLauncher`": KubernetesLauncher,
}


def page() -> str:
    """Return the page's text."""
    return "\n".join([INTRODUCTION, *(section(*group) for group in GROUPS.items())])


def section(title: str, group: type[BaseModel]) -> str:
    """Return a group of options as a section with a table."""
    rows = "\n".join(_rows(group))
    return f"## {title}\n\n| option | default | |\n|---|---|---|\n{rows}\n"


def _rows(group: type[BaseModel]) -> Iterator[str]:
    for name, field in sorted(group.model_fields.items(), key=lambda item: not _required(item[1])):
        text = re.sub(r"\s+", " ", field.description or "").replace("|", "\\|")
        yield f"| `{name}` | {_default(field)} | {text} |"


def _required(field: FieldInfo) -> bool:
    return field.is_required()


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value: Any = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined or value is None or value in ((), [], {}, ""):
        return ""
    return f"`{value!r}`" if isinstance(value, str | int | float | bool) else ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
