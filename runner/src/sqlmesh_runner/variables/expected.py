"""Environment variables that the manifest lists and that are not set where the runner runs."""

from collections.abc import Iterator, Mapping
from typing import Any

from sqlmesh_runner.recording.events import LogLevel

__all__ = ["unset_variables"]


def unset_variables(
    expected: Mapping[str, Any], environ: Mapping[str, str]
) -> Iterator[tuple[LogLevel, str]]:
    """Return a message for each level, with the variables that are not set.

    It is a warning if the project can't do without one, or if it is set where Dagster runs: then
    the project makes other data here. A variable that is set nowhere is as under `sqlmesh run`.

    Args:
        expected: the extras' `environment_variables` (docs/reference/messages.md).
        environ: the runner's environment, after the project's `.env` was loaded.
    """
    unset = {name: facts for name, facts in expected.items() if name not in environ}
    grave = {name: facts["path"] for name, facts in unset.items() if _is_grave(facts)}
    if grave:
        names = ", ".join(f"{name} (read in {path})" for name, path in grave.items())
        text = f"The project reads environment variables that are not set for the runner: {names}. "
        yield "WARNING", text + "Set them there, or pass them on: the launcher's `pass_env`, `env`."
    others = [name for name in unset if name not in grave]
    if others:
        yield "INFO", f"Not set, and read with a default: {', '.join(others)}."


def _is_grave(facts: Mapping[str, Any]) -> bool:
    return bool(facts["required"] or facts["set_in_orchestrator"])
