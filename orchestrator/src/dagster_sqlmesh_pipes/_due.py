"""Which models are due: what their crons have released since Dagster last saw them materialized.

SQLMesh alone decides which intervals a model lacks; this decides which models are worth asking it for.
"""

import datetime
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Literal

from dagster_sqlmesh_pipes._cron import cron_floor, interval_floor
from dagster_sqlmesh_pipes.manifest import Model

__all__ = ["Due", "LastMaterialization", "Settled", "can_be_due", "find_due", "released_until", "settle"]

Settled = MutableMapping[str, datetime.datetime]
"""Up to when models are known to lack nothing, by FQN: a memory that saves asking for what has been answered."""


_TIME = "%Y-%m-%d %H:%M"


@dataclass(frozen=True)
class LastMaterialization:
    """What Dagster knows of a model's last materialization."""

    at: datetime.datetime
    interval_end: datetime.datetime | None
    """Where the intervals that it recorded end; None when the event doesn't say."""
    complete: bool
    """False when some of its batches failed."""


@dataclass(frozen=True)
class Due:
    """A model that is due, and why."""

    model: Model
    reason: Literal["ticked", "never materialized", "incomplete", "behind"]
    detail: str
    """The reason at length, to be read after the model's name."""


def can_be_due(model: Model) -> bool:
    """Tell whether a run ever has something to do for a model: not for EXTERNAL and EMBEDDED ones, nor for seeds, which plans load."""
    return model.materialized and model.enabled and model.kind.name != "SEED"


def released_until(model: Model, at: datetime.datetime, *, ignore_cron: bool = False) -> datetime.datetime:
    """Give the end of the intervals that SQLMesh would run at a moment: SQLMesh's `Snapshot.missing_intervals`.

    Whole interval units up to the cron's last tick, or up to the moment itself with `ignore_cron`; none after the model's end.
    """
    return _cut(model, at if ignore_cron else cron_floor(model.cron, model.cron_tz, at))


def find_due(
    models: Iterable[Model],
    at: datetime.datetime,
    *,
    settled: Settled,
    last_materializations: Callable[[Collection[str]], Mapping[str, LastMaterialization]],
    is_punctual: bool = False,
    ignore_cron: bool = False,
) -> list[Due]:
    """Find the models that lack intervals at a moment, as far as Dagster can know.

    Args:
        models: the models to look at.
        at: the tick.
        settled: what is known from before; what is found out is added.
        last_materializations: look them up by FQN, all at once. Models never materialized are left out.
        is_punctual: nothing can have been materialized since the tick, so that a cron that ticks at `at` makes its model due unseen.
        ignore_cron: count what is complete by now, whatever the crons.
    """
    due, unclear = {}, {}
    clock = _Clock(at, ignore_cron=ignore_cron)
    for model in models:
        until = clock.released_until(model)
        if model.fqn in settled and settled[model.fqn] >= until:
            continue
        if is_punctual and not ignore_cron and clock.ticked(model) == at:
            due[model.fqn] = Due(model, "ticked", f"is due now by its cron {model.cron}")
        else:
            unclear[model.fqn] = model
    known = last_materializations(unclear) if unclear else {}
    for fqn, model in unclear.items():
        found = _look_at(model, known.get(fqn), until=clock.released_until(model), ticked=clock.ticked(model))
        if found:
            due[fqn] = found
        else:
            settled[fqn] = clock.released_until(model)
    return sorted(due.values(), key=lambda found: found.model.fqn)


def settle(models: Iterable[Model], started: datetime.datetime, *, settled: Settled, ignore_cron: bool = False) -> None:
    """Remember that a run which started then was asked for these models and succeeded: they lack nothing that was released by then.

    This keeps models that were up to date before Dagster first saw them from being asked for at each tick. Models with signals
    are not settled: a signal that was not ready lets a run succeed without them.
    """
    clock = _Clock(started, ignore_cron=ignore_cron)
    for model in models:
        if not model.signals:
            until = clock.released_until(model)
            settled[model.fqn] = max(settled.get(model.fqn, until), until)


class _Clock:
    """What crons say at one moment, each asked once: a thousand models have a handful of crons."""

    def __init__(self, at: datetime.datetime, *, ignore_cron: bool) -> None:
        self._at = at
        self._ignore_cron = ignore_cron
        self._ticked: dict[tuple[str, str | None], datetime.datetime] = {}
        self._until: dict[tuple[object, ...], datetime.datetime] = {}

    def ticked(self, model: Model) -> datetime.datetime:
        key = (model.cron, model.cron_tz)
        if key not in self._ticked:
            self._ticked[key] = self._at if self._ignore_cron else cron_floor(model.cron, model.cron_tz, self._at)
        return self._ticked[key]

    def released_until(self, model: Model) -> datetime.datetime:
        key = (model.cron, model.cron_tz, model.interval_unit, model.end, model.allow_partials)
        if key not in self._until:
            self._until[key] = _cut(model, self.ticked(model))
        return self._until[key]


def _cut(model: Model, released: datetime.datetime) -> datetime.datetime:
    """Cut what a cron has released to whole intervals and to the model's end."""
    if model.interval_unit and not model.allow_partials:
        released = interval_floor(model.interval_unit, released)
    end = _end(model.end)
    return released if end is None else min(released, end)


def _look_at(model: Model, last: LastMaterialization | None, *, until: datetime.datetime, ticked: datetime.datetime) -> Due | None:
    if last is None:
        return Due(model, "never materialized", "has never been materialized in Dagster")
    if not last.complete:
        return Due(model, "incomplete", f"was materialized in part only at {last.at:{_TIME}}")
    # Where intervals end counts, not when the event came: a run that began before the tick may have ended after it.
    seen, needed = (last.at, ticked) if last.interval_end is None or model.interval_unit is None else (last.interval_end, until)
    if seen >= needed:
        return None
    return Due(model, "behind", f"is materialized up to {seen:{_TIME}}, and {needed:{_TIME}} has been released by its cron {model.cron}")


def _end(end: str | None) -> datetime.datetime | None:
    """Give a model's end, exclusive. None also for a phrase such as 'yesterday', which SQLMesh alone understands."""
    try:
        moment = datetime.datetime.fromisoformat(end) if end else None
    except ValueError:
        return None
    if end and moment and len(end) <= len("2026-01-31"):
        moment += datetime.timedelta(days=1)  # a date is meant to the end of its day
    return moment.replace(tzinfo=moment.tzinfo or datetime.UTC) if moment else None
