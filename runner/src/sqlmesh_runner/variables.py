"""Environment variables that a project's configuration asks for.

SQLMesh's `env_var` gives None for one that is not set, which shows later and as something else: a database "None", a refused password.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlmesh_runner.errors import ConfigurationError, NotPlannedError, UnreachableError

__all__ = ["CONFIG_FILES", "naming_missing_variables"]

CONFIG_FILES: Final = ("config.yaml", "config.yml", "config.py", "sqlmesh.yaml", "sqlmesh.yml", "dbt_project.yml")
"""The files that make a folder a SQLMesh project."""

_ASKED_FOR: Final = re.compile(r"""(?:\benv_var|\bgetenv|\benviron\.get)\(\s*["'](\w+)["']\s*\)|\benviron\[\s*["'](\w+)["']\s*\]""")
"""A variable that must be set: without a default."""
_COMMENT: Final = re.compile(r"^\s*#.*$", re.MULTILINE)


@contextmanager
def naming_missing_variables(directories: Iterable[Path]) -> Iterator[None]:
    """Add the variables that these projects ask for and don't have to an error about what a project's configuration leads to."""
    try:
        yield
    except (ConfigurationError, NotPlannedError, UnreachableError) as exc:
        hints = [hint for directory in directories for hint in _missing(directory)]
        if not hints:
            raise
        remedy = (
            "Set it, and if Dagster starts the runner, have it passed on: "
            "SubprocessLauncher(pass_env=[…]), DockerLauncher(pass_env=[…] or env={…})."
        )
        raise type(exc)("\n".join([str(exc), *hints, remedy])) from exc


def _missing(directory: Path) -> Iterator[str]:
    for name in CONFIG_FILES:
        file = directory / name
        if file.is_file():
            text = _COMMENT.sub("", file.read_text(encoding="utf-8", errors="replace"))
            asked_for = dict.fromkeys(one or other for one, other in _ASKED_FOR.findall(text))
            missing = [variable for variable in asked_for if variable not in os.environ]
            if missing:
                yield f"{file} asks for {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not set here."
