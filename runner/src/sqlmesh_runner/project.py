"""A SQLMesh project opened from its state: the context without its models, and what must hold before a run."""

import gc
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlmesh import Context
from sqlmesh.core.config import ConnectionConfig
from sqlmesh.core.console import Console, set_console
from sqlmesh.core.environment import Environment
from sqlmesh.core.snapshot import Snapshot
from sqlmesh.utils.errors import ConfigError

from sqlmesh_runner.errors import (
    ConfigurationError,
    NotPlannedError,
    RunError,
    RunnerError,
    UnreachableError,
    describe,
    is_connection_error,
)

__all__ = ["held_environment", "hydrated_snapshots", "open_project", "path_in_project", "sqlmesh_errors"]

_CONFIG_FILES = ("config.yaml", "config.yml", "config.py", "sqlmesh.yaml", "sqlmesh.yml", "dbt_project.yml")


class _ExactContext(Context):  # type: ignore[misc]  # SQLMesh is not followed by mypy
    """A context that runs exactly the snapshots that are named.

    `--select` of SQLMesh takes expressions, which are matched with every model (slow for thousands) and never with standalone audits.
    """

    def _select_models_for_run(self, select_models: Collection[str], *_: Any, **__: Any) -> set[str]:
        return set(select_models)


@contextmanager
def open_project(directories: Sequence[Path], *, gateway: str | None, console: Console) -> Iterator[Context]:
    """Open a project without its models, for work from state. Changes the working directory to it.

    Relative paths of DuckDB databases resolve against the working directory (SQLMesh has no other base for them).

    Raises:
        ConfigurationError: there is no project, or its configuration is wrong, or it has no such gateway.
    """
    directories = [directory.absolute() for directory in directories]
    _require_project(directories)
    os.chdir(directories[0])
    set_console(console)
    try:
        context = _ExactContext(paths=[str(directory) for directory in directories], gateway=gateway, load=False)
    except Exception as exc:
        msg = f"The SQLMesh project in {', '.join(map(str, directories))} can't be opened: {describe(exc)}"
        raise (UnreachableError if is_connection_error(exc) else ConfigurationError)(msg) from exc
    try:
        yield context
    finally:
        context.close()  # or DuckDB leaves a write-ahead log behind


def _require_project(directories: Sequence[Path]) -> None:
    for directory in directories:
        if not directory.is_dir():
            msg = f"There is no directory {directory}. Give the SQLMesh project's with --project-dir."
            raise ConfigurationError(msg)
        if not any((directory / name).is_file() for name in _CONFIG_FILES):
            msg = f"There is no SQLMesh project in {directory} (no config.yaml or config.py). Give the project's directory with --project-dir."
            raise ConfigurationError(msg)


def held_environment(context: Context, name: str | None) -> Environment:
    """Give the environment as it was last planned, without creating or changing anything.

    Raises:
        NotPlannedError: there is no state, it belongs to another SQLMesh, or the environment is not there or not finalized.
        UnreachableError: state or warehouse don't answer.
    """
    name = _environment_name(context, name)
    _require_databases(context, name)
    try:
        # Context.state_sync creates the state tables where there are none. This asks first, and hands over the same connection.
        state = context._new_state_sync()  # noqa: SLF001
        state.engine_adapter.fetchone("SELECT 1")  # a DuckDB file that can't be opened looks empty otherwise
        planned = state.get_versions(validate=False).schema_version > 0
    except Exception as exc:
        msg = f"The state of {context.path} can't be read (gateway {context.selected_gateway}): {describe(exc)}"
        if "lock" in str(exc).lower() and "duckdb" in type(exc).__module__:
            msg += " Another process has the DuckDB file open; DuckDB allows one at a time."
        raise UnreachableError(msg) from exc
    if not planned:
        msg = f"The state of {context.path} (gateway {context.selected_gateway}) is empty: nothing was ever planned. Run `sqlmesh plan {name}`."
        raise NotPlannedError(msg)
    context._provided_state_sync = state  # noqa: SLF001
    try:
        state.get_versions()
    except Exception as exc:
        msg = f"The state of {context.path} does not fit this SQLMesh: {describe(exc)}"
        raise NotPlannedError(msg) from exc
    environment = context.state_sync.get_environment(name)
    if environment is None:
        known = ", ".join(sorted(str(each.name) for each in context.state_sync.get_environments_summary())) or "none"
        msg = f"Environment '{name}' was never planned (known: {known}). Run `sqlmesh plan {name}`."
        raise NotPlannedError(msg)
    if not environment.finalized_ts:
        msg = (
            f"Environment '{name}' is being changed by plan {environment.plan_id}, or that plan broke off. Wait for it; if none is at work, "
            f"run `sqlmesh plan {name}` again."
        )
        raise NotPlannedError(msg)
    return environment


def _environment_name(context: Context, name: str | None) -> str:
    return str(Environment.sanitize_name(name or context.config.default_target_environment))


def _require_databases(context: Context, environment: str) -> None:
    """See that DuckDB files are there. Connecting would create them."""
    warehouse = context.config.get_connection(context.gateway)
    state = context.config.get_state_connection(context.gateway) or warehouse
    for path in _missing_files(state):
        msg = f"The state database {path} does not exist: nothing was ever planned. Run `sqlmesh plan {environment}`."
        raise NotPlannedError(msg)
    for path in _missing_files(warehouse):
        msg = f"The warehouse {path} of gateway {context.selected_gateway} does not exist, though the project has state. Was it moved?"
        raise UnreachableError(msg)


def _missing_files(connection: ConnectionConfig) -> list[Path]:
    if connection.type_ != "duckdb":
        return []
    catalogs: Mapping[str, Any] = getattr(connection, "catalogs", None) or {}
    attached = [each if isinstance(each, str) else each.path for each in catalogs.values() if getattr(each, "type", "duckdb") == "duckdb"]
    texts = [getattr(connection, "database", None), *attached]
    # In memory or elsewhere (`md:`, `s3://`) is not a file to look for.
    files = [Path(text) for text in texts if text and ":" not in str(text)]
    return [file.absolute() for file in files if not file.exists()]


def hydrated_snapshots(context: Context, environment: Environment) -> dict[str, Snapshot]:
    """Load what the environment holds, by FQN. The run finds it in the state's cache.

    The collector would walk the growing heap again and again: without it this takes 40 % less time for 1,000 models.
    """
    gc.disable()
    try:
        return {snapshot.name: snapshot for snapshot in context.state_sync.get_snapshots(environment.snapshots).values()}
    finally:
        gc.freeze()
        gc.enable()


def path_in_project(context: Context, recorded: Path | None) -> str | None:
    """Give a model's file relative to its project.

    State knows the path on the machine that planned. Its longest end that is a file here is taken for the same one.
    """
    if recorded is None:
        return None
    recorded = Path(os.path.normpath(recorded))  # of several projects, some are often given as `../other`
    for root in context.configs:
        for start in range(1, len(recorded.parts)):
            end = Path(*recorded.parts[start:])
            if (root / end).is_file():
                return end.as_posix()
    return recorded.as_posix()


@contextmanager
def sqlmesh_errors(doing: str) -> Iterator[None]:
    """Translate what SQLMesh raises while `doing` something into the runner's errors."""
    try:
        yield
    except RunnerError:
        raise
    except ConfigError as exc:
        msg = f"{doing} failed: {describe(exc)}"
        raise ConfigurationError(msg) from exc
    except Exception as exc:
        msg = f"{doing} failed: {describe(exc)}"
        raise (UnreachableError if is_connection_error(exc) else RunError)(msg) from exc
