"""Cron algebra: which crons are worth a tick of their own, and the time that a cron has released.

A cron ticks on some days, at some minutes of them. Both are sets, kept as the bits of an integer: 1,440 minutes, and the
days of fourteen years, which are all the years there are (common or leap, starting on any weekday). So whether one cron's
ticks are all among another's is decided exactly, and for ever.
"""

import bisect
import calendar
import datetime
import functools
import itertools
import operator
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from croniter import CroniterError, croniter

from dagster_sqlmesh_pipes._zones import DAY_MINUTES, EPOCH, time_zone
from dagster_sqlmesh_pipes.errors import ConfigurationError

__all__ = ["Cron", "interval_floor", "irredundant", "last_tick", "longest_gap", "next_wall_tick", "parse_cron"]

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
        found = [weekday for weekday in range(7) if _days_with("weekday", weekday) & self.days]
        return found if _union(_days_with("weekday", weekday) for weekday in found) == self.days else None


_Values = frozenset[Any]
"""What a field of a cron lists: numbers, `*`, `l`, or `15w`."""


@dataclass(frozen=True)
class _Day:
    """A day, by the values that mean it in the fields of a cron."""

    month_day: _Values
    month: _Values
    weekday: _Values
    """Sunday is 0."""
    occurrence: _Values
    """Which of its weekday in its month it is, from 1; `l` for the last."""


@functools.cache
def parse_cron(expression: str) -> Cron:
    """Read a cron in any form that SQLMesh accepts.

    Raises:
        ConfigurationError: it is no cron, has more than five fields, or never ticks.
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
    if "w" in text.split()[2].lower():  # 15W, the weekday nearest to the 15th, stands alone in its field; croniter gives 15
        month_days = _Values(f"{day}w" for day in month_days)
    days = _days(month_days, months, weekdays, nth)
    if not days:
        msg = f"The cron {expression!r} never ticks."
        raise ConfigurationError(msg)
    return Cron(text=text, minutes=sum(1 << (h * 60 + m) for h in _all(hours, 24) for m in _all(minutes, 60)), days=days)


def irredundant(expressions: Iterable[str]) -> tuple[str, ...]:
    """Leave out every cron all of whose ticks are ticks of the others. What is left has the same ticks, and none can go.

    The rarer a cron, the sooner it goes: of `0 0 * * *` and `*/5 * * * *` the second stays. Sorted, so that the order of the
    models does not matter.
    """
    crons = {(cron.minutes, cron.days): cron for cron in sorted(map(parse_cron, expressions), key=lambda cron: cron.text, reverse=True)}
    rarest_first = sorted(crons.values(), key=lambda cron: (cron.minutes.bit_count() * cron.days.bit_count(), cron.text))
    at: dict[int, list[Cron]] = {}
    for cron in rarest_first:
        for minute in _bits(cron.minutes):
            at.setdefault(minute, []).append(cron)
    kept = []
    for cron in rarest_first:
        if all(not cron.days & ~_union(other.days for other in at[minute] if other is not cron) for minute in _bits(cron.minutes)):
            for minute in _bits(cron.minutes):
                at[minute].remove(cron)
        else:
            kept.append(cron.text)
    return tuple(sorted(kept))


def last_tick(cron: Cron, zone: str | None, at: datetime.datetime) -> datetime.datetime:
    """Give a cron's last tick in a time zone, the moment itself included.

    Where clocks change it ticks as croniter and hence SQLMesh does: in an hour that comes twice both times, and for what is jumped over
    at the end of the jump.
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
    """Give the first tick of any of some crons later than a time (without a time zone) on the wall clock."""
    day, passed = after.date(), (2 << after.hour * 60 + after.minute) - 1
    while True:
        minutes = _union(cron.minutes for cron in crons if cron.days >> _bit(day) & 1) & ~passed
        if minutes:
            first = (minutes & -minutes).bit_length() - 1
            return datetime.datetime.combine(day, datetime.time(*divmod(first, 60)))
        day, passed = day + _DAY, 0


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
    """Give the longest time between two ticks of a cron, in wall clock time, over a cycle of the calendar."""
    cron = parse_cron(expression)
    ticks = _bits(cron.minutes)
    days = [number for number, day in enumerate(_years()) if cron.days >> day & 1]
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
    return tuple(day for year in _KINDS_OF_YEARS.values() for month in range(1, 13) for day in _days_of(year, month))


def _days_of(year: int, month: int) -> Iterator[_Day]:
    first, length = calendar.monthrange(year, month)
    nearest: dict[int, list[str]] = {}
    for wanted in range(1, 32):
        nearest.setdefault(_nearest_workday(min(wanted, length), first, length), []).append(f"{wanted}w")
    for day in range(1, length + 1):
        yield _Day(
            month_day=_Values({day, *nearest.get(day, ()), *(["l"] if day == length else [])}),
            month=_Values({month}),
            weekday=_Values({(first + day) % 7}),
            occurrence=_Values({(day - 1) // 7 + 1, *(["l"] if day + 7 > length else [])}),
        )


def _nearest_workday(day: int, first: int, length: int) -> int:
    """Give the day from Monday to Friday that is nearest to a day of the month, in the month; `first` is the first day's weekday."""
    match (first + day - 1) % 7:
        case calendar.SATURDAY:
            return day - 1 if day > 1 else 3
        case calendar.SUNDAY:
            return day + 1 if day < length else day - 2
    return day


def _all(values: _Values, count: int) -> Iterable[int]:
    return range(count) if "*" in values else {int(value) for value in values}


def _days(month_days: _Values, months: _Values, weekdays: _Values, nth: Mapping[Any, Iterable[Any]]) -> int:
    """Decide as croniter does: days of the month and of the week add up where both are given, but `mon#1` stands alone."""
    on_month_days = _union(_days_with("month_day", value) for value in month_days)
    on_weekdays = _union(_days_with("weekday", value) for value in weekdays)
    if nth:
        on_nth = _union(
            _days_with("weekday", weekday) & _days_with("occurrence", which) for weekday, values in nth.items() for which in values
        )
        on_days = on_nth & on_month_days if "*" in weekdays else on_nth
    elif "*" in month_days or "*" in weekdays:
        on_days = on_month_days & on_weekdays
    else:
        on_days = on_month_days | on_weekdays
    return on_days & _union(_days_with("month", value) for value in months)


@functools.cache
def _days_with(attribute: str, value: Any) -> int:
    """Give the days of which an attribute has, or its values have, the value; all for `*`."""
    return sum(1 << bit for bit, day in enumerate(_calendar()) if value == "*" or value in getattr(day, attribute))


def _union(sets: Iterable[int]) -> int:
    return functools.reduce(operator.or_, sets, 0)


def _bits(bits: int) -> list[int]:
    return [bit for bit in range(bits.bit_length()) if bits >> bit & 1]


def _last_wall_tick(cron: Cron, wall: int) -> int:
    """Give the last of a cron's ticks up to a time on the wall clock, in minutes since the epoch there."""
    today, minute = divmod(wall, DAY_MINUTES)
    minutes = cron.minutes & (2 << minute) - 1
    while not (minutes and cron.days >> _bit(EPOCH.date() + today * _DAY) & 1):
        today, minutes = today - 1, cron.minutes
    return today * DAY_MINUTES + minutes.bit_length() - 1


_KINDS_OF_YEARS = {_kind(year): year for year in _CYCLE}
_LENGTHS = [365 + is_leap for is_leap, _ in _KINDS_OF_YEARS]
_FIRST_BITS = dict(zip(_KINDS_OF_YEARS, itertools.accumulate(_LENGTHS, initial=0), strict=False))
_EVERY_DAY = (1 << sum(_LENGTHS)) - 1


def _bit(day: datetime.date) -> int:
    return _FIRST_BITS[_kind(day.year)] + day.timetuple().tm_yday - 1


@functools.cache
def _years() -> tuple[int, ...]:
    """Give the days of a cycle of years in a row, each as its bit in `Cron.days`."""
    first = datetime.date(_CYCLE[0], 1, 1)
    return tuple(_bit(first + datetime.timedelta(days=day)) for day in range((datetime.date(_CYCLE[-1] + 1, 1, 1) - first).days))
