"""What a run is about: the environment as it is held by SQLMesh's state."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

__all__ = ["Environment", "next_due"]


@dataclass(frozen=True, kw_only=True)
class Environment:
    """An environment, what was asked of it, and how to look up what only an open project knows."""

    name: str
    plan_id: str
    snapshots: Mapping[str, Any]  # FQN -> Snapshot, everything the environment holds
    selected: frozenset[str] | None  # None: all
    unplanned: Collection[str] = ()  # what was asked for and is not held, so that it was left out
    audits: Mapping[str, frozenset[str] | None] = field(default_factory=dict)  # to run alone, by FQN; None: all of that model
    index: Any = None  # DeployabilityIndex: which snapshots have their own table in this environment
    physical_table: Callable[[Any], str | None] = lambda _snapshot: None
    count_rows: Callable[[Any], int | None] = lambda _snapshot: None
    path_of: Callable[[Any], str | None] = lambda _snapshot: None
    reload: Callable[[], "Environment | None"] = lambda: None
    """Read it again from state, because a plan may have changed it; None if it is gone."""
    audits_alone: bool = False

    def asks_for(self, name: str) -> bool:
        """Tell whether a snapshot was asked for."""
        return self.selected is None or name in self.selected

    def next_due(self) -> datetime | None:
        """Give when the first of the models that were asked for is due again."""
        times = [next_due(snapshot) for name, snapshot in self.snapshots.items() if self.asks_for(name)]
        return min((time for time in times if time is not None), default=None)

    def upstream(self, name: str, *, until: Callable[[str], bool]) -> Iterator[str]:
        """Give a model and what it reads, directly or not; beyond one for which `until` holds nothing is looked at."""
        seen, ahead = {name}, [name]
        while ahead:
            current = ahead.pop()
            yield current
            snapshot = self.snapshots.get(current)
            if snapshot is None or until(current):
                continue
            new = {parent.name for parent in snapshot.parents} - seen
            seen |= new
            ahead.extend(new)


def next_due(snapshot: Any) -> datetime | None:
    """Give the next tick of a model's cron that has an interval of it.

    None for what has no tick that matters (seeds, symbolic models, audits), and where the ticks are past the model's `end`.
    """
    from sqlmesh.utils.date import make_exclusive, to_datetime  # noqa: PLC0415 - this module is imported before SQLMesh may be

    if not snapshot.is_model or snapshot.is_symbolic or snapshot.is_seed:
        return None
    node, now = snapshot.node, datetime.now(tz=UTC)
    # Intervals up to the last tick are not due any more, or already.
    if node.end and node.interval_unit.cron_floor(node.cron_floor(now)) >= make_exclusive(node.end):
        return None
    if node.start and (start := to_datetime(node.start)) > now:
        now = start + timedelta(seconds=node.interval_unit.seconds - 1)  # a tick before the first interval is over has none
    due: datetime = node.cron_next(now)
    return due if due.tzinfo else due.replace(tzinfo=UTC)
