"""The planned ticks, as Dagster's daemon evaluates them, against croniter's."""

import datetime
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter

# Dagster's daemon finds a schedule's ticks with this; there is no public name for it.
from dagster._utils.schedules import cron_string_iterator, is_valid_cron_schedule
from hypothesis import example, given
from hypothesis import strategies as st
from profiles import examples

from dagster_sqlmesh_pipes.schedule.ticks import TickPlan, plan_ticks

UTC = datetime.UTC
Crons = list[tuple[str, str | None]]

ZONES = [
    None,
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Asia/Tokyo",
    "Australia/Lord_Howe",
    "Pacific/Auckland",
]
TIMES = ["0 0", "30 2", "0 2", "15 1,2,3", "0 6", "59 23", "0 */6", "20 *"]
DAYS = ["* * *", "* * sun", "1 * *", "L * *", "* * mon#1", "29 2 *", "15 * fri"]

# Clocks change in these windows (spring and autumn of both hemispheres); a leap day, a new year.
WINDOWS = [
    ("2026-03-25", "2026-04-08"),
    ("2026-09-25", "2026-10-07"),
    ("2026-10-23", "2026-11-04"),
    ("2028-02-26", "2028-03-14"),
    ("2026-12-28", "2027-01-04"),
]


def moment(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=UTC)


def dagster_ticks(
    plan: TickPlan, start: datetime.datetime, end: datetime.datetime
) -> set[datetime.datetime]:
    found = set()
    for cron in plan.cron_schedule:
        for tick in cron_string_iterator(start.timestamp(), cron, plan.timezone):
            if tick >= end:
                break
            found.add(tick.astimezone(UTC))
    return found


def model_ticks(
    crons: Crons, start: datetime.datetime, end: datetime.datetime
) -> set[datetime.datetime]:
    found = set()
    for cron, name in crons:
        zone = ZoneInfo(name or "UTC")
        tick = datetime.datetime.fromtimestamp(start.timestamp() - 1, zone)
        while (
            tick := datetime.datetime.fromtimestamp(croniter(cron, tick).get_next(float), zone)
        ) < end:
            found.add(tick.astimezone(UTC))
    return found


@given(
    crons=st.lists(
        st.tuples(
            st.builds(lambda t, d: f"{t} {d}", st.sampled_from(TIMES), st.sampled_from(DAYS)),
            st.sampled_from(ZONES),
        ),
        min_size=1,
        max_size=3,
    ),
    window=st.sampled_from(WINDOWS),
)
@example([("30 2 * * *", "Europe/Berlin")], WINDOWS[0])
@example([("30 2 * * sun", "Europe/Berlin"), ("0 */6 29 2 *", None)], WINDOWS[2])
@example([("15 1,2,3 * * *", "Australia/Lord_Howe"), ("0 0 L * *", "America/New_York")], WINDOWS[1])
@example([("0 0 29 2 *", "Pacific/Auckland"), ("59 23 * * mon#1", "America/New_York")], WINDOWS[3])
@examples(40)
def test_planned_ticks_include_every_model_tick(crons: Crons, window: tuple[str, str]) -> None:
    start, end = moment(window[0]), moment(window[1])
    plan = plan_ticks(crons)
    assert is_valid_cron_schedule(list(plan.cron_schedule))
    assert dagster_ticks(plan, start, end) >= model_ticks(crons, start, end)


def test_ten_years_of_ticks_in_one_zone_are_exact() -> None:
    crons: Crons = [
        ("0 6 * * *", "Europe/Berlin"),
        ("30 9 29 2 *", "Europe/Berlin"),
        ("0 6 L * *", "Europe/Berlin"),
    ]
    plan = plan_ticks(crons)
    assert dagster_ticks(plan, moment("2020-01-01"), moment("2030-01-01")) == model_ticks(
        crons, moment("2020-01-01"), moment("2030-01-01")
    )


@pytest.mark.parametrize(
    ("crons", "schedule", "timezone"),
    [
        ([("@daily", None), ("@hourly", None), ("*/5 * * * *", None)], ("*/5 * * * *",), "UTC"),
        ([("7 * * * *", None), ("30 2 * * *", None)], ("30 2 * * *", "7 * * * *"), "UTC"),
        ([("0 6 * * *", "Europe/Berlin")], ("0 6 * * *",), "Europe/Berlin"),
        # An hourly cron ticks alike in UTC and Berlin: all is said in Berlin's time.
        ([("0 6 * * *", "Europe/Berlin"), ("@hourly", None)], ("0 * * * *",), "Europe/Berlin"),
        # Fixed offsets are translated exactly, also over midnight.
        (
            [("0 6 * * mon", "Asia/Tokyo"), ("0 12 * * *", None)],
            ("0 12 * * *", "0 21 * * 0"),
            "UTC",
        ),
        # Midnight in Berlin is 22:00 or 23:00 in UTC: both.
        (
            [("0 0 * * *", "Europe/Berlin"), ("0 12 * * *", None)],
            ("0 12 * * *", "0 22 * * *", "0 23 * * *"),
            "UTC",
        ),
        # 2:30 is repeated in autumn: SQLMesh's croniter ticks both times, Dagster the second time.
        (
            [("30 2 * * *", "Europe/Berlin")],
            ("0 1 * * *", "0 2 * * *", "30 0 * * *", "30 1 * * *"),
            "UTC",
        ),
        # Dagster's croniter does not know W.
        ([("0 6 15W * *", None)], ("0 6 * * *",), "UTC"),
    ],
)
def test_plan_has_fewest_crons_in_one_zone(
    crons: Crons, schedule: tuple[str, ...], timezone: str
) -> None:
    plan = plan_ticks(crons)
    assert (plan.cron_schedule, plan.timezone) == (schedule, timezone)


def test_next_after_is_the_schedule_s_next_tick() -> None:
    plan = plan_ticks([("0 6 * * *", "Europe/Berlin"), ("0 12 * * mon", "Europe/Berlin")])
    assert plan.next_after(moment("2026-07-01T03:59")) == moment("2026-07-01T04:00")
    assert plan.next_after(moment("2026-07-01T04:00")) == moment("2026-07-02T04:00")
    assert plan.next_after(moment("2026-07-06T04:00")) == moment("2026-07-06T10:00")
