"""A SQLMesh project opened from its state: the context without its models, and what must hold before a run."""

import gc
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlmesh import Context
from sqlmesh.core.config import ConnectionConfig
from sqlmesh.core.console import Console, set_console
from sqlmesh.core.environment import Environment
from sqlmesh.core.snapshot import Snapshot
from sqlmesh.utils.date import to_datetime
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
from sqlmesh_runner.variables import CONFIG_FILES, naming_missing_variables

__all__ = [
    "held_environment",
    "hydrated_snapshots",
    "open_project",
    "path_in_project",
    "require_project",
    "require_times",
    "sqlmesh_errors",
]


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
        UnreachableError: something that the project's configuration asks for doesn't answer.
    """
    directories = [directory.absolute() for directory in directories]
    require_project(directories)
    os.chdir(directories[0])
    set_console(console)
    with naming_missing_variables(directories):
        with sqlmesh_errors(f"Opening the SQLMesh project in {', '.join(map(str, directories))}", otherwise=ConfigurationError):
            context = _ExactContext(paths=[str(directory) for directory in directories], gateway=gateway, load=False)
        try:
            yield context
        finally:
            context.close()  # or DuckDB leaves a write-ahead log behind


def require_project(directories: Sequence[Path]) -> None:
    """See that each directory has a SQLMesh project's configuration in it.

    Raises:
        ConfigurationError: one is not there, or has none.
    """
    for directory in directories:
        if not directory.is_dir():
            msg = f"There is no directory {directory}. Give the SQLMesh project's with --project-dir."
            raise ConfigurationError(msg)
        if not any((directory / name).is_file() for name in CONFIG_FILES):
            msg = f"There is no SQLMesh project in {directory} (no config.yaml or config.py). Give the project's directory with --project-dir."
            raise ConfigurationError(msg)


def require_times(**times: str | None) -> None:
    """See that SQLMesh understands the command line's times; later, it would be a model's or the whole run's failure.

    Raises:
        ConfigurationError: it doesn't understand one.
    """
    for option, text in times.items():
        if text is None:
            continue
        try:
            to_datetime(text)
        except Exception as exc:
            msg = f"--{option.replace('_', '-')} {text!r} is no time: give a date or a time in UTC (2026-01-31, '2026-01-31 12:00'), or '1 week ago'."
            raise ConfigurationError(msg) from exc


def held_environment(context: Context, name: str | None, *, wait: Callable[[str, float], None] | None = None) -> Environment:
    """Give the environment as it was last planned, without creating or changing anything.

    Args:
        context: the project, as `open_project` gives it.
        name: None for the project's default target environment.
        wait: called while a plan is at work on the environment, with what is waited for and the seconds until it is looked at again, as
            often as `sqlmesh run` would wait (`run.environment_check_interval` and `run.environment_check_max_wait` of the project's
            configuration). The connections to the state are closed meanwhile: DuckDB would keep the plan out. None: do not wait.

    Raises:
        NotPlannedError: there is no state, it belongs to another SQLMesh, or the environment is not there or not finalized.
        UnreachableError: state or warehouse don't answer.
    """
    name = _environment_name(context, name)
    _require_databases(context, name)
    reading_state = f"Reading the state of {context.path} (gateway {context.selected_gateway})"
    with sqlmesh_errors(reading_state, otherwise=UnreachableError):
        # Context.state_sync creates the state tables where there are none. This asks first, and hands over the same connection.
        state = context._new_state_sync()  # noqa: SLF001
        state.engine_adapter.fetchone("SELECT 1")  # a DuckDB file that can't be opened looks empty otherwise
        planned = state.get_versions(validate=False).schema_version > 0
    if not planned:
        msg = f"The state of {context.path} (gateway {context.selected_gateway}) is empty: nothing was ever planned. Run `sqlmesh plan {name}`."
        raise NotPlannedError(msg)
    context._provided_state_sync = state  # noqa: SLF001
    try:
        state.get_versions()
    except Exception as exc:
        msg = f"The state of {context.path} does not fit this SQLMesh: {describe(exc)}"
        raise NotPlannedError(msg) from exc
    with sqlmesh_errors(reading_state, otherwise=UnreachableError):
        return _finalized(context, name, wait)


def _finalized(context: Context, name: str, wait: Callable[[str, float], None] | None) -> Environment:
    interval, longest = context.config.run.environment_check_interval, context.config.run.environment_check_max_wait
    waits = max(1, longest // interval) if wait else 0  # as Context.run counts them
    while True:
        environment = context.state_sync.get_environment(name)
        if environment is None:
            known = ", ".join(sorted(str(each.name) for each in context.state_sync.get_environments_summary())) or "none"
            msg = f"Environment '{name}' was never planned (known: {known}). Run `sqlmesh plan {name}`."
            raise NotPlannedError(msg)
        if environment.finalized_ts:
            return environment
        what = f"Environment '{name}' is being changed by plan {environment.plan_id}, or that plan broke off"
        remedy = f"If no plan is at work, run `sqlmesh plan {name}` again."
        if wait is None:
            msg = f"{what}. {remedy}"
            raise NotPlannedError(msg)
        if not waits:
            msg = f"{what}; it was waited for as long as `run.environment_check_max_wait` of the project says ({longest} s). {remedy}"
            raise NotPlannedError(msg)
        waits -= 1
        context.state_sync.close()
        wait(f"{what}: waiting, at most {longest} s in all, looking again in {interval} s. {remedy}", interval)


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
def sqlmesh_errors(doing: str, *, otherwise: type[RunnerError] = RunError) -> Iterator[None]:
    """Translate what SQLMesh raises while `doing` something into the runner's errors; `otherwise` is what an unknown one means there."""
    try:
        yield
    except RunnerError:
        raise
    except Exception as exc:
        msg = f"{doing} failed: {describe(exc)}"
        if "Could not set lock on file" in str(exc):  # DuckDB's words
            msg += " Another process has the DuckDB file open; DuckDB allows one at a time."
        if is_connection_error(exc):
            raise UnreachableError(msg) from exc
        raise (ConfigurationError if isinstance(exc, ConfigError) else otherwise)(msg) from exc
