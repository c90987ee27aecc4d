"""The snapshots that a run of a few models needs, out of an environment with many.

SQLMesh loads every snapshot of the environment, which is most of what a small run of a large
project costs. Its scheduler reads only some of them (`Scheduler._run_or_audit`):

- the selected ones and their parents, to evaluate and audit;
- those between two selected ones, because the order of evaluation follows from them;
- the ancestors of a model without a start of its own, which inherits the earliest of theirs.

The others matter in the cases that `_may_need_all` names: then the run loads them all.
"""

import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any, Final

from sqlglot import exp
from sqlmesh import Context
from sqlmesh.core import constants
from sqlmesh.core.environment import Environment
from sqlmesh.core.snapshot import Snapshot, SnapshotTableInfo
from sqlmesh.utils.date import now_timestamp

from sqlmesh_runner.sqlmesh_api.environment import load_snapshots

__all__ = ["RunRequest", "needed_snapshots"]

_Infos = Mapping[str, SnapshotTableInfo]  # by FQN

_MAX_SHARE: Final = 0.5  # of the environment's snapshots: loading half of them saves little


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What a run is of."""

    selected: Collection[str]  # FQNs; those that the environment lacks are ignored, as in SQLMesh
    end: str | None = None
    execution_time: str | None = None


def needed_snapshots(
    context: Context, environment: Environment, request: RunRequest
) -> dict[str, Snapshot] | None:
    """Return the snapshots that a run needs, by FQN. None if it may need all of them."""
    infos = {info.name: info for info in environment.snapshots}
    selected = infos.keys() & set(request.selected)
    names = _evaluation_names(infos, selected)
    is_large = len(names) > _MAX_SHARE * len(infos)
    if not selected or is_large or _may_need_all(context, environment, request):
        return None
    snapshots = _load(context, infos, names)
    if any(_reads_other_snapshots(snapshots[name]) for name in selected):
        return None
    return _with_ancestors_for_start(context, infos, snapshots, selected, end=request.end)


def _evaluation_names(infos: _Infos, selected: Collection[str]) -> set[str]:
    """Return the selected names, their parents, and what is between two selected ones."""
    ancestors = _ancestors(infos, selected)
    below_selected: set[str] = set()
    for name in TopologicalSorter(ancestors).static_order():
        parents = ancestors.get(name, set())
        if any(parent in selected or parent in below_selected for parent in parents):
            below_selected.add(name)
    parents_of_selected = {parent for name in selected for parent in ancestors[name]}
    return {*selected, *below_selected, *parents_of_selected}


def _ancestors(infos: _Infos, names: Collection[str]) -> dict[str, set[str]]:
    """Return the parents of the named snapshots, and of all their ancestors, by FQN."""
    found: dict[str, set[str]] = {}
    remaining = list(names)
    while remaining:
        name = remaining.pop()
        if name not in found:
            found[name] = {parent.name for parent in infos[name].parents if parent.name in infos}
            remaining += found[name]
    return found


def _may_need_all(context: Context, environment: Environment, request: RunRequest) -> bool:
    """Return whether snapshots that are not selected may change what a run does.

    - Other environments than prod: which tables are their own follows from all ancestors.
    - `before_all` and `after_all` statements can refer to any model.
    - An automatic restatement that is due restates what is downstream of its model, too.
    - SQLMesh before 0.200 has no scheduler that can be given its snapshots.
    """
    if environment.name != constants.PROD:
        return True
    if "snapshot_evaluator" not in inspect.signature(Context.create_scheduler).parameters:
        return True
    if context.state_sync.get_environment_statements(environment.name):
        return True
    restated = _automatically_restated(context, environment)
    if restated is None:
        return True
    now = request.execution_time or now_timestamp()
    snapshots = load_snapshots(context, restated).values()
    return any(snapshot.get_next_auto_restatement_interval(now) for snapshot in snapshots)


def _automatically_restated(
    context: Context, environment: Environment
) -> list[SnapshotTableInfo] | None:
    """Return the snapshots with an `auto_restatement_cron`. None if state can't be asked."""
    state: Any = context._provided_state_sync  # noqa: SLF001 - see compatibility.PRIVATE_NAMES
    table = getattr(getattr(state, "snapshot_state", None), "snapshots_table", None)
    if table is None:
        return None
    pattern = exp.Literal.string('%"auto_restatement_cron":"%')
    has_cron = exp.column("snapshot").like(pattern)
    query = exp.select("name", "identifier").from_(table).where(has_cron)
    found = {tuple(row) for row in state.engine_adapter.fetchall(query, quote_identifiers=True)}
    return [info for info in environment.snapshots if (info.name, info.identifier) in found]


def _reads_other_snapshots(snapshot: Snapshot) -> bool:
    """Return whether a selected snapshot may read others than its parents.

    A signal's context resolves the table of any model; dbt's Jinja may do so as well.
    """
    node: Any = snapshot.node
    return bool(getattr(node, "signals", None) or getattr(node, "dbt_unique_id", None))


def _with_ancestors_for_start(
    context: Context,
    infos: _Infos,
    snapshots: dict[str, Snapshot],
    selected: Collection[str],
    *,
    end: str | None,
) -> dict[str, Snapshot] | None:
    """Add the ancestors that the selected snapshots' starts are inferred from.

    None if that takes all snapshots: SQLMesh infers a start from a cron in relation to the run's
    end, and bounds it by the earliest start of all snapshots in relation to now.
    """
    checked: set[str] = set()
    unchecked = set(selected)
    while unchecked:
        missing = unchecked - snapshots.keys()
        snapshots |= _load(context, infos, missing)
        inferred = {name for name in unchecked if not snapshots[name].node.start}
        if inferred and end is not None:
            return None
        checked |= unchecked
        parents = {parent.name for name in inferred for parent in infos[name].parents}
        unchecked = (parents & infos.keys()) - checked
    return snapshots


def _load(context: Context, infos: _Infos, names: Collection[str]) -> dict[str, Snapshot]:
    return load_snapshots(context, [infos[name] for name in sorted(names)])
