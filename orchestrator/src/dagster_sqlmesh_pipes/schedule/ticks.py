"""One schedule that ticks whenever some model's cron does, in whatever time zones they are."""

import datetime
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from dagster_sqlmesh_pipes.schedule.cron import Cron, minimal_crons, next_wall_tick, parse_cron
from dagster_sqlmesh_pipes.schedule.zones import DAY_MINUTES, time_zone

__all__ = ["TickPlan", "plan_ticks"]

_HOUR = 60  # minutes
_FIRST_HOUR = (1 << _HOUR) - 1


@dataclass(frozen=True)
class TickPlan:
    """The crons and the time zone of a Dagster schedule."""

    cron_schedule: tuple[str, ...]
    timezone: str

    def next_after(self, at: datetime.datetime) -> datetime.datetime:
        """Return the schedule's next tick."""
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
    """Plan ticks for crons and their time zones (None is UTC): all of theirs, in few cron strings.

    A schedule in Dagster has one time zone. Where clocks change, Dagster leaves out the first of a
    repeated hour, but croniter, and hence SQLMesh, does not. So crons of one time zone that stay
    clear of its clock changes are used as they are, in that time zone. Others are translated to
    UTC: exactly for zones with a fixed offset, otherwise to all the times that they may mean. At
    those that turn out not to be a model's tick, nothing is due.

    Raises:
        ConfigurationError: a cron is not valid.
    """
    distinct = tuple(sorted(set(crons), key=lambda item: (item[0], item[1] or "")))
    zones = {zone or "UTC" for cron, zone in distinct if not _is_same_in_all_zones(cron, zone)}
    zone = min(zones, default="UTC")
    if len(zones) <= 1 and all(_is_valid_in(zone, cron, own) for cron, own in distinct):
        return TickPlan(minimal_crons(cron for cron, _ in distinct), zone)
    translated: set[str] = set()
    for cron, own in distinct:
        translated.update(_to_utc(parse_cron(cron), own))
    return TickPlan(minimal_crons(translated), "UTC")


def _is_same_in_all_zones(cron: str, zone: str | None) -> bool:
    """Return whether the ticks are the same in UTC and in all zones with whole-hour offsets.

    They are for a cron that ticks in every hour of every day.
    """
    parsed = parse_cron(cron)
    in_every_hour = sum((parsed.minutes & _FIRST_HOUR) << hour * _HOUR for hour in range(24))
    ticks_every_hour = parsed.ticks_every_day and parsed.minutes == in_every_hour
    return ticks_every_hour and _is_known_to_dagster(parsed) and time_zone(zone).keeps_whole_hours


def _is_valid_in(zone: str, cron: str, own: str | None) -> bool:
    """Return whether Dagster, given a cron of the zone `own` in `zone`, ticks as croniter does."""
    parsed = parse_cron(cron)
    if not _is_known_to_dagster(parsed):
        return False
    if _is_same_in_all_zones(cron, own):
        return time_zone(zone).keeps_whole_hours
    return (own or "UTC") == zone and not parsed.minutes & time_zone(zone).dst_minutes


def _is_known_to_dagster(cron: Cron) -> bool:
    """Return False for `15W`, the weekday nearest to a day, which Dagster's croniter lacks."""
    return "w" not in cron.text.split()[2].lower()


def _to_utc(cron: Cron, zone: str | None) -> Iterator[str]:
    """Yield crons in UTC that tick whenever this one ticks in its zone."""
    known = time_zone(zone)
    is_utc = known.offsets == {0} and _is_known_to_dagster(cron)
    if is_utc or _is_same_in_all_zones(cron.text, zone):
        yield cron.text
        return
    minutes = cron.minutes
    for change in set(known.changes):
        if change.after > change.before and cron.minutes & change.minutes:
            # A time that is skipped ticks at the end of the jump.
            minutes |= 1 << (change.moment + change.after) % DAY_MINUTES
    for offset in sorted(known.offsets):
        yield from _shifted(cron, minutes, offset)


def _shifted(cron: Cron, minutes: int, offset: int) -> Iterator[str]:
    """Yield crons that tick `offset` minutes earlier.

    Where that is another day, days of the month can't be expressed: these crons tick on any day.
    """
    hours_of: dict[tuple[int, int], set[int]] = {}
    for minute in range(DAY_MINUTES):
        if minutes >> minute & 1:
            day_shift, shifted = divmod(minute - offset, DAY_MINUTES)
            hours_of.setdefault((day_shift, shifted % _HOUR), set()).add(shifted // _HOUR)
    minutes_of: dict[tuple[int, frozenset[int]], list[int]] = {}
    for (day_shift, minute), hours in hours_of.items():
        minutes_of.setdefault((day_shift, frozenset(hours)), []).append(minute)
    for (day_shift, at_hours), at_minutes in minutes_of.items():
        days = _shifted_days(cron, day_shift)
        yield f"{_field(at_minutes, _HOUR)} {_field(at_hours, 24)} {days}"


def _shifted_days(cron: Cron, day_shift: int) -> str:
    if not _is_known_to_dagster(cron):
        return "* * *"
    if not day_shift:
        return " ".join(cron.text.split()[2:])
    if cron.weekdays is None:
        return "* * *"
    return f"* * {_field([(day + day_shift) % 7 for day in cron.weekdays], 7)}"


def _field(values: Iterable[int], count: int) -> str:
    numbers = sorted(values)
    return "*" if len(numbers) == count else ",".join(map(str, numbers))
