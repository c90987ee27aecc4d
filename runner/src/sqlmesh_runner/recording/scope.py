"""The scope of a run: the environment as SQLMesh's state holds it, and what was selected of it."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from graphlib import TopologicalSorter
from typing import Any

from sqlmesh_runner.recording.recorded import RecordedModel

__all__ = ["RunScope", "in_topological_order"]


@dataclass(frozen=True, kw_only=True)
class RunScope:
    """An environment, the selection, and lookups that need the open project."""

    name: str
    plan_id: str
    snapshots: Mapping[str, Any]  # FQN -> Snapshot, everything that the environment holds
    selected: frozenset[str] | None  # FQNs; None: all
    unplanned: Collection[str] = ()  # selected names that the environment does not hold
    audits: Mapping[str, frozenset[str] | None] = field(default_factory=dict)
    """For `audit`: audit ids by FQN; None: all audits of that model."""
    deployability_index: Any = None  # which snapshots have their own table in this environment
    physical_table: Callable[[Any], str | None] = lambda _snapshot: None
    count_rows: Callable[[Any], int | None] = lambda _snapshot: None
    path_of: Callable[[Any], str | None] = lambda _snapshot: None
    next_due_of: Callable[[Any], datetime | None] = lambda _snapshot: None
    reload: Callable[[], "RunScope | None"] = lambda: None
    """Read the environment again after a plan changed it; None if it is gone."""
    recorded_of: Callable[[Collection[Any]], Mapping[str, RecordedModel]] = lambda _snapshots: {}
    """Read from state what is recorded of snapshots, by FQN."""
    adopt: bool = False
    """Report what is recorded of the models that the run leaves alone."""
    audit_only: bool = False

    def is_selected(self, name: str) -> bool:
        """Return whether a snapshot was selected."""
        return self.selected is None or name in self.selected

    def next_due(self) -> datetime | None:
        """Return when the first of the selected models is due again."""
        selected = [snapshot for name, snapshot in self.snapshots.items() if self.is_selected(name)]
        times = [self.next_due_of(snapshot) for snapshot in selected]
        return min((time for time in times if time is not None), default=None)

    def upstream(self, name: str, *, until: Callable[[str], bool]) -> Iterator[str]:
        """Yield a model and what it reads, directly or not, but nothing beyond an `until` model."""
        seen, remaining = {name}, [name]
        while remaining:
            current = remaining.pop()
            yield current
            snapshot = self.snapshots.get(current)
            if snapshot is None or until(current):
                continue
            new = {parent.name for parent in snapshot.parents} - seen
            seen |= new
            remaining.extend(new)


def in_topological_order(snapshots: Collection[Any]) -> list[Any]:
    """Return snapshots so that each comes after what it reads, otherwise by name."""
    by_name = {snapshot.name: snapshot for snapshot in snapshots}
    graph = {
        name: sorted(parent.name for parent in by_name[name].parents if parent.name in by_name)
        for name in sorted(by_name)
    }
    return [by_name[name] for name in TopologicalSorter(graph).static_order()]
