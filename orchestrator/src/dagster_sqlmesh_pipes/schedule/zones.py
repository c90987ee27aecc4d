"""Time zones: when clocks change, and which minutes of a day that affects."""

import datetime
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from zoneinfo import ZoneInfo

__all__ = ["DAY_MINUTES", "EPOCH", "ClockChange", "Zone", "time_zone"]

DAY_MINUTES = 24 * 60
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)

_HOUR = 60  # minutes
_YEARS = range(2020, 2039)
"""The years whose clock changes count. The time zone database has no rules for later ones."""


@dataclass(frozen=True)
class ClockChange:
    """A clock change: its moment, and the offsets from UTC before and after it.

    The moment is in minutes since the epoch, the offsets are in minutes.
    """

    moment: int
    before: int
    after: int

    @property
    def minutes(self) -> int:
        """The minutes of the day (bits) that are skipped or repeated."""
        low, high = sorted((self.before, self.after))
        return sum(
            1 << (minute % DAY_MINUTES) for minute in range(self.moment + low, self.moment + high)
        )


@dataclass(frozen=True)
class Zone:
    """A time zone, as far as crons depend on it."""

    offsets: frozenset[int]
    """All its offsets from UTC, in minutes."""
    changes: tuple[ClockChange, ...]

    @functools.cached_property
    def dst_minutes(self) -> int:
        """The minutes of the day (bits) that clock changes skip or repeat on some day."""
        return functools.reduce(lambda bits, change: bits | change.minutes, set(self.changes), 0)

    @functools.cached_property
    def keeps_whole_hours(self) -> bool:
        """Whether its hours begin when those of UTC do."""
        return not any(offset % _HOUR for offset in self.offsets)

    @property
    def largest_change(self) -> datetime.timedelta:
        """The difference between its largest and its smallest offset."""
        return datetime.timedelta(minutes=max(self.offsets) - min(self.offsets))


@functools.cache
def time_zone(name: str | None) -> Zone:
    """Return a time zone by its IANA name; None is UTC."""
    zone = ZoneInfo(name or "UTC")
    changes = tuple(_changes(zone))
    offsets = {offset for change in changes for offset in (change.before, change.after)}
    return Zone(frozenset(offsets or {_offset(zone, _start_of(_YEARS[0]))}), changes)


def _changes(zone: ZoneInfo) -> Iterator[ClockChange]:
    before = _offset(zone, _start_of(_YEARS[0]))
    for day in range(_start_of(_YEARS[0]), _start_of(_YEARS[-1] + 1), DAY_MINUTES):
        low, high = day, day + DAY_MINUTES
        after = _offset(zone, high)
        if before != after:
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if _offset(zone, middle) == before else (low, middle)
            yield ClockChange(high, before, after)
        before = after


def _start_of(year: int) -> int:
    return int(datetime.datetime(year, 1, 1, tzinfo=datetime.UTC).timestamp()) // 60


def _offset(zone: ZoneInfo, minute: int) -> int:
    offset = datetime.datetime.fromtimestamp(minute * 60, zone).utcoffset() or datetime.timedelta()
    return int(offset.total_seconds()) // 60
