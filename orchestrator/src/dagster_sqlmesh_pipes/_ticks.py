"""The one cron schedule that ticks whenever some model's cron does, whatever time zones the models are in."""

import datetime
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from dagster_sqlmesh_pipes._cron import Cron, irredundant, next_wall_tick, parse_cron
from dagster_sqlmesh_pipes._zones import DAY_MINUTES, time_zone

__all__ = ["TickPlan", "plan_ticks"]

HOUR = 60  # minutes


@dataclass(frozen=True)
class TickPlan:
    """What a Dagster schedule needs to tick with a set of crons."""

    cron_schedule: tuple[str, ...]
    timezone: str

    def next_after(self, at: datetime.datetime) -> datetime.datetime:
        """Give the schedule's next tick."""
        zone = ZoneInfo(self.timezone)
        wall = next_wall_tick(self._merged, at.astimezone(zone).replace(tzinfo=None))
        return wall.replace(tzinfo=zone).astimezone(datetime.UTC)

    @functools.cached_property
    def _merged(self) -> list[Cron]:
        minutes_of: dict[int, int] = {}
        for cron in map(parse_cron, self.cron_schedule):
            minutes_of[cron.days] = minutes_of.get(cron.days, 0) | cron.minutes
        return [Cron("", minutes, days) for days, minutes in minutes_of.items()]


def plan_ticks(crons: Iterable[tuple[str, str | None]]) -> TickPlan:
    """Plan ticks for crons and their time zones (None is UTC): all of theirs, with the fewest cron strings.

    A schedule in Dagster has one time zone, and where clocks change Dagster's ticks are not croniter's, which SQLMesh goes by (it
    leaves out the first of a repeated hour). So crons of one time zone that stay clear of its clock changes are taken as they are, in
    that time zone. Others are translated to UTC: exactly for zones of a fixed offset, else to all the times that they may mean; at those
    that turn out to be no model's tick nothing is due.

    Raises:
        ConfigurationError: a cron can't be read.
    """
    distinct = tuple(sorted(set(crons), key=lambda item: (item[0], item[1] or "")))
    zones = {zone or "UTC" for cron, zone in distinct if not _ticks_alike_everywhere(cron, zone)}
    zone = min(zones, default="UTC")
    if len(zones) <= 1 and all(_may_be_read_in(cron, own, zone) for cron, own in distinct):
        return TickPlan(irredundant(cron for cron, _ in distinct), zone)
    return TickPlan(irredundant({text for cron, own in distinct for text in _to_utc(parse_cron(cron), own)}), "UTC")


def _ticks_alike_everywhere(cron: str, zone: str | None) -> bool:
    """Tell whether a cron means the same in UTC and in every zone of whole hours: every hour of every day."""
    parsed = parse_cron(cron)
    in_first_hour = parsed.minutes & ((1 << HOUR) - 1)
    every_hour = parsed.ticks_every_day and parsed.minutes == sum(in_first_hour << hour * HOUR for hour in range(24))
    return every_hour and _is_legal(parsed) and time_zone(zone).keeps_whole_hours


def _may_be_read_in(cron: str, own: str | None, zone: str) -> bool:
    """Tell whether Dagster, reading a cron of the time zone `own` in `zone`, ticks as croniter does in `own`."""
    parsed = parse_cron(cron)
    if not _is_legal(parsed):
        return False
    if _ticks_alike_everywhere(cron, own):
        return time_zone(zone).keeps_whole_hours
    return (own or "UTC") == zone and not parsed.minutes & time_zone(zone).unsteady


def _is_legal(cron: Cron) -> bool:
    """Tell whether Dagster takes the cron: its croniter does not know `15W`, the weekday nearest to a day of the month."""
    return "w" not in cron.text.split()[2].lower()


def _to_utc(cron: Cron, zone: str | None) -> Iterator[str]:
    """Give crons in UTC that tick whenever this one ticks in its zone."""
    known = time_zone(zone)
    if (known.offsets == {0} and _is_legal(cron)) or _ticks_alike_everywhere(cron.text, zone):
        yield cron.text
        return
    minutes = cron.minutes
    for change in set(known.changes):
        if change.after > change.before and cron.minutes & change.minutes:  # jumped over: it ticks at the end of the jump
            minutes |= 1 << (change.moment + change.after) % DAY_MINUTES
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
