"""Cron algebra against brute force: croniter itself, tick by tick, over years."""

import calendar
import datetime
from zoneinfo import ZoneInfo

import pytest
from croniter import CroniterBadDateError, croniter
from hypothesis import assume, example, given
from hypothesis import strategies as st
from profiles import examples

from dagster_sqlmesh_pipes.errors import ConfigurationError
from dagster_sqlmesh_pipes.schedule.cron import (
    Cron,
    interval_floor,
    last_tick,
    minimal_crons,
    parse_cron,
)

UTC = datetime.UTC


def ticks(expression: str, start: datetime.datetime, end: datetime.datetime) -> set[float]:
    """List a cron's ticks in [start, end) with croniter."""
    found, iterator = set(), croniter(expression, start - datetime.timedelta(seconds=1))
    while (tick := iterator.get_next(float)) < end.timestamp():
        found.add(tick)
    return found


def numbers(low: int, high: int) -> st.SearchStrategy[str]:
    single = st.integers(low, high).map(str)
    listed = st.lists(st.integers(low, high), min_size=2, max_size=3, unique=True).map(
        lambda v: ",".join(map(str, sorted(v)))
    )
    span = st.tuples(st.integers(low, high), st.integers(low, high)).map(
        lambda v: f"{min(v)}-{max(v)}"
    )
    stepped = st.integers(2, max(3, high // 2)).map(lambda step: f"*/{step}")
    return st.one_of(single, listed, span, stepped)


MINUTES = st.sampled_from(["0", "30", "0,30", "*/15", "7", "0-59/20"])
HOURS = st.one_of(st.just("*"), numbers(0, 23))
MONTH_DAYS = st.one_of(
    st.just("*"), st.just("*"), st.just("L"), st.sampled_from(["29", "31", "L,15"]), numbers(1, 28)
)
MONTHS = st.one_of(st.just("*"), st.just("*"), st.sampled_from(["2", "jan,jul", "feb-apr", "*/5"]))
WEEKDAYS = st.one_of(
    st.just("*"),
    st.just("*"),
    st.sampled_from(["mon", "sat,sun", "1-5", "7", "mon#1", "L5", "mon#1,fri#3"]),
)
# croniter fails where `mon#1` meets a day of the month that it never falls on.
CRONS = (
    st.tuples(MINUTES, HOURS, MONTH_DAYS, MONTHS, WEEKDAYS)
    .filter(lambda f: f[2] == "*" or f[4].isdigit() or not set("#L") & set(f[4]))
    .map(" ".join)
)

ZONES = st.sampled_from(
    [
        None,
        "Europe/Berlin",
        "America/New_York",
        "Asia/Kolkata",
        "Australia/Lord_Howe",
        "America/Havana",
    ]
)
CLOCK_CHANGES = [
    datetime.datetime.fromisoformat(day)
    for day in ("2026-03-08", "2026-03-29", "2026-04-04", "2026-10-25", "2026-11-01")
]
WITHIN = (
    datetime.datetime.fromisoformat("2023-01-01"),
    datetime.datetime.fromisoformat("2028-12-31"),
)


def parsed_or_assumed_away(cron: str) -> Cron:
    """Parse a cron, unless it is one that never ticks, such as the 31st of February."""
    try:
        return parse_cron(cron)
    except ConfigurationError as exc:
        assume("never ticks" not in str(exc))
        raise


@given(cron=CRONS)
@examples(20)
def test_minutes_are_those_of_croniter_s_ticks(cron: str) -> None:
    parsed = parsed_or_assumed_away(cron)
    start = datetime.datetime(2024, 1, 1, tzinfo=UTC)
    found = ticks(cron, start, datetime.datetime(2024, 3, 2, tzinfo=UTC))
    days = {datetime.datetime.fromtimestamp(tick, UTC).date() for tick in found}
    minutes = {int(tick) // 60 % 1440 for tick in found}
    assert all(parsed.minutes >> minute & 1 for minute in minutes)
    if days:
        assert minutes == {minute for minute in range(1440) if parsed.minutes >> minute & 1}
        assert len(found) == len(days) * len(minutes)


@given(month_days=MONTH_DAYS, months=MONTHS, weekdays=WEEKDAYS)
@example("29", "2", "*")
@example("L", "*", "*")
@example("L,15", "feb-apr", "sat,sun")
@example("*", "*", "L5")
@example("*", "jan,jul", "mon#1,fri#3")
@example("15W", "*", "*")
@example("1W", "*", "*")
@example("31W", "feb-apr", "*")
@examples(10)
def test_days_are_those_of_croniter_s_ticks_in_all_years(
    month_days: str, months: str, weekdays: str
) -> None:
    assume(month_days == "*" or not set("#L") & set(weekdays))
    cron = f"0 0 {month_days} {months} {weekdays}"
    kinds = {
        (calendar.isleap(year), calendar.weekday(year, 1, 1)): year for year in range(2000, 2028)
    }
    firsts = [
        (datetime.datetime(year, 1, 1, tzinfo=UTC), datetime.datetime(year + 1, 1, 1, tzinfo=UTC))
        for year in kinds.values()
    ]
    try:
        ticked = set().union(*(ticks(cron, first, following) for first, following in firsts))
    except CroniterBadDateError:
        with pytest.raises(ConfigurationError, match="never ticks"):
            parse_cron(cron)
        return
    midnights = [
        first + datetime.timedelta(days=n)
        for first, following in firsts
        for n in range((following - first).days)
    ]
    assert parse_cron(cron).days == sum(
        1 << bit for bit, midnight in enumerate(midnights) if midnight.timestamp() in ticked
    )


@given(crons=st.lists(CRONS, min_size=1, max_size=5), year=st.sampled_from([2023, 2024, 2028]))
@examples(12)
def test_minimal_crons_have_the_same_ticks(crons: list[str], year: int) -> None:
    start, end = (
        datetime.datetime(year, 2, 1, tzinfo=UTC),
        datetime.datetime(year, 4, 1, tzinfo=UTC),
    )
    parsed = {cron: parsed_or_assumed_away(cron) for cron in crons}
    kept = minimal_crons(crons)
    of = {cron: ticks(cron, start, end) for cron in {*crons, *kept}}
    assert set().union(*(of[cron] for cron in kept)) == set().union(*(of[cron] for cron in crons))
    for cron in crons:  # what another covers for all time was left out
        for other in map(parse_cron, kept):
            if not (parsed[cron].minutes & ~other.minutes or parsed[cron].days & ~other.days):
                assert of[cron] <= of[other.text]
                assert parsed[cron].text == other.text or parsed[cron].text not in kept


def test_minimal_crons_of_1000_daily_are_all() -> None:
    crons = {f"{minute % 60} {minute // 60} * * *" for minute in range(1000)}
    assert set(minimal_crons(crons)) == crons
    assert minimal_crons({*crons, "* * * * *"}) == ("* * * * *",)


@pytest.mark.parametrize(
    ("crons", "kept"),
    [
        (["@daily", "@hourly", "*/5 * * * *"], ("*/5 * * * *",)),
        (["7 * * * *", "30 2 * * *"], ("30 2 * * *", "7 * * * *")),
        (["@daily", "@midnight", "0 0 * * *", "00 0  * * *"], ("0 0 * * *",)),
        (
            ["@weekly", "0 0 * * sun", "@monthly", "@yearly", "@annually"],
            ("0 0 * * 0", "0 0 1 * *"),
        ),
        (["0 0 * * mon#1", "0 0 * * mon"], ("0 0 * * mon",)),
        (["0 0 * * mon#1", "0 0 1-7 * *"], ("0 0 1-7 * *",)),
        (["0 0 L * *", "0 0 28-31 * *"], ("0 0 28-31 * *",)),
        (["0 0 L 2 *", "0 0 29 2 *"], ("0 0 L 2 *",)),
        (["0 0,12 * * *", "0 0-11 * * *", "0 12-23 * * *"], ("0 0-11 * * *", "0 12-23 * * *")),
        (["0 0 1 * mon", "0 0 * * mon"], ("0 0 1 * mon",)),
        (["*/7 * * * *", "*/14 * * * *"], ("*/7 * * * *",)),
        (["*/10 * * * *", "*/15 * * * *"], ("*/10 * * * *", "*/15 * * * *")),
    ],
)
def test_minimal_crons_leave_out_covered_ones(crons: list[str], kept: tuple[str, ...]) -> None:
    assert minimal_crons(crons) == kept
    assert minimal_crons(reversed(crons)) == kept


@pytest.mark.parametrize(
    "cron",
    ["", "@reboot", "every day", "61 * * * *", "0 0 * * * 30", "0 0 * *", "0 0 * * mon#1,tue"],
)
def test_invalid_cron_raises_and_names_it(cron: str) -> None:
    with pytest.raises(ConfigurationError, match="five"):
        parse_cron(cron)


@given(
    cron=st.one_of(
        CRONS, st.sampled_from(["30 2 * * *", "0 * * * *", "*/20 1-3 * * *", "0 6 15W * *"])
    ),
    zone=ZONES,
    at=st.one_of(
        st.datetimes(*WITHIN),
        st.builds(
            lambda day, minutes: day + datetime.timedelta(minutes=minutes),
            st.sampled_from(CLOCK_CHANGES),
            st.integers(0, 2000),
        ),
    ),
)
@example("30 2 * * *", "Europe/Berlin", datetime.datetime.fromisoformat("2026-03-29T01:00"))
@example("30 2 * * *", "Europe/Berlin", datetime.datetime.fromisoformat("2026-10-25T01:29"))
@examples(150)
def test_last_tick_at_clock_changes_is_croniter_s(
    cron: str, zone: str | None, at: datetime.datetime
) -> None:
    parsed = parsed_or_assumed_away(cron)
    at = at.replace(second=0, microsecond=0, tzinfo=UTC)

    def next_tick(moment: datetime.datetime) -> float:
        found: float = croniter(cron, moment.astimezone(ZoneInfo(zone or "UTC"))).get_next(float)
        return found

    last = last_tick(parsed, zone, at)
    assert last <= at
    assert next_tick(last - datetime.timedelta(seconds=1)) == last.timestamp()
    assert next_tick(last) > at.timestamp()


@pytest.mark.parametrize(
    ("unit", "start"),
    [
        ("five_minute", "2026-08-13T17:55"),
        ("quarter_hour", "2026-08-13T17:45"),
        ("half_hour", "2026-08-13T17:30"),
        ("hour", "2026-08-13T17:00"),
        ("day", "2026-08-13T00:00"),
        ("month", "2026-08-01T00:00"),
        ("year", "2026-01-01T00:00"),
    ],
)
def test_interval_floor_is_start_of_unit(unit: str, start: str) -> None:
    at = datetime.datetime(2026, 8, 13, 17, 59, 30, 5, tzinfo=UTC)
    assert interval_floor(unit, at) == datetime.datetime.fromisoformat(start).replace(tzinfo=UTC)


def test_unknown_interval_unit_raises() -> None:
    with pytest.raises(ConfigurationError, match="fortnight"):
        interval_floor("fortnight", datetime.datetime.now(UTC))
