"""Write what SQLMesh's state has recorded of an environment, as JSON."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from sqlmesh import Context
from sqlmesh.core import constants
from sqlmesh.core.environment import Environment

from sqlmesh_runner.errors import EXIT_DONE, UnreachableError
from sqlmesh_runner.options import StateOptions
from sqlmesh_runner.recording.events import LogLevel, as_json
from sqlmesh_runner.recording.scope import in_topological_order
from sqlmesh_runner.sinks.output import open_output
from sqlmesh_runner.sqlmesh_api.console import SilentConsole
from sqlmesh_runner.sqlmesh_api.context import open_project
from sqlmesh_runner.sqlmesh_api.environment import load_snapshots, read_finalized_environment
from sqlmesh_runner.sqlmesh_api.errors import sqlmesh_errors
from sqlmesh_runner.sqlmesh_api.lock import process_name, state_lock
from sqlmesh_runner.sqlmesh_api.run_scope import deployability
from sqlmesh_runner.sqlmesh_api.state import read_cursor, read_recorded

__all__ = ["main"]

_SCHEMA_VERSION: Final = 1


def main(options: StateOptions) -> int:
    """Write the state to stdout and return the exit code.

    Raises:
        LockTimeoutError: a run is at work, and the time to wait for it is over.
        NotPlannedError: there is no such environment, or a plan is changing it.
        UnreachableError: the state does not answer.
    """
    with open_output(os.environ) as output:
        with (
            open_project(options, console=SilentConsole()) as context,
            _runs_kept_out(context, options) if options.wait else nullcontext(),
        ):
            document = _document(context, options)
        output.write(json.dumps(document) + "\n")
    return EXIT_DONE


def _runs_kept_out(context: Context, options: StateOptions) -> AbstractContextManager[None]:
    return state_lock(context, _Reader(), name=process_name(), timeout=options.lock_timeout)


class _Reader:
    """Who waits for the lock, to read the state."""

    def log(self, level: LogLevel, text: str) -> None:  # noqa: ARG002 - stdout has the document
        print(text, file=sys.stderr)  # noqa: T201

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def lock_lost(self, error: UnreachableError, *, is_last: bool) -> None:
        """Do nothing: the state is read in one go, or reading it fails."""


def _document(context: Context, options: StateOptions) -> dict[str, Any]:
    environment = read_finalized_environment(context, options.environment)
    with sqlmesh_errors("Reading the recorded intervals from state"):
        cursor = read_cursor(context, environment)
        changed = options.since != cursor
        models = _models(context, environment) if changed else []
    return {
        "schema_version": _SCHEMA_VERSION,
        "cursor": cursor,
        "changed": changed,
        "environment": environment.name,
        "plan_id": environment.plan_id,
        "models": models,
    }


def _models(context: Context, environment: Environment) -> list[Any]:
    snapshots, is_representative = _tables(context, environment)
    recorded = read_recorded(context, snapshots, is_representative=is_representative)
    return [
        as_json({**model.payload(), "pending_restatement": model.pending_restatement})
        for model in recorded.values()
    ]


def _tables(
    context: Context, environment: Environment
) -> tuple[Iterable[Any], Callable[[Any], bool]]:
    """Return the environment's tables, and which of them it reads from production.

    In `prod` that is all. Elsewhere that follows from the models, which must be loaded then.
    """
    if environment.name == constants.PROD:
        return in_topological_order(environment.snapshots), lambda _table: True
    snapshots = load_snapshots(context, environment.snapshots)
    index = deployability(environment.name, snapshots, None)
    return in_topological_order(snapshots.values()), index.is_representative
