"""Cron algebra: which crons are worth a tick of their own, and the time that a cron has released.

A cron ticks on some days, at some minutes of them. Both are sets, kept as the bits of an integer: 1,440 minutes, and the
days of fourteen years, which are all the years there are (common or leap, starting on any weekday). So whether one cron's
ticks are all among another's is decided exactly, and for ever.
"""

import calendar
import copy
import datetime
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from croniter import CroniterError, croniter

from dagster_sqlmesh_pipes.errors import ConfigurationError

__all__ = ["DAY_MINUTES", "Cron", "cron_floor", "interval_floor", "irredundant", "longest_gap", "next_tick", "parse_cron"]

DAY_MINUTES = 24 * 60

_FIELDS = 5
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
    """A cron as two sets of bits: it ticks at the `minutes` of the `days`, in whatever time zone it is read."""

    text: str
    """Five fields; aliases are written out."""
    minutes: int
    days: int

    @property
    def ticks_every_day(self) -> bool:
        """Tell whether no day is left out."""
        return self.days == _EVERY_DAY

    @property
    def weekdays(self) -> list[int] | None:
        """Give the days of the week (Sunday is 0) if they say when it ticks; None if it takes more, such as days of the month."""
        found = [weekday for weekday, days in enumerate(_WEEKDAYS) if days & self.days]
        return found if sum(_WEEKDAYS[weekday] for weekday in found) == self.days else None

    def covers(self, other: "Cron") -> bool:
        """Tell whether every tick of `other` is one of this cron's."""
        return not (other.minutes & ~self.minutes) and not (other.days & ~self.days)


_Values = frozenset[Any]
"""What a field of a cron lists: numbers, `*` or `l`."""

_NONE: _Values = frozenset()


@dataclass(frozen=True)
class _Day:
    month: int
    day: int
    weekday: int
    """Cron's: Sunday is 0."""
    days_in_month: int

    @property
    def occurrence(self) -> int:
        """Which of its weekday in its month it is, from 1."""
        return (self.day - 1) // 7 + 1

    @property
    def is_last_of_weekday(self) -> bool:
        return self.day + 7 > self.days_in_month


@functools.cache
def parse_cron(expression: str) -> Cron:
    """Read a cron in any form that SQLMesh accepts.

    Raises:
        ConfigurationError: it is no cron, or has more than five fields.
    """
    text = _ALIASES.get(expression.strip().lower()) or " ".join(expression.split())
    try:
        fields, nth = croniter.expand(text)[:2]
    except (CroniterError, ValueError, KeyError) as exc:
        msg = f"{expression!r} is no cron ({exc}). SQLMesh takes five fields or an alias such as @daily."
        raise ConfigurationError(msg) from exc
    if len(fields) != _FIELDS:
        msg = f"The cron {expression!r} has {len(fields)} fields; SQLMesh takes five, from minutes to days of the week."
        raise ConfigurationError(msg)
    minutes, hours, month_days, months, weekdays = (_Values(field) for field in fields)
    nth_values = {weekday: _Values(values) for weekday, values in nth.items()}
    return Cron(
        text=text,
        minutes=sum(1 << (h * 60 + m) for h in _all(hours, 24) for m in _all(minutes, 60)),
        days=sum(1 << bit for bit, day in enumerate(_calendar()) if _ticks_on(day, month_days, months, weekdays, nth_values)),
    )


def irredundant(expressions: Iterable[str]) -> tuple[str, ...]:
    """Leave out every cron all of whose ticks are ticks of the others. What is left has the same ticks, and none can go.

    The rarer a cron, the sooner it goes: of `0 0 * * *` and `*/5 * * * *` the second stays. Sorted, so that the order of the
    models does not matter.
    """
    crons = {(cron.minutes, cron.days): cron for cron in sorted(map(parse_cron, expressions), key=lambda cron: cron.text, reverse=True)}
    kept = sorted(crons.values(), key=lambda cron: (cron.minutes.bit_count() * cron.days.bit_count(), cron.text))
    for cron in tuple(kept):
        others = [other for other in kept if other is not cron]
        if any(other.covers(cron) for other in others) or _union_covers(others, cron):
            kept = others
    return tuple(sorted(cron.text for cron in kept))


def next_tick(expression: str, timezone: str | None, after: datetime.datetime) -> datetime.datetime:
    """Give a cron's first tick later than `after`, as croniter and hence SQLMesh finds it, in UTC."""
    return _shift(expression, _in_zone(after, timezone), "get_next").astimezone(datetime.UTC)


def cron_floor(expression: str, timezone: str | None, at: datetime.datetime) -> datetime.datetime:
    """Give the time up to which a cron has released data at a moment: usually its last tick, that moment included.

    This is SQLMesh's `CronMixin.cron_floor`, with what it does where clocks change: one step back from the next tick, and the
    step is taken on the wall clock where the cron's ticks are evenly spaced.
    """
    following = _shift(expression, _in_zone(at, timezone), "get_next")
    step = _even_step(expression)
    floor = following - step if step else _shift(expression, following, "get_prev")
    return floor.astimezone(datetime.UTC)


def interval_floor(interval_unit: str, at: datetime.datetime) -> datetime.datetime:
    """Give the start of the `interval_unit` (SQLMesh's `IntervalUnit`) that a moment is in. Intervals are cut in UTC."""
    at = at.astimezone(datetime.UTC).replace(second=0, microsecond=0)
    minutes = {"five_minute": 5, "quarter_hour": 15, "half_hour": 30}.get(interval_unit)
    if minutes:
        return at.replace(minute=at.minute - at.minute % minutes)
    cleared = {"hour": 1, "day": 2, "month": 3, "year": 4}.get(interval_unit)
    if cleared is None:
        msg = f"Unknown interval unit {interval_unit!r} in the manifest. Upgrade dagster-sqlmesh-pipes."
        raise ConfigurationError(msg)
    starts = {"minute": 0, "hour": 0, "day": 1, "month": 1}
    return at.replace(**dict(list(starts.items())[:cleared]))  # type: ignore[arg-type]  # mypy sees dict[str, int] as tzinfo too


@functools.cache
def longest_gap(expression: str) -> datetime.timedelta:
    """Give the longest time between two ticks of a cron, in wall clock time, over a cycle of the calendar.

    Raises:
        ConfigurationError: it never ticks.
    """
    cron = parse_cron(expression)
    ticks = [minute for minute in range(DAY_MINUTES) if cron.minutes >> minute & 1]
    days = [number for number, day in enumerate(_years()) if cron.days >> day & 1]
    if not days or not ticks:
        msg = f"The cron {expression!r} never ticks."
        raise ConfigurationError(msg)
    days.append(days[0] + len(_years()))  # the cycle's end meets its start
    within = max((later - earlier for earlier, later in itertools.pairwise(ticks)), default=0)
    between = max(later - earlier for earlier, later in itertools.pairwise(days)) * DAY_MINUTES - (ticks[-1] - ticks[0])
    return datetime.timedelta(minutes=max(within, between))


_CYCLE = range(2000, 2028)
"""After 28 years the calendar repeats itself, until a century's year is no leap year."""


def _kind(year: int) -> tuple[bool, int]:
    return calendar.isleap(year), calendar.weekday(year, 1, 1)


@functools.cache
def _calendar() -> tuple[_Day, ...]:
    """Give the days of one year of each kind. A day's place is its bit in `Cron.days`."""
    return tuple(
        _Day(month, day, (calendar.weekday(year, month, day) + 1) % 7, length)
        for year in sorted({_kind(year): year for year in _CYCLE}.values())
        for month in range(1, 13)
        for length in (calendar.monthrange(year, month)[1],)
        for day in range(1, length + 1)
    )


def _all(values: _Values, count: int) -> Iterable[int]:
    return range(count) if "*" in values else {int(value) for value in values}


def _ticks_on(day: _Day, month_days: _Values, months: _Values, weekdays: _Values, nth: Mapping[Any, _Values]) -> bool:
    """Decide as croniter does: days of the month and of the week add up where both are given, but `mon#1` stands alone."""
    if "*" not in months and day.month not in months:
        return False
    on_month_day = "*" in month_days or day.day in month_days or ("l" in month_days and day.day == day.days_in_month)
    if nth:
        wanted = nth.get(day.weekday, _NONE) | nth.get("*", _NONE)
        on_weekday = day.occurrence in wanted or ("l" in wanted and day.is_last_of_weekday)
        return on_weekday and (on_month_day or "*" not in weekdays)
    if "*" in month_days or "*" in weekdays:
        return on_month_day and ("*" in weekdays or day.weekday in weekdays)
    return on_month_day or day.weekday in weekdays


def _union_covers(others: Sequence[Cron], cron: Cron) -> bool:
    """Tell whether every tick of `cron` is one of some other's, by the days on which the same ones of the others tick."""
    return all(not cron.minutes & ~minutes for minutes in _covered_minutes(others, cron.days, 0))


def _covered_minutes(others: Sequence[Cron], days: int, minutes: int) -> Iterator[int]:
    if not days:
        return
    if not others:
        yield minutes
        return
    first, rest = others[0], others[1:]
    yield from _covered_minutes(rest, days & first.days, minutes | first.minutes)
    yield from _covered_minutes(rest, days & ~first.days, minutes)


def _in_zone(at: datetime.datetime, timezone: str | None) -> datetime.datetime:
    return at.astimezone(ZoneInfo(timezone) if timezone else datetime.UTC)


def _shift(expression: str, at: datetime.datetime, method: str) -> datetime.datetime:
    position = copy.copy(_parsed(expression))  # threads must not share a position
    position.set_current(at)
    moved: float = getattr(position, method)(float)
    return datetime.datetime.fromtimestamp(moved, at.tzinfo)


@functools.cache
def _parsed(expression: str) -> croniter:
    """Parse a cron once: that is half of what finding a tick costs."""
    return croniter(expression)


@functools.cache
def _even_step(expression: str) -> datetime.timedelta | None:
    """Give the time between a cron's ticks, if it is always the same: minutes and hours that divide the day, or one time a week.

    SQLMesh's `interval_seconds` guesses it from the next six ticks, so `0 8-20 * * *` looks hourly to it in the morning. Not here.
    """
    cron = parse_cron(expression)
    ticks = [minute for minute in range(DAY_MINUTES) if cron.minutes >> minute & 1]
    if cron.ticks_every_day:
        step = DAY_MINUTES // len(ticks)
        return datetime.timedelta(minutes=step) if ticks == list(range(ticks[0], DAY_MINUTES, step)) else None
    return datetime.timedelta(weeks=1) if len(ticks) == 1 and cron.days in _WEEKDAYS else None


_EVERY_DAY = sum(1 << bit for bit, _ in enumerate(_calendar()))
_WEEKDAYS = tuple(sum(1 << bit for bit, day in enumerate(_calendar()) if day.weekday == weekday) for weekday in range(7))


@functools.cache
def _years() -> tuple[int, ...]:
    """Give the days of a cycle of years in a row, each as its bit in `Cron.days`."""
    first_bits, bit = {}, 0
    for year in sorted({_kind(year): year for year in _CYCLE}.values()):
        first_bits[_kind(year)] = bit
        bit += 365 + calendar.isleap(year)
    return tuple(first_bits[_kind(year)] + day for year in _CYCLE for day in range(365 + calendar.isleap(year)))
