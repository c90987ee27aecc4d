"""Which models are due: what has been released since Dagster last saw them materialized.

SQLMesh alone decides which intervals a model lacks; this decides which models are worth asking it for. What SQLMesh finds changes only
when a model's cron ticks, or when a restatement takes intervals back: between those, asking once is enough.
"""

import datetime
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Literal

from dagster_sqlmesh_pipes._cron import interval_floor, last_tick, parse_cron
from dagster_sqlmesh_pipes.manifest import Model

__all__ = ["Due", "LastMaterialization", "Settled", "after_signals", "can_be_due", "end_of", "find_due", "restatement_crons"]

Settled = MutableMapping[str, datetime.datetime]
"""When models were known to lack nothing, by FQN: a memory that saves asking for what has been answered."""

_TIME = "%Y-%m-%d %H:%M"


@dataclass(frozen=True)
class LastMaterialization:
    """What Dagster knows of a model's last materialization."""

    at: datetime.datetime
    """When the run began that recorded it, or when it was recorded."""
    interval_end: datetime.datetime | None
    """Where the intervals that it recorded end; None when the event doesn't say."""
    complete: bool
    """False when intervals before that may be missing: some of its batches failed, or the run was asked for a part."""


@dataclass(frozen=True)
class Due:
    """A model that is due, and why."""

    model: Model
    reason: Literal["ticked", "never materialized", "incomplete", "behind", "restated"]
    detail: str
    """The reason at length, to be read after the model's name."""


def can_be_due(model: Model) -> bool:
    """Tell whether a run ever has something to do for a model: not for EXTERNAL and EMBEDDED ones, nor for seeds, which plans load."""
    return model.materialized and model.enabled and model.kind.name != "SEED"


def end_of(model: Model) -> datetime.datetime | None:
    """Give a model's end, exclusive. None also for a phrase such as 'yesterday', which SQLMesh alone understands."""
    try:
        moment = datetime.datetime.fromisoformat(model.end) if model.end else None
    except ValueError:
        return None
    if model.end and moment and len(model.end) <= len("2026-01-31"):
        moment += datetime.timedelta(days=1)  # a date is meant to the end of its day
    return moment.replace(tzinfo=moment.tzinfo or datetime.UTC) if moment else None


def after_signals(models: Mapping[str, Model]) -> frozenset[str]:
    """Give the models that a signal may hold back: those that have one, and all that is downstream of them.

    A run succeeds without them, so that its success tells nothing of them.
    """
    return frozenset(_inherited(models, lambda model: model.signals))


def restatement_crons(models: Mapping[str, Model]) -> Mapping[str, Collection[str]]:
    """Give, by FQN, the crons (in UTC) at which intervals of a model are taken back: its own `auto_restatement_cron`, and those upstream.

    As `sqlmesh.core.snapshot.definition.apply_auto_restatements`: a model with `disable_restatement` keeps its intervals, and so does
    what is downstream of it.
    """

    def own(model: Model) -> Collection[str]:
        cron = getattr(model.kind, "auto_restatement_cron", None)
        return [cron] if cron else ()

    return _inherited(models, own, stops_at=lambda model: bool(getattr(model.kind, "disable_restatement", False)))


def find_due(
    models: Iterable[Model],
    at: datetime.datetime,
    *,
    settled: Settled,
    last_materializations: Callable[[Collection[str]], Mapping[str, LastMaterialization]],
    restatements: Mapping[str, Collection[str]],
    is_punctual: bool = False,
    ignore_cron: bool = False,
) -> list[Due]:
    """Find the models that lack intervals at a moment, as far as Dagster can know.

    Args:
        models: the models to look at.
        at: the tick.
        settled: what is known from before; what is found out is added.
        last_materializations: look them up by FQN, all at once. Models never materialized are left out.
        restatements: what `restatement_crons` gives.
        is_punctual: nothing can have been materialized since the tick, so that a cron that ticks at `at` makes its model due unseen.
        ignore_cron: count what is complete by now, whatever the crons.
    """
    due: dict[str, Due] = {}
    unclear: dict[str, Model] = {}
    clock = _Clock(at, restatements, ignore_cron=ignore_cron)
    for model in models:
        if model.fqn in settled and clock.has_been_quiet_since(model, settled[model.fqn]):
            continue
        if is_punctual and clock.releases_now(model):
            due[model.fqn] = Due(model, "ticked", f"is due now by its cron {model.cron}")
        else:
            unclear[model.fqn] = model
    known = last_materializations(unclear) if unclear else {}
    for fqn, model in unclear.items():
        found = _look_at(model, known.get(fqn), clock)
        if found:
            due[fqn] = found
        else:
            settled[fqn] = at
    return sorted(due.values(), key=lambda found: found.model.fqn)


class _Clock:
    """What crons say at one moment, each asked once: a thousand models have a handful of crons."""

    def __init__(self, at: datetime.datetime, restatements: Mapping[str, Collection[str]], *, ignore_cron: bool) -> None:
        self._at = at
        self._restatements = restatements
        self._ignore_cron = ignore_cron
        self._ticks: dict[tuple[str, str | None, datetime.datetime], datetime.datetime] = {}

    def has_been_quiet_since(self, model: Model, moment: datetime.datetime) -> bool:
        """Tell whether nothing of the model was released or taken back since then."""
        end = end_of(model)
        nothing_released = moment >= self.ticked(model) or (end is not None and self._tick_of(model, moment) >= end)
        return nothing_released and moment >= self.restated(model)

    def ticked(self, model: Model) -> datetime.datetime:
        """Give the last moment at which anything of the model may have been released."""
        return self._tick_of(model, self._at)

    def restated(self, model: Model) -> datetime.datetime:
        """Give the last moment at which the model's intervals were taken back."""
        ticks = (self._tick(cron, None, self._at) for cron in self._restatements.get(model.fqn, ()))
        return max(ticks, default=datetime.datetime.min.replace(tzinfo=datetime.UTC))

    def released_until(self, model: Model) -> datetime.datetime:
        """Give the end of the intervals that SQLMesh would run: SQLMesh's `Snapshot.missing_intervals`.

        Whole interval units up to the cron's last tick, or up to the moment itself when crons are ignored; none after the model's end.
        """
        return _until(model, self.ticked(model))

    def releases_now(self, model: Model) -> bool:
        """Tell whether the cron ticks at this very moment, and has released more than by its tick before."""
        if self._ignore_cron or self.ticked(model) != self._at:
            return False
        before = self._tick_of(model, self._at - datetime.timedelta(minutes=1))
        return _until(model, before) < self.released_until(model)

    def _tick_of(self, model: Model, at: datetime.datetime) -> datetime.datetime:
        return _whole(model, at) if self._ignore_cron else self._tick(model.cron, model.cron_tz, at)

    def _tick(self, cron: str, zone: str | None, at: datetime.datetime) -> datetime.datetime:
        key = (cron, zone, at)
        if key not in self._ticks:
            self._ticks[key] = last_tick(parse_cron(cron), zone, at)
        return self._ticks[key]


def _until(model: Model, released: datetime.datetime) -> datetime.datetime:
    end = end_of(model)
    return _whole(model, released) if end is None else min(_whole(model, released), end)


def _whole(model: Model, moment: datetime.datetime) -> datetime.datetime:
    return interval_floor(model.interval_unit, moment) if model.interval_unit and not model.allow_partials else moment


def _look_at(model: Model, last: LastMaterialization | None, clock: _Clock) -> Due | None:
    if last is None:
        return Due(model, "never materialized", "has never been materialized in Dagster")
    if not last.complete:
        return Due(model, "incomplete", f"was materialized in part only at {last.at:{_TIME}}")
    restated = clock.restated(model)
    if last.at < restated:
        return Due(model, "restated", f"was materialized at {last.at:{_TIME}}, and restated at {restated:{_TIME}}")
    # Where intervals end counts, not when the event came: a run that began before the tick may have ended after it.
    if last.interval_end is None or model.interval_unit is None:
        seen, needed = last.at, clock.ticked(model)
    else:
        seen, needed = last.interval_end, clock.released_until(model)
    if seen >= needed:
        return None
    return Due(model, "behind", f"is materialized up to {seen:{_TIME}}, and {needed:{_TIME}} has been released by its cron {model.cron}")


def _inherited(
    models: Mapping[str, Model], own: Callable[[Model], Collection[str]], *, stops_at: Callable[[Model], bool] = lambda _model: False
) -> Mapping[str, Collection[str]]:
    """Give, by FQN, what models have of their own and from all that is upstream of them; those that have nothing are left out."""
    downstream: dict[str, list[Model]] = {}
    for model in models.values():
        for upstream in model.depends_on:
            downstream.setdefault(upstream, []).append(model)
    found: dict[str, set[str]] = {}
    for source in models.values():
        values = set(own(source))
        reached = [source] if values else []
        for model in reached:  # it grows
            if not stops_at(model) and not values <= found.get(model.fqn, set()):
                found.setdefault(model.fqn, set()).update(values)
                reached += downstream.get(model.fqn, ())
    return found
