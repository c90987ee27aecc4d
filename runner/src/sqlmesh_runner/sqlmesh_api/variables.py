"""Add to an error which environment variables the project's configuration lacks.

SQLMesh's `env_var` returns None for a variable that is not set, which causes other errors later: a
database "None", a refused password.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlmesh_runner.errors import ConfigurationError, NotPlannedError, UnreachableError
from sqlmesh_runner.variables.project import CONFIG_FILES
from sqlmesh_runner.variables.python import parse_python
from sqlmesh_runner.variables.text import parse_config

__all__ = ["CONFIG_FILES", "naming_missing_variables"]


@contextmanager
def naming_missing_variables(
    directories: Iterable[Path], *, gateway: str | None = None
) -> Iterator[None]:
    """Add to an error the variables that the configuration must have for it, and that are not set.

    In Python, `os.environ["X"]` raises by itself, so only what the error names bears on it. In
    YAML, `env_var("X")` becomes "None" wherever it is used for the gateway in use.
    """
    try:
        yield
    except (ConfigurationError, NotPlannedError, UnreachableError) as exc:
        hints = [
            hint
            for directory in directories
            for hint in _missing(directory, gateway=gateway, error=str(exc))
        ]
        if not hints:
            raise
        remedy = (
            "Set them; if Dagster starts the runner, its launcher must pass them on: "
            "SubprocessLauncher(pass_env=[…]), DockerLauncher(pass_env=[…] or env={…})."
        )
        raise type(exc)("\n".join([str(exc), *hints, remedy])) from exc


def _missing(directory: Path, *, gateway: str | None, error: str) -> Iterator[str]:
    for file in (directory / name for name in CONFIG_FILES):
        if not file.is_file():
            continue
        text = file.read_text(encoding="utf-8", errors="replace")
        variables = (
            parse_python(text).variables
            if file.suffix == ".py"
            else parse_config(text, gateway=gateway, also=error)
        )
        missing = [
            name
            for name, required in variables.items()
            if required
            and name not in os.environ
            and (file.suffix != ".py" or re.search(rf"\b{re.escape(name)}\b", error))
        ]
        if missing:
            verb = "is" if len(missing) == 1 else "are"
            yield f"{file} requires {', '.join(missing)}, which {verb} not set here."
