"""The one cron schedule that ticks whenever some model's cron does, whatever time zones the models are in."""

import datetime
import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from dagster_sqlmesh_pipes._cron import DAY_MINUTES, Cron, irredundant, next_tick, parse_cron

__all__ = ["TickPlan", "plan_ticks"]

HOUR = 60  # minutes

_YEARS = range(2020, 2039)
"""The years whose clock changes count. Rules for later ones are not in the time zone database either."""


@dataclass(frozen=True)
class TickPlan:
    """What a Dagster schedule needs to tick with a set of crons."""

    cron_schedule: tuple[str, ...]
    timezone: str
    crons: tuple[tuple[str, str | None], ...]
    """The distinct crons and time zones it was made from."""
    exact: bool
    """Every tick is some cron's. Otherwise there are ticks between, to be skipped: ask `is_tick`."""

    def is_tick(self, at: datetime.datetime) -> bool:
        """Tell whether one of the crons ticks at this moment."""
        just_before = at - datetime.timedelta(seconds=1)
        return self.exact or any(next_tick(cron, zone, just_before) == at for cron, zone in self.crons)

    def next_after(self, at: datetime.datetime) -> datetime.datetime:
        """Give the next moment at which one of the crons ticks."""
        return min(next_tick(cron, zone, at) for cron, zone in self.crons)


def plan_ticks(crons: Iterable[tuple[str, str | None]]) -> TickPlan:
    """Plan ticks for crons and their time zones (None is UTC): all of theirs, with the fewest cron strings.

    A schedule in Dagster has one time zone, and where clocks change Dagster's ticks are not croniter's, which SQLMesh goes by (it
    leaves out the first of a repeated hour). So crons of one time zone that stay clear of its clock changes are taken as they are, in
    that time zone. Others are translated to UTC: exactly for zones of a fixed offset, else to all the times that they may mean, and
    ticks that turn out to be none are skipped.

    Raises:
        ConfigurationError: a cron can't be read.
    """
    distinct = tuple(sorted(set(crons), key=lambda item: (item[0], item[1] or "")))
    zones = {zone or "UTC" for cron, zone in distinct if not _ticks_alike_everywhere(cron, zone)}
    zone = min(zones, default="UTC")
    if len(zones) <= 1 and all(_may_be_read_in(cron, own, zone) for cron, own in distinct):
        return TickPlan(irredundant(cron for cron, _ in distinct), zone, distinct, exact=True)
    in_utc = {text for cron, own in distinct for text in _to_utc(parse_cron(cron), own or "UTC")}
    return TickPlan(irredundant(in_utc), "UTC", distinct, exact=_all_exact(distinct))


@dataclass(frozen=True)
class _Zone:
    """A time zone, as far as crons are concerned."""

    offsets: frozenset[int]
    """From UTC, in minutes: all that it has in the years that count."""
    unsteady: int
    """The minutes of the day (bits) that some day lacks or has twice."""
    resumptions: Mapping[int, int]
    """Minutes of the day at which clocks have jumped forward, and the minutes (bits) jumped over: croniter ticks there instead."""

    @property
    def keeps_whole_hours(self) -> bool:
        return not any(offset % HOUR for offset in self.offsets)


@functools.cache
def _zone(name: str) -> _Zone:
    offsets: set[int] = set()
    resumptions: dict[int, int] = {}
    unsteady = 0
    for moment, before, after in _transitions(ZoneInfo(name)):
        low, high = sorted((before, after))
        wall = moment + low
        minutes = sum(1 << (minute % DAY_MINUTES) for minute in range(wall, wall + high - low))
        unsteady |= minutes
        if after > before:
            end = (wall + high - low) % DAY_MINUTES
            resumptions[end] = resumptions.get(end, 0) | minutes
        offsets |= {before, after}
    if not offsets:
        offsets = {_offset(ZoneInfo(name), int(datetime.datetime(_YEARS[0], 1, 1, tzinfo=datetime.UTC).timestamp()) // 60)}
    return _Zone(frozenset(offsets), unsteady, resumptions)


def _transitions(zone: ZoneInfo) -> Iterator[tuple[int, int, int]]:
    """Find the clock changes of the years that count: the minute since the epoch, and the offsets before and after."""
    start, stop = (int(datetime.datetime(year, 1, 1, tzinfo=datetime.UTC).timestamp()) // 60 for year in (_YEARS[0], _YEARS[-1] + 1))
    for day in range(start, stop, DAY_MINUTES):
        low, high = day, day + DAY_MINUTES
        before, after = _offset(zone, low), _offset(zone, high)
        if before != after:
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if _offset(zone, middle) == before else (low, middle)
            yield high, before, after


def _offset(zone: ZoneInfo, minute: int) -> int:
    offset = datetime.datetime.fromtimestamp(minute * 60, zone).utcoffset() or datetime.timedelta()
    return int(offset.total_seconds()) // 60


def _ticks_alike_everywhere(cron: str, zone: str | None) -> bool:
    """Tell whether a cron means the same in UTC and in every zone of whole hours: every hour of every day."""
    parsed = parse_cron(cron)
    in_first_hour = parsed.minutes & ((1 << HOUR) - 1)
    every_hour = parsed.ticks_every_day and parsed.minutes == sum(in_first_hour << hour * HOUR for hour in range(24))
    return every_hour and _is_legal(parsed) and _zone(zone or "UTC").keeps_whole_hours


def _may_be_read_in(cron: str, own: str | None, zone: str) -> bool:
    """Tell whether Dagster, reading a cron of the time zone `own` in `zone`, ticks as croniter does in `own`."""
    parsed = parse_cron(cron)
    if not _is_legal(parsed):
        return False
    if _ticks_alike_everywhere(cron, own):
        return _zone(zone).keeps_whole_hours
    return (own or "UTC") == zone and not parsed.minutes & _zone(zone).unsteady


def _is_legal(cron: Cron) -> bool:
    """Tell whether Dagster takes the cron: its croniter does not know `15W`, the weekday nearest to a day of the month."""
    return "w" not in cron.text.split()[2].lower()


def _to_utc(cron: Cron, zone: str) -> Iterator[str]:
    """Give crons in UTC that tick whenever this one ticks in its zone."""
    known = _zone(zone)
    minutes = cron.minutes
    for resumption, skipped in known.resumptions.items():
        if cron.minutes & skipped:
            minutes |= 1 << resumption
    if (known.offsets == {0} and _is_legal(cron)) or _ticks_alike_everywhere(cron.text, zone):
        yield cron.text
        return
    for offset in sorted(known.offsets):
        yield from _shifted(cron, minutes, offset)


def _shifted(cron: Cron, minutes: int, offset: int) -> Iterator[str]:
    """Give crons `offset` minutes earlier. Where that is another day, days of the month can't be told: any day then."""
    hours_of: dict[tuple[int, int], set[int]] = {}
    for minute in (m for m in range(DAY_MINUTES) if minutes >> m & 1):
        day_shift, moved = divmod(minute - offset, DAY_MINUTES)
        hours_of.setdefault((day_shift, moved % HOUR), set()).add(moved // HOUR)
    minutes_of: dict[tuple[int, frozenset[int]], list[int]] = {}
    for (day_shift, minute), hours in hours_of.items():
        minutes_of.setdefault((day_shift, frozenset(hours)), []).append(minute)
    for (day_shift, at_hours), at_minutes in minutes_of.items():
        yield f"{_listed(at_minutes, HOUR)} {_listed(at_hours, 24)} {_moved_days(cron, day_shift)}"


def _moved_days(cron: Cron, day_shift: int) -> str:
    if not _is_legal(cron):
        return "* * *"
    if not day_shift:
        return " ".join(cron.text.split()[2:])
    weekdays = cron.weekdays
    return "* * *" if weekdays is None else f"* * {_listed([(day + day_shift) % 7 for day in weekdays], 7)}"


def _listed(values: Iterable[int], count: int) -> str:
    numbers = sorted(values)
    return "*" if len(numbers) == count else ",".join(map(str, numbers))


def _all_exact(crons: Iterable[tuple[str, str | None]]) -> bool:
    """Tell whether translating to UTC adds no tick: fixed offsets, and no day that can't be told."""
    for text, name in crons:
        cron, zone = parse_cron(text), _zone(name or "UTC")
        (offset, *more) = zone.offsets
        crosses_midnight = any(not 0 <= m - offset < DAY_MINUTES for m in range(DAY_MINUTES) if cron.minutes >> m & 1)
        if not _is_legal(cron) or more or (crosses_midnight and cron.weekdays is None):
            return False
    return True
