"""Print what would keep a run from working, and what to do about it."""

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from sqlmesh import Context

from sqlmesh_runner import PROTOCOL_VERSION, __version__
from sqlmesh_runner.errors import (
    EXIT_DONE,
    ConfigurationError,
    LockTimeoutError,
    RunnerError,
    UnreachableError,
)
from sqlmesh_runner.options import DoctorOptions
from sqlmesh_runner.recording.events import LogLevel
from sqlmesh_runner.sqlmesh_api.console import SilentConsole
from sqlmesh_runner.sqlmesh_api.context import open_project
from sqlmesh_runner.sqlmesh_api.environment import read_finalized_environment
from sqlmesh_runner.sqlmesh_api.gateways import require_answers
from sqlmesh_runner.sqlmesh_api.lock import process_name, state_lock
from sqlmesh_runner.variables.project import project_variables

__all__ = ["main"]

_DUCKDB_2: Final = 2


def main(options: DoctorOptions) -> int:
    """Print what is found, from the inside out, up to the first problem.

    Returns the exit code that a run would end with because of it.
    """
    python = f"Python {sys.version.split()[0]} at {sys.executable}"
    _ok("runner", f"sqlmesh-runner {__version__}, protocol {PROTOCOL_VERSION}, {python}")
    try:
        _check_packages()
        _check_project(options)
    except RunnerError as exc:
        _print("problem", str(exc))
        return exc.exit_code
    _ok("ready", "nothing keeps a run from starting")
    return EXIT_DONE


def _check_packages() -> None:
    packages = ["sqlmesh", "sqlglot", "dagster-pipes", "duckdb"]
    _ok("versions", ", ".join(f"{name} {version(name)}" for name in packages))
    clashing = [name for name in ("dagster", "dagster-dbt") if _is_installed(name)]
    if clashing:
        _print(
            "warning",
            f"versions: {' and '.join(clashing)} beside SQLMesh: their dependencies clash, give "
            "the runner an environment of its own",
        )


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _check_project(options: DoctorOptions) -> None:
    with open_project(options, console=SilentConsole()) as context:
        _check_connections(context)
        _check_variables(options, context)
        held = read_finalized_environment(context, options.environment)
        _ok(
            "environment",
            f"{held.name}: {len(held.snapshots)} models and audits, plan {held.plan_id}",
        )
        _check_lock(context)
        require_answers(context, held.snapshots)
        _ok("warehouse", "answers")


def _check_connections(context: Context) -> None:
    warehouse = context.config.get_connection(context.gateway)
    state = context.config.get_state_connection(context.gateway) or warehouse
    gateway = context.selected_gateway or "default"
    tasks = f"{warehouse.concurrent_tasks} concurrent tasks"
    _ok("project", ", ".join(str(path) for path in context.configs))
    _ok("gateway", f"{gateway}: {warehouse.type_}, {tasks}; state in {state.type_}")
    duckdb = version("duckdb")
    if "duckdb" in {warehouse.type_, state.type_} and int(duckdb.partition(".")[0]) >= _DUCKDB_2:
        msg = f"DuckDB {duckdb} fails SQLMesh's audits (`unfinished result`). Install `duckdb<2`."
        raise ConfigurationError(msg)


def _check_variables(options: DoctorOptions, context: Context) -> None:
    """Name what the project reads and what is not set here, after its `.env` was loaded."""
    read = project_variables(options.project_dir, gateway=context.selected_gateway)
    if not read:
        return
    unset = [variable for variable in read if variable.name not in os.environ]
    if not unset:
        _ok("variables", f"{', '.join(variable.name for variable in read)}: all set")
    for variable in unset:
        where = f"{variable.name} is not set here; {variable.path} reads it"
        if variable.required:
            _print("warning", f"variables: {where} and has no default")
        else:
            _ok("variables", f"{where} and has a default")


def _check_lock(context: Context) -> None:
    """Acquire the lock as a run does, and release it at once."""
    user = _LockUser()
    try:
        with state_lock(context, user, name=process_name(), timeout=0):
            pass
    except LockTimeoutError as exc:
        _print("warning", f"lock: {exc.holder} is at work on the state; a run started now waits")
    else:
        if not user.was_warned:
            _ok("lock", "no run is at work on the state")


class _LockUser:
    """Who asks for the lock to see whether it is free."""

    def __init__(self) -> None:
        self.was_warned = False

    def log(self, level: LogLevel, text: str) -> None:
        if level == "WARNING":
            self.was_warned = True
            _print("warning", f"lock: {text}")

    def pause(self, seconds: float) -> None:
        """Never called: this does not wait."""

    def lock_lost(self, error: UnreachableError, *, is_last: bool) -> None:
        """Do nothing: the lock is let go at once."""


def _ok(subject: str, text: str) -> None:
    _print("ok", f"{subject}: {text}")


def _print(verdict: str, text: str) -> None:
    print(f"{verdict:<8} {text}")  # noqa: T201
