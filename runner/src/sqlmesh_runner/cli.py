"""The command line. SQLMesh is imported by the commands: `--help` does not wait for it."""

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlmesh_runner import __version__
from sqlmesh_runner.errors import RunnerError
from sqlmesh_runner.job import Job, open_job
from sqlmesh_runner.options import (
    AuditOptions,
    DoctorOptions,
    JobOptions,
    ManifestOptions,
    ProjectOptions,
    RestateOptions,
    RunOptions,
    StateOptions,
    add_options,
    read_options,
)
from sqlmesh_runner.sqlmesh_api.startup import import_sqlmesh
from sqlmesh_runner.stop import kill_children

__all__ = ["main"]


class _Command(NamedTuple):
    """A module of `sqlmesh_runner.commands`: its `main` takes the options, or a job with them."""

    options: type[ProjectOptions]
    help: str


_COMMANDS: Final[Mapping[str, _Command]] = {
    "manifest": _Command(
        ManifestOptions, "describe the project's files as JSON, without connecting anywhere"
    ),
    "run": _Command(
        RunOptions, "evaluate and audit what is due in an environment, as it was last planned"
    ),
    "audit": _Command(AuditOptions, "audit what is recorded in an environment, evaluating nothing"),
    "restate": _Command(
        RestateOptions,
        "evaluate recorded intervals of the selected models, and of what is downstream, again",
    ),
    "state": _Command(
        StateOptions, "describe as JSON what SQLMesh's state has recorded of an environment"
    ),
    "doctor": _Command(
        DoctorOptions, "check versions, project, connections and environment, and say what to do"
    ),
}

_INTERRUPTED: Final = 130

_EPILOG = """exit codes:
  0    done, or nothing to do
  1    models or audits failed
  2    wrong usage or configuration
  3    environment not planned, its plan not finished, or its state does not fit this SQLMesh
  4    warehouse or state unreachable
  5    another run is at work on the state, and --lock-timeout is over
  130  interrupted (SIGINT, or the starting process is gone); 143 by SIGTERM
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code. Wrong usage ends the process by itself."""
    parsed = _parser().parse_args(arguments)
    options = read_options(_COMMANDS[parsed.command].options, parsed)
    try:
        if isinstance(options, JobOptions):
            return _run_job(parsed.command, options)
        import_sqlmesh()
        code: int = _main_of(parsed.command)(options)
    except RunnerError as exc:
        _print_error(exc, debug=options.debug)
        return exc.exit_code
    except KeyboardInterrupt:
        return _INTERRUPTED
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sqlmesh-runner",
        description="Run a SQLMesh project outside Dagster, and report each result as it happens.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sqlmesh-runner {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in _COMMANDS.items():
        subparser = subparsers.add_parser(
            name,
            help=command.help,
            description=f"{command.help[0].upper()}{command.help[1:]}.",
            epilog=_EPILOG,
            formatter_class=parser.formatter_class,
        )
        add_options(subparser, command.options)
    return parser


def _main_of(command: str) -> Callable[[Any], Any]:
    main_of: Callable[[Any], Any] = importlib.import_module(
        f"sqlmesh_runner.commands.{command}"
    ).main
    return main_of


def _run_job(command: str, options: JobOptions) -> int:
    def work(job: Job[JobOptions]) -> None:
        import_sqlmesh()
        _main_of(command)(job)

    job = open_job(options, os.environ)
    code = job.run(work)
    if job.error is not None:
        _print_error(job.error, debug=options.debug)
    if code is None:
        sys.stderr.flush()
        kill_children()
        os._exit(job.stop.exit_code)  # SQLMesh's threads still work and would be waited for
    return code


def _print_error(error: BaseException, *, debug: bool) -> None:
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    print(f"Error: {error}", file=sys.stderr)  # noqa: T201
