"""Crons as sets of minutes and days: which ones a schedule needs, and when one has ticked last.

A cron ticks at some minutes of some days. Both are sets, kept as the bits of an integer, so whether
all ticks of one cron are also ticks of others is decided exactly.
"""

import bisect
import datetime
import functools
import itertools
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from croniter import CroniterError, croniter

from dagster_sqlmesh_pipes.errors import ConfigurationError
from dagster_sqlmesh_pipes.schedule.days import (
    EVERY_DAY,
    Values,
    cycle_of_days,
    day_bit,
    days_matching,
    union,
    weekdays,
)
from dagster_sqlmesh_pipes.schedule.zones import DAY_MINUTES, EPOCH, time_zone

__all__ = [
    "Cron",
    "interval_floor",
    "last_tick",
    "longest_gap",
    "minimal_crons",
    "next_wall_tick",
    "parse_cron",
]

_FIELDS = 5
_MINUTE, _DAY = datetime.timedelta(minutes=1), datetime.timedelta(days=1)
_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


@dataclass(frozen=True)
class Cron:
    """A cron as two sets of bits: it ticks at the `minutes` of the `days`, in any time zone."""

    text: str
    """Five fields; aliases are written out."""
    minutes: int
    days: int

    @property
    def ticks_every_day(self) -> bool:
        """Whether no day is left out."""
        return self.days == EVERY_DAY

    @property
    def weekdays(self) -> list[int] | None:
        """The days of the week (Sunday is 0) on which it ticks.

        None if its days are not whole weekdays, but days of the month, for example.
        """
        return weekdays(self.days)

    @property
    def ticks_per_cycle(self) -> int:
        """How often it ticks in fourteen years, one of each kind."""
        return self.minutes.bit_count() * self.days.bit_count()


@functools.cache
def parse_cron(expression: str) -> Cron:
    """Parse a cron in any form that SQLMesh accepts.

    Raises:
        ConfigurationError: it is not a cron, has more than five fields, or never ticks.
    """
    text = _ALIASES.get(expression.strip().lower()) or " ".join(expression.split())
    try:
        fields, nth = croniter.expand(text)[:2]
    except (CroniterError, ValueError, KeyError) as exc:
        msg = (
            f"{expression!r} is not a valid cron ({exc}). "
            "SQLMesh takes five fields or an alias such as @daily."
        )
        raise ConfigurationError(msg) from exc
    if len(fields) != _FIELDS:
        msg = (
            f"The cron {expression!r} has {len(fields)} fields. "
            "SQLMesh takes five, from minutes to days of the week."
        )
        raise ConfigurationError(msg)
    minutes, hours, month_days, months, on_weekdays = (Values(field) for field in fields)
    if "w" in text.split()[2].lower():
        # 15W, the weekday nearest to the 15th, is alone in its field; croniter returns 15.
        month_days = Values(f"{day}w" for day in month_days)
    days = days_matching(month_days, months, on_weekdays, nth)
    if not days:
        msg = f"The cron {expression!r} never ticks."
        raise ConfigurationError(msg)
    times = itertools.product(_numbers(hours, 24), _numbers(minutes, 60))
    return Cron(text, sum(1 << (hour * 60 + minute) for hour, minute in times), days)


def minimal_crons(expressions: Iterable[str]) -> tuple[str, ...]:
    """Return the fewest of these crons that together have the same ticks, sorted.

    Of two with the same ticks in common, the rarer one is left out: `*/5 * * * *` stays, and
    `0 0 * * *` is covered by it. The order of the input does not matter.
    """
    parsed = sorted(map(parse_cron, expressions), key=lambda cron: cron.text, reverse=True)
    distinct = {(cron.minutes, cron.days): cron for cron in parsed}
    rarest_first = sorted(distinct.values(), key=lambda cron: (cron.ticks_per_cycle, cron.text))
    at_minute: dict[int, list[Cron]] = {}
    for cron in rarest_first:
        for minute in _bits(cron.minutes):
            at_minute.setdefault(minute, []).append(cron)
    kept = []
    for cron in rarest_first:
        if _is_covered(cron, at_minute):
            for minute in _bits(cron.minutes):
                at_minute[minute].remove(cron)
        else:
            kept.append(cron.text)
    return tuple(sorted(kept))


def _is_covered(cron: Cron, at_minute: dict[int, list[Cron]]) -> bool:
    for minute in _bits(cron.minutes):
        others = union(other.days for other in at_minute[minute] if other is not cron)
        if cron.days & ~others:
            return False
    return True


def last_tick(cron: Cron, zone: str | None, at: datetime.datetime) -> datetime.datetime:
    """Return a cron's last tick in a time zone, the moment itself included.

    Where clocks change it ticks as croniter and hence SQLMesh does: twice in an hour that is
    repeated, and at the end of the jump for a time that is skipped.
    """
    moment = (at - EPOCH) // _MINUTE
    known = time_zone(zone)
    place = bisect.bisect_right(known.changes, moment, key=lambda change: change.moment)
    for change in reversed(known.changes[:place]):
        wall = _last_wall_tick(cron, moment + change.after)
        if wall >= change.moment + change.after:
            return EPOCH + (wall - change.after) * _MINUTE
        if wall >= change.moment + change.before:
            return EPOCH + change.moment * _MINUTE
        moment = change.moment - 1
    offset = known.changes[0].before if known.changes else min(known.offsets)
    return EPOCH + (_last_wall_tick(cron, moment + offset) - offset) * _MINUTE


def next_wall_tick(crons: Collection[Cron], after: datetime.datetime) -> datetime.datetime:
    """Return the first tick of any of the crons after a time on the wall clock.

    Both times are without a time zone.
    """
    day, passed = after.date(), (2 << after.hour * 60 + after.minute) - 1
    while True:
        today = (cron.minutes for cron in crons if cron.days >> day_bit(day) & 1)
        minutes = union(today) & ~passed
        if minutes:
            first = (minutes & -minutes).bit_length() - 1
            return datetime.datetime.combine(day, datetime.time(*divmod(first, 60)))
        day, passed = day + _DAY, 0


def interval_floor(interval_unit: str, at: datetime.datetime) -> datetime.datetime:
    """Return the start of the interval that a moment is in. Intervals are in UTC.

    `interval_unit` is a value of SQLMesh's `IntervalUnit`.
    """
    at = at.astimezone(datetime.UTC).replace(second=0, microsecond=0)
    minutes = {"five_minute": 5, "quarter_hour": 15, "half_hour": 30}.get(interval_unit)
    if minutes:
        return at.replace(minute=at.minute - at.minute % minutes)
    match interval_unit:
        case "hour":
            return at.replace(minute=0)
        case "day":
            return at.replace(minute=0, hour=0)
        case "month":
            return at.replace(minute=0, hour=0, day=1)
        case "year":
            return at.replace(minute=0, hour=0, day=1, month=1)
    msg = f"Unknown interval unit {interval_unit!r} in the manifest. Upgrade dagster-sqlmesh-pipes."
    raise ConfigurationError(msg)


@functools.cache
def longest_gap(expression: str) -> datetime.timedelta:
    """Return the longest time between two ticks, on the wall clock, over a cycle of years."""
    cron = parse_cron(expression)
    minutes = _bits(cron.minutes)
    cycle = cycle_of_days()
    days = [number for number, bit in enumerate(cycle) if cron.days >> bit & 1]
    days.append(days[0] + len(cycle))  # the cycle's end meets its start
    on_one_day = max((late - early for early, late in itertools.pairwise(minutes)), default=0)
    most_days = max(late - early for early, late in itertools.pairwise(days))
    between_days = most_days * DAY_MINUTES - (minutes[-1] - minutes[0])
    return datetime.timedelta(minutes=max(on_one_day, between_days))


def _numbers(values: Values, count: int) -> Iterable[int]:
    return range(count) if "*" in values else {int(value) for value in values}


def _bits(bits: int) -> list[int]:
    return [bit for bit in range(bits.bit_length()) if bits >> bit & 1]


def _last_wall_tick(cron: Cron, wall: int) -> int:
    """Return the last tick up to a time on the wall clock, both in minutes since its epoch."""
    today, minute = divmod(wall, DAY_MINUTES)
    minutes = cron.minutes & (2 << minute) - 1
    while not (minutes and cron.days >> day_bit(EPOCH.date() + today * _DAY) & 1):
        today, minutes = today - 1, cron.minutes
    return today * DAY_MINUTES + minutes.bit_length() - 1
