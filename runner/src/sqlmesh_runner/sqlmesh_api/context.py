"""A SQLMesh project opened without its models, and what must hold before a run."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlmesh.core.console import Console, create_console, set_console
from sqlmesh.utils.date import to_datetime

from sqlmesh_runner.errors import (
    ConfigurationError,
    InterruptedRunError,
)
from sqlmesh_runner.job import Job, OptionsT_co
from sqlmesh_runner.options import JobOptions, ProjectOptions
from sqlmesh_runner.sqlmesh_api.compatibility import require_compatible_sqlmesh
from sqlmesh_runner.sqlmesh_api.configuration import load_configuration
from sqlmesh_runner.sqlmesh_api.console import SilentConsole, event_console
from sqlmesh_runner.sqlmesh_api.databases import DuckDBFiles
from sqlmesh_runner.sqlmesh_api.errors import sqlmesh_errors
from sqlmesh_runner.sqlmesh_api.gateways import require_usable_connections
from sqlmesh_runner.sqlmesh_api.lock import job_lock
from sqlmesh_runner.sqlmesh_api.queries import RunningQueries
from sqlmesh_runner.sqlmesh_api.run_context import RunContext
from sqlmesh_runner.sqlmesh_api.variables import CONFIG_FILES, naming_missing_variables
from sqlmesh_runner.variables.expected import unset_variables

__all__ = [
    "open_project",
    "raise_if_stopped",
    "require_project",
    "require_times",
    "with_open_project",
]


def with_open_project(
    job: Job[OptionsT_co], work: Callable[[Job[OptionsT_co], RunContext, RunningQueries], None]
) -> None:
    """Open the job's project, with its recorder as SQLMesh's console, and do the work in it."""
    require_times(job.options.times)
    queries, options = RunningQueries(), job.options
    display = create_console() if job.show_progress else SilentConsole()
    console = event_console(job.recorder, queries, display)
    with (
        open_project(options, console=console) as context,
        queries.watch(),
    ):
        raise_if_stopped(job)
        for level, message in unset_variables(job.expected_variables, os.environ):
            job.recorder.log_runner(level, message)
        queries.serve(context._get_engine_adapter)  # noqa: SLF001 - see compatibility.PRIVATE_NAMES
        job.cancel = queries.cancel
        with job_lock(job, context):
            work(job, context, queries)


def raise_if_stopped(job: Job[JobOptions]) -> None:
    """Raise an error if the runner was asked to stop.

    Raises:
        InterruptedRunError: it was.
    """
    if job.stop.requested:
        raise InterruptedRunError(job.stop.reason)


@contextmanager
def open_project(options: ProjectOptions, *, console: Console) -> Iterator[RunContext]:
    """Open a project without its models, to work from its state, in its working directory.

    Raises:
        ConfigurationError: there is no project, its configuration is wrong, it has no such
            gateway, or its SQLMesh lacks what the runner needs.
        NotPlannedError: the state is a DuckDB file that does not exist.
        UnreachableError: something that the project's configuration asks for does not answer.
    """
    require_compatible_sqlmesh()
    require_project(options.project_dir)
    set_console(console)
    with naming_missing_variables(options.project_dir, gateway=options.gateway):
        opening = f"Opening the SQLMesh project in {', '.join(map(str, options.project_dir))}"
        with sqlmesh_errors(opening, otherwise=ConfigurationError):
            context = _project_context(options)
        try:
            yield context
        finally:
            context.close()  # or DuckDB leaves a write-ahead log behind


def _project_context(options: ProjectOptions) -> RunContext:
    configuration = load_configuration(
        options.project_dir, config=options.config, dotenv=options.dotenv
    )
    first = next(iter(configuration.values()))
    require_usable_connections(first, options.gateway)
    databases = DuckDBFiles(first, options)
    os.chdir(databases.working_directory)
    databases.require()
    return RunContext(
        paths=[str(directory) for directory in options.project_dir],
        config=configuration,
        gateway=options.gateway,
        load=False,
    )


def require_project(directories: Sequence[Path]) -> None:
    """Check that each directory has the configuration of a SQLMesh project.

    Raises:
        ConfigurationError: one does not exist, or has none.
    """
    for directory in directories:
        if not directory.is_dir():
            msg = f"There is no directory {directory}. Set --project-dir to the SQLMesh project."
            raise ConfigurationError(msg)
        if not any((directory / name).is_file() for name in CONFIG_FILES):
            msg = (
                f"There is no SQLMesh project in {directory} (no config.yaml or config.py). "
                "Set --project-dir to the project's directory."
            )
            raise ConfigurationError(msg)


def require_times(times: Mapping[str, str | None]) -> None:
    """Check that SQLMesh can read the times of the command line, before a model fails by them.

    Raises:
        ConfigurationError: it can't read one.
    """
    for option, text in times.items():
        if text is None:
            continue
        try:
            to_datetime(text)
        except Exception as exc:
            msg = (
                f"--{option.replace('_', '-')} {text!r} is not a valid time. Use a date or a time "
                "in UTC (2026-01-31, '2026-01-31 12:00'), or '1 week ago'."
            )
            raise ConfigurationError(msg) from exc
