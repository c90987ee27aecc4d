"""Say line by line what would keep a run from working, and what to do about it."""

import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from sqlmesh import Context

from sqlmesh_runner import PROTOCOL_VERSION, __version__
from sqlmesh_runner.console import SilentConsole
from sqlmesh_runner.errors import EXIT_DONE, ConfigurationError, RunnerError, UnreachableError, describe
from sqlmesh_runner.project import held_environment, open_project

__all__ = ["examine"]

_DUCKDB_2: Final = 2


def examine(directories: Sequence[Path], *, gateway: str | None, environment: str | None) -> int:
    """Print what is there, from the inside out, up to the first problem.

    Returns: the exit code that a run would end with because of it.
    """
    _ok("runner", f"sqlmesh-runner {__version__}, protocol {PROTOCOL_VERSION}, Python {sys.version.split()[0]} at {sys.executable}")
    try:
        _versions()
        with open_project(directories, gateway=gateway, console=SilentConsole()) as context:
            _connections(context)
            held = held_environment(context, environment)
            _ok("environment", f"{held.name}: {len(held.snapshots)} models and audits, plan {held.plan_id}")
            _warehouse(context)
    except RunnerError as exc:
        print(f"problem  {exc}")  # noqa: T201
        return exc.exit_code
    _ok("ready", "nothing keeps a run from starting")
    return EXIT_DONE


def _versions() -> None:
    packages = ["sqlmesh", "sqlglot", "dagster-pipes", "duckdb"]
    _ok("versions", ", ".join(f"{name} {version(name)}" for name in packages))
    beside = [name for name in ("dagster", "dagster-dbt") if _is_installed(name)]
    if beside:
        _say("warning", "versions", f"{' and '.join(beside)} beside SQLMesh: their dependencies clash, give the runner its own environment")


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _connections(context: Context) -> None:
    warehouse = context.config.get_connection(context.gateway)
    state = context.config.get_state_connection(context.gateway) or warehouse
    _ok("project", ", ".join(str(path) for path in context.configs))
    gateway = context.selected_gateway or "default"
    _ok("gateway", f"{gateway}: {warehouse.type_}, {warehouse.concurrent_tasks} tasks at a time; state in {state.type_}")
    if "duckdb" in {warehouse.type_, state.type_} and int(version("duckdb").partition(".")[0]) >= _DUCKDB_2:
        msg = f"DuckDB {version('duckdb')} fails SQLMesh's audits (`unfinished result`). Install `duckdb<2`."
        raise ConfigurationError(msg)


def _warehouse(context: Context) -> None:
    try:
        context.engine_adapter.ping()
    except Exception as exc:
        msg = f"The warehouse of gateway {context.selected_gateway} does not answer: {describe(exc)}"
        raise UnreachableError(msg) from exc
    _ok("warehouse", "answers")


def _ok(what: str, text: str) -> None:
    _say("ok", what, text)


def _say(verdict: str, what: str, text: str) -> None:
    print(f"{verdict:<8} {what}: {text}")  # noqa: T201
