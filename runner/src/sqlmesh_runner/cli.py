"""The command line: `manifest`, `run`, `audit`, `doctor`. SQLMesh is imported by the commands, not here."""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

from sqlmesh_runner import __version__
from sqlmesh_runner.errors import EXIT_DONE, ConfigurationError, RunnerError
from sqlmesh_runner.startup import import_sqlmesh
from sqlmesh_runner.stop import StopRequest, supervise

if TYPE_CHECKING:
    from sqlmesh_runner.job import Job

__all__ = ["main"]

_EPILOG = """exit codes:
  0    done, or nothing to do
  1    models or audits failed
  2    wrong usage or configuration
  3    environment not planned, its plan not finished, or its state does not fit this SQLMesh
  4    warehouse or state unreachable
  130  interrupted (SIGINT, or the starting process is gone); 143 by SIGTERM
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code; exits by itself for wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        if options.command in {"run", "audit"}:
            return _run(options)
        import_sqlmesh()
        return _doctor(options) if options.command == "doctor" else _manifest(options)
    except RunnerError as exc:
        _print_error(exc, debug=options.debug)
        return exc.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sqlmesh-runner",
        description="Run a SQLMesh project outside Dagster, and tell every result while it happens.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sqlmesh-runner {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, add_options, text in (
        ("manifest", _add_manifest, "describe the project's files as JSON, without connecting anywhere"),
        ("run", _add_run, "evaluate and audit what is due in an environment, as it was last planned"),
        ("audit", _add_audit, "audit what is recorded in an environment, evaluating nothing"),
        ("doctor", _add_common, "check versions, project, connections and environment, and say what to do"),
    ):
        description = f"{text[0].upper()}{text[1:]}."
        add_options(commands.add_parser(name, help=text, description=description, epilog=_EPILOG, formatter_class=parser.formatter_class))
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--project-dir", action="append", type=Path, metavar="DIR", help="the SQLMesh project; again for each of several (default: .)")
    add("--gateway", metavar="NAME", help="the gateway to use (default: the project's)")
    add("--environment", metavar="NAME", help="the environment (default: the project's, as a rule prod)")
    add("--debug", action="store_true", help="show tracebacks")


def _add_manifest(parser: argparse.ArgumentParser) -> None:
    _add_common(parser)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write to FILE, whole or not at all (default: stdout)")
    parser.add_argument("--column-lineage", action="store_true", help="add where each column comes from")


def _add_selection(parser: argparse.ArgumentParser) -> None:
    _add_common(parser)
    add = parser.add_argument
    add("--select", nargs="+", action="extend", metavar="MODEL", help="exactly these models, nothing upstream (default: all)")
    add("--start", metavar="TIME", help="the first time to look at (default: SQLMesh's)")
    add("--end", metavar="TIME", help="the last time to look at (default: now)")
    add("--execution-time", metavar="TIME", help="what counts as now (default: now)")


def _add_audit(parser: argparse.ArgumentParser) -> None:
    _add_selection(parser)
    _add_reporting(parser)


def _add_run(parser: argparse.ArgumentParser) -> None:
    _add_selection(parser)
    add = parser.add_argument
    add("--ignore-cron", action="store_true", help="evaluate all missing intervals, whether or not a model's cron has ticked")
    add("--skip-janitor", action="store_true", help="do not clean up expired tables first")
    add("--row-counts", action="store_true", help="count the rows of each evaluated model's table (one query a model)")
    _add_reporting(parser)


def _add_reporting(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--events", metavar="FILE", help="also write events as JSON lines to FILE, or to stdout (-)")
    add("--stop-when-stdin-closes", action="store_true", help="stop when standard input ends: whoever started this is gone")
    add(
        "--cancel-grace",
        type=float,
        default=20.0,
        metavar="SECONDS",
        help="how long a stop may take before the process just ends (default: 20)",
    )


def _directories(options: argparse.Namespace) -> list[Path]:
    return [directory.absolute() for directory in options.project_dir or [Path()]]


def _doctor(options: argparse.Namespace) -> int:
    from sqlmesh_runner.doctor import examine

    return examine(_directories(options), gateway=options.gateway, environment=options.environment)


def _manifest(options: argparse.Namespace) -> int:
    if options.output is None:
        from sqlmesh_runner.sinks.stdio import take_stdout

        with TextIOWrapper(take_stdout(), encoding="utf-8") as stdout:  # taken before the project's code prints there; dbt does
            stdout.write(_manifest_text(options))
    else:
        output = options.output.absolute()
        _write_whole(_manifest_text(options), output)
    return EXIT_DONE


def _manifest_text(options: argparse.Namespace) -> str:
    from sqlmesh_runner.manifest import build_manifest, dump
    from sqlmesh_runner.project import require_project, sqlmesh_errors
    from sqlmesh_runner.variables import naming_missing_variables

    directories = _directories(options)
    require_project(directories)
    with naming_missing_variables(directories), sqlmesh_errors("Reading the project's files", otherwise=ConfigurationError):
        manifest = build_manifest(
            paths=directories,
            gateway=options.gateway,
            environment=options.environment,
            column_lineage=options.column_lineage,
        )
    return dump(manifest)


def _write_whole(text: str, output: Path) -> None:
    """Write a file that a reader sees as it was before or as it is now, never a half."""
    draft = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text, encoding="utf-8")
        draft.replace(output)
    except OSError as exc:
        msg = f"The manifest can't be written to {output}: {exc.strerror}. Give --output a file that may be written."
        raise ConfigurationError(msg) from exc
    finally:
        with suppress(OSError):  # replaced, or never made
            draft.unlink()


def _run(options: argparse.Namespace) -> int:
    stop = StopRequest()
    stop.watch_signals()
    if options.stop_when_stdin_closes:
        stop.watch_stdin()
    from sqlmesh_runner.reporting import prepare_job

    job = prepare_job(options, _directories(options), stop, os.environ)

    def work() -> int:
        return job.perform(partial(_perform, options.command))

    code = supervise(work, stop=stop, cancel=job.cancel, abandon=job.recorder.abandon, grace=options.cancel_grace)
    job.sink.close()
    if job.error is not None:
        _print_error(job.error, debug=options.debug)
    if code is None:
        sys.stderr.flush()
        os._exit(stop.exit_code)  # SQLMesh's threads are still at work and would be waited for
    return code


def _perform(command: str, job: "Job") -> None:
    import_sqlmesh()
    from sqlmesh_runner.audit import audit
    from sqlmesh_runner.project import require_times
    from sqlmesh_runner.run import evaluate, in_project

    require_times(start=job.options.start, end=job.options.end, execution_time=job.options.execution_time)
    in_project(job, audit if command == "audit" else evaluate)


def _print_error(error: BaseException, *, debug: bool) -> None:
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    print(f"Error: {error}", file=sys.stderr)  # noqa: T201
