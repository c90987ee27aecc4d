"""Which models are due: what has been released since Dagster last saw them materialized.

SQLMesh alone decides which intervals a model lacks; this decides which models a run should select.
What SQLMesh finds changes only when a model's cron ticks, or when a restatement removes intervals:
between those, one run is enough.
"""

import datetime
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Literal

from dagster_sqlmesh_pipes.manifest import Model
from dagster_sqlmesh_pipes.schedule.clock import ReleaseClock

__all__ = ["DueModel", "LastMaterialization", "UpToDateSince", "find_due"]

UpToDateSince = MutableMapping[str, datetime.datetime]
"""When models were known to be up to date, by FQN. It saves a look at each one's last event."""

_TIME = "%Y-%m-%d %H:%M"


@dataclass(frozen=True)
class LastMaterialization:
    """A model's last materialization, as far as Dagster knows."""

    at: datetime.datetime
    """When it was recorded by SQLMesh's clock, or the run began that recorded it, if earlier."""
    interval_end: datetime.datetime | None
    """Where the intervals that it recorded end; None if the event does not have it."""
    is_complete: bool
    """False if earlier intervals may be missing: batches failed, or the run was given a start."""


@dataclass(frozen=True)
class DueModel:
    """A model that is due, and why."""

    model: Model
    reason: Literal["ticked", "never materialized", "incomplete", "behind", "restated"]
    detail: str
    """The reason in full, as a predicate after the model's name."""


def find_due(
    models: Iterable[Model],
    at: datetime.datetime,
    *,
    up_to_date_since: UpToDateSince,
    last_materializations: Callable[[Collection[str]], Mapping[str, LastMaterialization]],
    restatements: Mapping[str, Collection[str]],
    removed_at: Mapping[str, datetime.datetime] | None = None,
    is_punctual: bool = False,
    ignore_cron: bool = False,
) -> list[DueModel]:
    """Find the models that lack intervals at a moment, as far as Dagster can know.

    Args:
        models: the models to consider.
        at: the tick.
        up_to_date_since: what earlier ticks found; this tick's findings are added.
        last_materializations: looks them up by FQN, in one call; models that were never
            materialized are left out.
        restatements: the result of `restatement_crons`.
        removed_at: when intervals were removed from SQLMesh's state, by FQN, as far as the state
            sensor noticed it.
        is_punctual: whether nothing can have been materialized since the tick, so that a model
            whose cron ticks at `at` is due without a look at its events.
        ignore_cron: release every interval that is over, whatever the crons.
    """
    due: dict[str, DueModel] = {}
    unclear: dict[str, Model] = {}
    clock = ReleaseClock(at, restatements, removed_at=removed_at, ignore_cron=ignore_cron)
    for model in models:
        since = up_to_date_since.get(model.fqn)
        if since is not None and clock.is_unchanged_since(model, since):
            continue
        if is_punctual and clock.is_releasing_now(model):
            due[model.fqn] = DueModel(model, "ticked", f"is due now by its cron {model.cron}")
        else:
            unclear[model.fqn] = model
    last = last_materializations(unclear) if unclear else {}
    for fqn, model in unclear.items():
        found = _due_reason(model, last.get(fqn), clock)
        if found:
            due[fqn] = found
        else:
            up_to_date_since[fqn] = at
    return sorted(due.values(), key=lambda found: found.model.fqn)


def _due_reason(
    model: Model, last: LastMaterialization | None, clock: ReleaseClock
) -> DueModel | None:
    if last is None:
        return DueModel(model, "never materialized", "has never been materialized in Dagster")
    if not last.is_complete:
        detail = f"was materialized only in part at {last.at:{_TIME}}"
        return DueModel(model, "incomplete", detail)
    restated = clock.last_restatement(model)
    if last.at < restated:
        detail = f"was materialized at {last.at:{_TIME}}, and restated at {restated:{_TIME}}"
        return DueModel(model, "restated", detail)
    return _behind(model, last, clock)


def _behind(model: Model, last: LastMaterialization, clock: ReleaseClock) -> DueModel | None:
    # The intervals' end counts, not the event's time: a run that began before the tick may have
    # ended after it.
    if last.interval_end is None or model.interval_unit is None:
        recorded, released = last.at, clock.last_release(model)
    else:
        recorded, released = last.interval_end, clock.released_until(model)
    if recorded >= released:
        return None
    detail = (
        f"is materialized up to {recorded:{_TIME}}, and its cron {model.cron} has released "
        f"intervals up to {released:{_TIME}}"
    )
    return DueModel(model, "behind", detail)
