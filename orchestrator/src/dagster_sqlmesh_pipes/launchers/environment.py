"""Which of this process's environment variables a runner on the same machine gets."""

import fnmatch
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["ALLOWED_ENV", "WITHHELD_ENV", "runner_environ"]

WITHHELD_ENV = (
    # What names Dagster's interpreter and its packages: the runner has its own.
    "PYTHONPATH", "PYTHONHOME", "PYTHONEXECUTABLE", "PYTHONSTARTUP", "PYTHONUSERBASE",
    "PYTHONNOUSERSITE", "PYTHONSAFEPATH", "PYTHONPLATLIBDIR", "PYTHONDONTWRITEBYTECODE",
    "__PYVENV_LAUNCHER__", "VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT", "PEX", "PEX_*", "__PEX_*",
    # What belongs to the instance: its home, its agent's token, its database's password.
    "DAGSTER_*",
)  # fmt: skip
"""Variables that a runner which inherits the environment does not get."""

ALLOWED_ENV = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", "XDG_*",
    "LD_LIBRARY_PATH", "SSL_CERT_*", "REQUESTS_CA_BUNDLE", "*_PROXY", "*_proxy", "SQLMESH_*",
)  # fmt: skip
"""Variables that a runner which does not inherit the environment gets nevertheless."""

_STORAGE_SECTION = re.compile(
    r"^(?:storage|run_storage|event_log_storage|schedule_storage):.*\n(?:(?:[ \t#].*)?\n)*",
    re.MULTILINE,
)
_FROM_VARIABLE = re.compile(r"""^[^#\n]*\benv:\s*["']?(\w+)""", re.MULTILINE)


def runner_environ(
    environ: Mapping[str, str], *, inherit: bool, pass_env: Sequence[str]
) -> dict[str, str]:
    """Return the variables of `environ` that a runner gets.

    Dagster's own `PipesSubprocessClient` hands all of them on. A runner that inherits gets them as
    well, because a project that reads `REGION` under `sqlmesh run` must read the same here, except
    `WITHHELD_ENV` and the variables from which `dagster.yaml` takes the storage's connection. One
    that does not inherit gets `ALLOWED_ENV` only. Names and patterns of `pass_env` win over both.
    """
    withheld = (*WITHHELD_ENV, *_storage_variables(environ.get("DAGSTER_HOME")))

    def is_passed(name: str) -> bool:
        if _matches(name, pass_env):
            return True
        return not _matches(name, withheld) if inherit else _matches(name, ALLOWED_ENV)

    return {name: value for name, value in environ.items() if is_passed(name)}


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _storage_variables(dagster_home: str | None) -> list[str]:
    """Return the names of the variables that the instance's storage is configured from."""
    if not dagster_home:
        return []
    try:
        text = Path(dagster_home, "dagster.yaml").read_text(encoding="utf-8") + "\n"
    except (OSError, ValueError):  # no file, or not text: Dagster itself reports that
        return []
    return _FROM_VARIABLE.findall("".join(_STORAGE_SECTION.findall(text)))
