"""An environment as SQLMesh's state holds it. Nothing here creates or changes anything."""

import gc
from collections.abc import Callable, Collection

from sqlmesh import Context
from sqlmesh.core.environment import Environment
from sqlmesh.core.snapshot import Snapshot, SnapshotTableInfo

from sqlmesh_runner.errors import NotPlannedError, UnreachableError, describe
from sqlmesh_runner.sqlmesh_api.environment_cache import cache_environments
from sqlmesh_runner.sqlmesh_api.errors import sqlmesh_errors
from sqlmesh_runner.sqlmesh_api.optimized_queries import load_queries_late

__all__ = ["load_snapshots", "read_finalized_environment"]

_Wait = Callable[[str, float], None]


def read_finalized_environment(
    context: Context, name: str | None, *, wait: _Wait | None = None
) -> Environment:
    """Return the environment as it was last planned.

    Args:
        context: an open project.
        name: None for the project's default target environment.
        wait: called with a message and seconds while a plan changes the environment, as often as
            `sqlmesh run` would wait (`run.environment_check_interval` and
            `run.environment_check_max_wait` of the project's configuration). The connections to
            the state are closed meanwhile: DuckDB would keep the plan out. None: do not wait.

    Raises:
        NotPlannedError: there is no state, it belongs to another SQLMesh, or the environment does
            not exist or is not finalized.
        UnreachableError: state or warehouse don't answer.
    """
    name = _environment_name(context, name)
    state_name = f"the state of {context.path} (gateway {context.selected_gateway})"
    with sqlmesh_errors(f"Reading {state_name}", otherwise=UnreachableError):
        # The public `Context.state_sync` creates the state's tables where there are none. Ask
        # first, then hand over the same connection.
        state = context._new_state_sync()  # noqa: SLF001 - see compatibility.PRIVATE_NAMES
        # A DuckDB file that can't be opened looks empty otherwise.
        state.engine_adapter.fetchone("SELECT 1")
        is_planned = state.get_versions(validate=False).schema_version > 0
    if not is_planned:
        msg = f"Nothing was ever planned: {state_name} is empty. Run `sqlmesh plan {name}`."
        raise NotPlannedError(msg)
    cache_environments(state)
    load_queries_late(state)
    context._provided_state_sync = state  # noqa: SLF001
    try:
        state.get_versions()
    except Exception as exc:
        msg = f"The state of {context.path} does not fit this SQLMesh: {describe(exc)}"
        raise NotPlannedError(msg) from exc
    with sqlmesh_errors(f"Reading {state_name}", otherwise=UnreachableError):
        return _finalized(context, name, wait)


def _finalized(context: Context, name: str, wait: _Wait | None) -> Environment:
    settings = context.config.run
    interval, longest = settings.environment_check_interval, settings.environment_check_max_wait
    waits = max(1, longest // interval) if wait else 0  # as Context.run counts them
    while True:
        environment = _existing(context, name)
        if environment.finalized_ts:
            return environment
        unfinished = (
            f"Environment '{name}' is being changed by plan {environment.plan_id}, or that plan "
            "broke off"
        )
        remedy = f"If no plan is running, run `sqlmesh plan {name}` again."
        if wait is None:
            msg = f"{unfinished}. {remedy}"
            raise NotPlannedError(msg)
        if not waits:
            limit = f"`run.environment_check_max_wait` of the project ({longest} s)"
            msg = f"{unfinished}; the runner waited for {limit}. {remedy}"
            raise NotPlannedError(msg)
        waits -= 1
        context.state_sync.close()
        text = f"at most {longest} s in all, checking again in {interval} s"
        wait(f"{unfinished}: waiting, {text}. {remedy}", interval)


def _existing(context: Context, name: str) -> Environment:
    environment = context.state_sync.get_environment(name)
    if environment is None:
        names = (str(each.name) for each in context.state_sync.get_environments_summary())
        known = ", ".join(sorted(names)) or "none"
        msg = f"Environment '{name}' was never planned (known: {known}). Run `sqlmesh plan {name}`."
        raise NotPlannedError(msg)
    return environment


def _environment_name(context: Context, name: str | None) -> str:
    return str(Environment.sanitize_name(name or context.config.default_target_environment))


def load_snapshots(
    context: Context, snapshots: Collection[SnapshotTableInfo]
) -> dict[str, Snapshot]:
    """Return the snapshots in full, by FQN. SQLMesh's run finds them in the state's cache.

    The garbage collector would walk the growing heap again and again: without it this takes 40 %
    less time for 1,000 models.
    """
    gc.disable()
    try:
        loaded = context.state_sync.get_snapshots(snapshots).values()
        return {snapshot.name: snapshot for snapshot in loaded}
    finally:
        gc.freeze()
        gc.enable()
