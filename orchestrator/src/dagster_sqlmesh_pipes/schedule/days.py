"""The days on which a cron ticks, as a set.

The set is kept in the bits of an integer, one for each day of the fourteen kinds of years: common
or leap, beginning on any weekday. So it holds for ever, and comparing two is exact.
"""

import calendar
import datetime
import functools
import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["EVERY_DAY", "Values", "cycle_of_days", "day_bit", "days_matching", "union", "weekdays"]

Values = frozenset[Any]
"""What a field of a cron lists: numbers, `*`, `l`, or `15w`."""

_CYCLE = range(2000, 2028)
"""The calendar repeats itself after 28 years, until a century's year is no leap year."""
_WEEK = 7


@dataclass(frozen=True)
class _Day:
    """A day, by the values that match it in the fields of a cron."""

    month_day: Values
    month: Values
    weekday: Values
    """Sunday is 0."""
    occurrence: Values
    """The number of its weekday in its month, from 1; `l` for the last."""


def days_matching(
    month_days: Values, months: Values, weekdays: Values, nth: Mapping[Any, Iterable[Any]]
) -> int:
    """Return the days that match a cron's fields, by croniter's rules.

    Days of the month and of the week add up where both are given, but `mon#1` (in `nth`) stands
    alone.
    """
    on_month_days = union(_days_with("month_day", value) for value in month_days)
    on_weekdays = union(_days_with("weekday", value) for value in weekdays)
    if nth:
        on_nth = union(_nth_weekdays(weekday, values) for weekday, values in nth.items())
        on_days = on_nth & on_month_days if "*" in weekdays else on_nth
    elif "*" in month_days or "*" in weekdays:
        on_days = on_month_days & on_weekdays
    else:
        on_days = on_month_days | on_weekdays
    return on_days & union(_days_with("month", value) for value in months)


def weekdays(days: int) -> list[int] | None:
    """Return the days of the week (Sunday is 0) that make up the set; None if none do."""
    found = [weekday for weekday in range(_WEEK) if _days_with("weekday", weekday) & days]
    return found if union(_days_with("weekday", weekday) for weekday in found) == days else None


def day_bit(day: datetime.date) -> int:
    """Return the position of a day's bit."""
    return _FIRST_BITS[_kind(day.year)] + day.timetuple().tm_yday - 1


@functools.cache
def cycle_of_days() -> tuple[int, ...]:
    """Return the days of a cycle of years in order, each as the position of its bit."""
    first, end = datetime.date(_CYCLE[0], 1, 1), datetime.date(_CYCLE[-1] + 1, 1, 1)
    return tuple(
        day_bit(first + datetime.timedelta(days=number)) for number in range((end - first).days)
    )


def union(sets: Iterable[int]) -> int:
    """Return the union of sets of bits."""
    return functools.reduce(operator.or_, sets, 0)


def _nth_weekdays(weekday: Any, occurrences: Iterable[Any]) -> int:
    on_occurrences = union(_days_with("occurrence", which) for which in occurrences)
    return _days_with("weekday", weekday) & on_occurrences


@functools.cache
def _days_with(attribute: str, value: Any) -> int:
    """Return the days of which an attribute has the value; all days for `*`."""
    return sum(
        1 << bit
        for bit, day in enumerate(_days())
        if value == "*" or value in getattr(day, attribute)
    )


@functools.cache
def _days() -> tuple[_Day, ...]:
    """Return the days of one year of each kind, in the order of their bits."""
    found: list[_Day] = []
    for year in _YEAR_BY_KIND.values():
        for month in range(1, 13):
            found.extend(_days_of_month(year, month))
    return tuple(found)


def _days_of_month(year: int, month: int) -> Iterator[_Day]:
    first, length = calendar.monthrange(year, month)
    workdays: dict[int, list[str]] = {}
    for wanted in range(1, 32):
        day = _nearest_workday(min(wanted, length), first, length)
        workdays.setdefault(day, []).append(f"{wanted}w")
    for day in range(1, length + 1):
        last = ["l"] if day == length else []
        last_of_weekday = ["l"] if day + _WEEK > length else []
        yield _Day(
            month_day=Values({day, *workdays.get(day, ()), *last}),
            month=Values({month}),
            weekday=Values({(first + day) % _WEEK}),
            occurrence=Values({(day - 1) // _WEEK + 1, *last_of_weekday}),
        )


def _nearest_workday(day: int, first: int, length: int) -> int:
    """Return the day from Monday to Friday nearest to a day, in the same month.

    `first` is the weekday of the month's first day.
    """
    match (first + day - 1) % _WEEK:
        case calendar.SATURDAY:
            return day - 1 if day > 1 else 3
        case calendar.SUNDAY:
            return day + 1 if day < length else day - 2
    return day


def _kind(year: int) -> tuple[bool, int]:
    return calendar.isleap(year), calendar.weekday(year, 1, 1)


def _first_bits() -> dict[tuple[bool, int], int]:
    first_bits, length = {}, 0
    for kind in _YEAR_BY_KIND:
        first_bits[kind] = length
        length += 365 + kind[0]
    return first_bits


_YEAR_BY_KIND = {_kind(year): year for year in _CYCLE}
_FIRST_BITS = _first_bits()
EVERY_DAY = (1 << sum(365 + is_leap for is_leap, _ in _YEAR_BY_KIND)) - 1
