"""The tags of a run that a tick requests: readable in the UI, and short with a thousand models."""

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence

from dagster_sqlmesh_pipes.contract import (
    CRONS_TAG,
    DUE_TAG,
    GRANULARITY_TAG,
    NEXT_TICK_TAG,
    TICK_TAG,
)
from dagster_sqlmesh_pipes.manifest import Model
from dagster_sqlmesh_pipes.schedule.due import DueModel

__all__ = ["abbreviated", "tick_tags"]

_MAX_NAMES = 5
_INTERVAL_UNITS = ["five_minute", "quarter_hour", "half_hour", "hour", "day", "month", "year"]


def tick_tags(
    models: Sequence[Model],
    due: Sequence[DueModel] | None,
    *,
    at: datetime.datetime,
    next_tick: datetime.datetime,
) -> Mapping[str, str]:
    """Return the tags of a run of the models that are due, or of all `models` if `due` is None."""
    selected = models if due is None else [found.model for found in due]
    return {
        TICK_TAG: at.isoformat(),
        NEXT_TICK_TAG: next_tick.isoformat(),
        GRANULARITY_TAG: _granularity(selected),
        CRONS_TAG: abbreviated(sorted({model.cron for model in selected})),
        DUE_TAG: "everything" if due is None else _summary(due, len(models)),
    }


def abbreviated(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - _MAX_NAMES
    return ", ".join(names[:_MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def _summary(due: Sequence[DueModel], of: int) -> str:
    counts = Counter(found.reason for found in due).most_common()
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts)
    names = abbreviated([found.model.name for found in due])
    return f"{len(due)} of {of} models: {names} ({reasons})"


def _granularity(models: Sequence[Model]) -> str:
    units = {model.interval_unit for model in models}
    return next((unit for unit in _INTERVAL_UNITS if unit in units), "unknown")
