"""What each command takes. An option is a field: its flag, parser and value follow from it."""

import argparse
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, TypeVar

__all__ = [
    "AuditOptions",
    "DoctorOptions",
    "EvaluationOptions",
    "JobOptions",
    "LockOptions",
    "ManifestOptions",
    "ProjectOptions",
    "RestateOptions",
    "RunOptions",
    "StateOptions",
    "add_options",
    "read_options",
]

_ARGUMENT: Final = "argument"  # of a field's metadata: the keyword arguments of `add_argument`
_POSITIONAL: Final = "positional"


def _option(text: str, *, default: Any = None, positional: bool = False, **argument: Any) -> Any:
    """Declare an option that takes a value. `{default}` in its help text becomes the default."""
    metadata = {
        _ARGUMENT: {"help": text.format(default=default), **argument},
        _POSITIONAL: positional,
    }
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def _flag(text: str) -> Any:
    """Declare an option that is on if it is there."""
    return _option(text, default=False, action="store_true")


def _path(text: str) -> Path:
    return Path(text).absolute()  # a project is worked on in its own directory


def _dotenv_of_environment() -> Path | None:
    text = os.environ.get("SQLMESH_DOTENV_PATH")
    return _path(text) if text else None


def _working_directory() -> tuple[Path, ...]:
    return (Path.cwd(),)


@dataclass(frozen=True, kw_only=True)
class ProjectOptions:
    """The project and the environment: every command takes these."""

    project_dir: tuple[Path, ...] = _option(
        "the SQLMesh project; again for each of several (default: .)",
        default=_working_directory,
        action="append",
        type=_path,
        metavar="DIR",
    )
    gateway: str | None = _option("the gateway to use (default: the project's)", metavar="NAME")
    config: str | None = _option(
        "the variable of config.py that is the configuration (default: config)", metavar="NAME"
    )
    dotenv: Path | None = _option(  # noqa: RUF009 - it makes a field
        "a file of environment variables, in place of the project's .env "
        "(default: $SQLMESH_DOTENV_PATH)",
        default=_dotenv_of_environment,
        type=_path,
        metavar="FILE",
    )
    working_directory: Path | None = _option(  # noqa: RUF009 - it makes a field
        "where relative paths of the configuration start, such as a DuckDB file's (default: the "
        "project, or the current directory if the file is only there)",
        type=_path,
        metavar="DIR",
    )
    environment: str | None = _option(
        "the environment (default: the project's, as a rule prod)",
        positional=True,
        metavar="ENVIRONMENT",
    )
    debug: bool = _flag("show tracebacks")


@dataclass(frozen=True, kw_only=True)
class DoctorOptions(ProjectOptions):
    """What `doctor` takes."""


@dataclass(frozen=True, kw_only=True)
class ManifestOptions(ProjectOptions):
    """What `manifest` takes."""

    output: Path | None = _option(  # noqa: RUF009 - it makes a field
        "write to FILE, whole or not at all (default: stdout)",
        flags=("-o", "--output"),
        type=_path,
        metavar="FILE",
    )
    column_lineage: bool = _flag("add where each column comes from")


@dataclass(frozen=True, kw_only=True)
class LockOptions(ProjectOptions):
    """What the commands take that wait for the lock on the state."""

    lock_timeout: float | None = _option(
        "how long to wait for another run on the same state (default: until it ends)",
        type=float,
        metavar="SECONDS",
    )


@dataclass(frozen=True, kw_only=True)
class StateOptions(LockOptions):
    """What `state` takes."""

    wait: bool = _flag(
        "wait until no run is at work on the state, and keep runs out while it is read"
    )
    since: str | None = _option(
        "the cursor of an earlier document: list models only if it has changed since",
        metavar="CURSOR",
    )


@dataclass(frozen=True, kw_only=True)
class JobOptions(LockOptions):
    """What the commands take that report results while they work.

    Times are SQLMesh's: dates, times or expressions such as `1 day ago`.
    """

    select: tuple[str, ...] = _option(
        "only these models, by name or in SQLMesh's selector syntax, such as 'marts.*', tag:daily, "
        "+marts.orders or 'tag:daily & ^staging.*' (default: all)",
        default=(),
        nargs="+",
        action="extend",
        metavar="SELECTOR",
    )
    start: str | None = _option("the first time to look at (default: SQLMesh's)", metavar="TIME")
    end: str | None = _option("the last time to look at (default: now)", metavar="TIME")
    execution_time: str | None = _option("what counts as now (default: now)", metavar="TIME")
    events: str | None = _option(
        "also write events as JSON lines to FILE, or to stdout (-)", metavar="FILE"
    )
    no_lock: bool = _flag(
        "neither wait for other runs nor keep them out: runs that meet on a model double its rows"
    )
    stop_when_stdin_closes: bool = _flag(
        "stop when standard input ends: the process that started this one is gone"
    )
    cancel_grace: float = _option(
        "how long a stop may take before the process is ended (default: {default:g})",
        default=20.0,  # seconds
        type=float,
        metavar="SECONDS",
    )

    @property
    def times(self) -> Mapping[str, str | None]:
        """Return the options that SQLMesh must understand as times."""
        return {"start": self.start, "end": self.end, "execution_time": self.execution_time}


@dataclass(frozen=True, kw_only=True)
class AuditOptions(JobOptions):
    """What `audit` takes."""


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(JobOptions):
    """What the commands take that evaluate models."""

    row_counts: bool = _flag("count the rows of each evaluated model's table (one query per model)")


@dataclass(frozen=True, kw_only=True)
class RunOptions(EvaluationOptions):
    """What `run` takes."""

    ignore_cron: bool = _flag(
        "evaluate all missing intervals, whether or not a model's cron has ticked"
    )
    skip_janitor: bool = _flag("do not clean up expired tables first")


@dataclass(frozen=True, kw_only=True)
class RestateOptions(EvaluationOptions):
    """What `restate` takes."""


OptionsT = TypeVar("OptionsT", bound=ProjectOptions)


def add_options(parser: argparse.ArgumentParser, options: type[ProjectOptions]) -> None:
    """Add a command's options to its parser. Those that are not given are left to the class."""
    for declared in fields(options):
        argument = {
            "dest": declared.name,
            "default": argparse.SUPPRESS,
            **declared.metadata[_ARGUMENT],
        }
        flags: Iterable[str] = argument.pop("flags", (f"--{declared.name.replace('_', '-')}",))
        if declared.metadata[_POSITIONAL]:
            either = parser.add_mutually_exclusive_group()
            either.add_argument(*flags, **argument)
            either.add_argument(nargs="?", **argument)
        else:
            parser.add_argument(*flags, **argument)


def read_options(options: type[OptionsT], parsed: argparse.Namespace) -> OptionsT:
    """Return a command's options as typed values."""
    given = vars(parsed)
    values: dict[str, Any] = {
        declared.name: tuple(value) if isinstance(value, list) else value
        for declared in fields(options)
        if (value := given.get(declared.name)) is not None
    }
    return options(**values)
