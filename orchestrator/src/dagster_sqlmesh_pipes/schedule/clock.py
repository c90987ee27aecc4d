"""What crons have released at one moment, by SQLMesh's rule of missing intervals."""

import datetime
from collections.abc import Collection, Mapping

from dagster_sqlmesh_pipes.manifest import Model
from dagster_sqlmesh_pipes.schedule.cron import interval_floor, last_tick, parse_cron
from dagster_sqlmesh_pipes.schedule.models import model_end

__all__ = ["ReleaseClock"]

_MINUTE = datetime.timedelta(minutes=1)
_NEVER = datetime.datetime.min.replace(tzinfo=datetime.UTC)


class ReleaseClock:
    """The models' releases and restatements up to one moment.

    Each cron is evaluated once: a thousand models have a handful of crons.

    Args:
        at: the moment.
        restatements: the result of `restatement_crons`.
        removed_at: when intervals were removed from SQLMesh's state, by FQN.
        ignore_cron: release every interval that is over, whatever the crons.
    """

    def __init__(
        self,
        at: datetime.datetime,
        restatements: Mapping[str, Collection[str]],
        *,
        removed_at: Mapping[str, datetime.datetime] | None = None,
        ignore_cron: bool,
    ) -> None:
        self._at = at
        self._restatements = restatements
        self._removed_at = removed_at or {}
        self._ignore_cron = ignore_cron
        self._ticks: dict[tuple[str, str | None, datetime.datetime], datetime.datetime] = {}

    def is_unchanged_since(self, model: Model, moment: datetime.datetime) -> bool:
        """Return whether nothing of the model has been released or restated since then."""
        end = model_end(model)
        has_ended = end is not None and self._release_at(model, moment) >= end
        is_released = has_ended or moment >= self.last_release(model)
        return is_released and moment >= self.last_restatement(model)

    def last_release(self, model: Model) -> datetime.datetime:
        """Return the last moment at which intervals of the model may have been released."""
        return self._release_at(model, self._at)

    def last_restatement(self, model: Model) -> datetime.datetime:
        """Return the last moment at which SQLMesh or a plan removed intervals of the model."""
        crons = self._restatements.get(model.fqn, ())
        by_cron = max((self._tick_at(cron, None, self._at) for cron in crons), default=_NEVER)
        return max(by_cron, self._removed_at.get(model.fqn, _NEVER))

    def released_until(self, model: Model) -> datetime.datetime:
        """Return the end of the released intervals, as SQLMesh's `Snapshot.missing_intervals`.

        These are whole interval units up to the cron's last tick, or up to the moment itself when
        crons are ignored; none after the model's end.
        """
        return _released_until(model, self.last_release(model))

    def is_releasing_now(self, model: Model) -> bool:
        """Return whether the cron ticks at this very moment, and releases more than before."""
        if self._ignore_cron or self.last_release(model) != self._at:
            return False
        before = self._release_at(model, self._at - _MINUTE)
        return _released_until(model, before) < self.released_until(model)

    def _release_at(self, model: Model, at: datetime.datetime) -> datetime.datetime:
        if self._ignore_cron:
            return _floor_to_unit(model, at)
        return self._tick_at(model.cron, model.cron_tz, at)

    def _tick_at(self, cron: str, zone: str | None, at: datetime.datetime) -> datetime.datetime:
        key = (cron, zone, at)
        if key not in self._ticks:
            self._ticks[key] = last_tick(parse_cron(cron), zone, at)
        return self._ticks[key]


def _released_until(model: Model, release: datetime.datetime) -> datetime.datetime:
    end, floor = model_end(model), _floor_to_unit(model, release)
    return floor if end is None else min(floor, end)


def _floor_to_unit(model: Model, moment: datetime.datetime) -> datetime.datetime:
    if model.interval_unit is None or model.allow_partials:
        return moment
    return interval_floor(model.interval_unit, moment)
