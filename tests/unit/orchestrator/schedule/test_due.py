"""What is due, over plain values; and sixty days of it against `sqlmesh run` at every tick."""

import bisect
import datetime
import itertools
import random
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter

from dagster_sqlmesh_pipes.manifest import Model, ModelKind
from dagster_sqlmesh_pipes.schedule.due import (
    DueModel,
    LastMaterialization,
    UpToDateSince,
    find_due,
)
from dagster_sqlmesh_pipes.schedule.models import (
    is_runnable,
    models_behind_signals,
    restatement_crons,
)

UTC = datetime.UTC


def moment(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=UTC)


def model(
    name: str,
    cron: str = "@daily",
    unit: str | None = "day",
    *,
    kind: str = "FULL",
    **attributes: Any,
) -> Model:
    properties = {
        key: attributes.pop(key)
        for key in ("auto_restatement_cron", "disable_restatement")
        if key in attributes
    }
    made = ModelKind(name=kind, **properties)
    return Model(
        fqn=f'"{name}"',
        name=name,
        view_name=name,
        kind=made,
        cron=cron,
        interval_unit=unit,
        **attributes,
    )


def by_fqn(*models: Model) -> dict[str, Model]:
    return {m.fqn: m for m in models}


def due_at(
    at: str,
    *models: Model,
    known: Mapping[str, LastMaterialization] | None = None,
    up_to_date_since: UpToDateSince | None = None,
    **options: Any,
) -> dict[str, str]:
    found = find_due(
        models,
        moment(at),
        up_to_date_since={} if up_to_date_since is None else up_to_date_since,
        last_materializations=lambda _fqns: known or {},
        restatements=restatement_crons(by_fqn(*models)),
        **options,
    )
    return {due.model.name: due.reason for due in found}


def materialized(
    at: str, interval_end: str | None, *, complete: bool = True
) -> dict[str, LastMaterialization]:
    return {
        '"m"': LastMaterialization(
            moment(at), moment(interval_end) if interval_end else None, complete
        )
    }


def test_never_materialized_model_is_due() -> None:
    assert due_at("2026-05-05T00:05", model("m")) == {"m": "never materialized"}


def test_up_to_date_model_is_due_at_next_tick() -> None:
    known = materialized("2026-05-05T00:01", "2026-05-05T00:00")
    assert due_at("2026-05-05T23:55", model("m"), known=known) == {}
    assert due_at("2026-05-06T00:00", model("m"), known=known) == {"m": "behind"}


def test_run_across_a_tick_leaves_model_due() -> None:
    known = materialized("2026-05-05T00:03", "2026-05-04T00:00")
    assert due_at("2026-05-05T00:05", model("m"), known=known) == {"m": "behind"}


def test_model_with_failed_batches_stays_due() -> None:
    known = materialized("2026-05-05T00:03", "2026-05-05T00:00", complete=False)
    assert due_at("2026-05-05T00:05", model("m"), known=known) == {"m": "incomplete"}


def test_noon_cron_releases_yesterday_at_noon() -> None:
    noon, known = model("m", "0 12 * * *"), materialized("2026-05-04T12:01", "2026-05-04T00:00")
    assert due_at("2026-05-05T11:59", noon, known=known) == {}
    assert due_at("2026-05-05T12:00", noon, known=known) == {"m": "behind"}


def test_materialization_without_interval_counts_by_time() -> None:
    known = materialized("2026-05-05T00:03", None)
    assert due_at("2026-05-05T12:00", model("m"), known=known) == {}
    assert due_at("2026-05-06T00:00", model("m"), known=known) == {"m": "behind"}


def test_model_with_partials_is_due_at_each_tick() -> None:
    known = materialized("2026-05-05T12:01", "2026-05-05T12:00")
    whole, partial = (
        model("m", "@hourly", "day", allow_partials=allowed) for allowed in (False, True)
    )
    assert due_at("2026-05-05T13:00", whole, known=known) == {}
    assert due_at("2026-05-05T12:55", partial, known=known) == {}
    assert due_at("2026-05-05T13:00", partial, known=known) == {"m": "behind"}


def test_ended_model_is_not_due() -> None:
    ended = model("m", end="2026-05-04")
    assert (
        due_at(
            "2026-06-01T00:00", ended, known=materialized("2026-05-05T00:01", "2026-05-05T00:00")
        )
        == {}
    )
    assert due_at(
        "2026-06-01T00:00", ended, known=materialized("2026-05-04T00:01", "2026-05-04T00:00")
    ) == {"m": "behind"}


def test_end_as_phrase_is_ignored() -> None:
    assert due_at(
        "2026-06-01T00:00",
        model("m", end="1 week ago"),
        known=materialized("2026-05-05T00:01", "2026-05-05T00:00"),
    ) == {"m": "behind"}


def test_ignore_cron_makes_whole_intervals_due() -> None:
    hourly = model("m", "@daily", "hour")
    known = materialized("2026-05-05T00:01", "2026-05-05T00:00")
    assert due_at("2026-05-05T00:55", hourly, known=known, ignore_cron=True) == {}
    assert due_at("2026-05-05T01:00", hourly, known=known) == {}
    assert due_at("2026-05-05T01:00", hourly, known=known, ignore_cron=True) == {"m": "behind"}


@pytest.mark.parametrize(
    ("kind", "is_materialized"), [("SEED", True), ("EXTERNAL", False), ("EMBEDDED", False)]
)
def test_kind_that_no_run_executes_is_not_runnable(kind: str, *, is_materialized: bool) -> None:
    assert not is_runnable(model("m", kind=kind, materialized=is_materialized))
    assert is_runnable(model("m", kind="VIEW"))


def test_up_to_date_model_is_not_looked_up_again() -> None:
    up_to_date_since: UpToDateSince = {}
    assert (
        due_at(
            "2026-05-05T00:05",
            model("m"),
            known=materialized("2026-05-05T00:01", "2026-05-05T00:00"),
            up_to_date_since=up_to_date_since,
        )
        == {}
    )
    assert due_at("2026-05-05T00:10", model("m"), up_to_date_since=up_to_date_since) == {}
    assert due_at("2026-05-06T00:00", model("m"), up_to_date_since=up_to_date_since) == {
        "m": "never materialized"
    }


@pytest.mark.parametrize("cron", ["@daily", "0 12 * * *"])
def test_up_to_date_after_its_end_is_never_looked_up(cron: str) -> None:
    ended = model("m", cron, end="2026-05-04")
    assert (
        due_at("2026-06-01T00:00", ended, up_to_date_since={ended.fqn: moment("2026-05-05T12:05")})
        == {}
    )
    assert due_at(
        "2026-06-01T00:00", ended, up_to_date_since={ended.fqn: moment("2026-05-04T12:05")}
    ) == {"m": "never materialized"}


def test_repeated_hour_makes_model_due_twice() -> None:
    """SQLMesh's `cron_floor` lags behind there: the first tick may have found nothing."""
    twice = model("m", "30 2 * * *", cron_tz="Europe/Berlin")
    up_to_date_since = {twice.fqn: moment("2026-10-25T00:31")}
    assert due_at("2026-10-25T01:00", twice, up_to_date_since=up_to_date_since) == {}
    assert due_at("2026-10-25T01:30", twice, up_to_date_since=up_to_date_since) == {
        "m": "never materialized"
    }


def test_models_behind_signals_include_downstream() -> None:
    models = [
        model("late", signals=("arrived",)),
        model("inlined", kind="EMBEDDED", depends_on=('"late"',)),
        model("other"),
    ]
    assert models_behind_signals(
        by_fqn(*models, model("after", depends_on=('"inlined"', '"other"')))
    ) == {
        '"late"',
        '"inlined"',
        '"after"',
    }


def test_restatement_cron_makes_model_and_downstream_due() -> None:
    models = [
        model("m", auto_restatement_cron="0 3 * * *"),
        model("after", depends_on=('"m"',)),
        model("kept", depends_on=('"after"',), disable_restatement=True),
        model("after_kept", depends_on=('"kept"',)),
    ]
    known = {m.fqn: materialized("2026-05-05T00:01", "2026-05-05T00:00")['"m"'] for m in models}
    assert due_at("2026-05-05T02:55", *models, known=known) == {}
    assert due_at("2026-05-05T03:00", *models, known=known) == {
        "m": "restated",
        "after": "restated",
    }
    up_to_date_since = {m.fqn: moment("2026-05-05T03:01") for m in models}
    assert due_at("2026-05-05T23:55", *models, known=known, up_to_date_since=up_to_date_since) == {}


def test_removed_intervals_make_model_due_until_recorded() -> None:
    known = materialized("2026-05-05T00:01", "2026-05-05T00:00")
    removed_at = {'"m"': moment("2026-05-05T10:02")}
    up_to_date = {'"m"': moment("2026-05-05T00:05")}
    due = due_at(
        "2026-05-05T10:05",
        model("m"),
        known=known,
        up_to_date_since=up_to_date,
        removed_at=removed_at,
    )
    assert due == {"m": "restated"}
    again = materialized("2026-05-05T10:06", "2026-05-05T00:00")
    assert due_at("2026-05-05T10:10", model("m"), known=again, removed_at=removed_at) == {}


def test_punctual_tick_skips_lookup_of_ticking_models() -> None:
    def never(_fqns: Collection[str]) -> Mapping[str, LastMaterialization]:
        raise AssertionError

    at = moment("2026-05-05T00:00")
    (found,) = find_due(
        [model("m")],
        at,
        up_to_date_since={},
        last_materializations=never,
        restatements={},
        is_punctual=True,
    )
    assert found.reason == "ticked"


def test_punctual_tick_without_whole_interval_is_not_due() -> None:
    known = materialized("2026-05-05T00:01", "2026-05-05T00:00")
    assert due_at("2026-05-05T13:00", model("m", "@hourly"), known=known, is_punctual=True) == {}


# The sixty days.

START, DAYS = moment("2026-09-20T00:00"), 60  # over the end of summer time in Berlin

MODELS = [
    model("raw", "*/30 * * * *", "half_hour"),
    model("hourly", "@hourly", "hour", depends_on=('"raw"',)),
    model("view", "@hourly", "hour", kind="VIEW", depends_on=('"hourly"',)),
    model("daily", "@daily", "day", depends_on=('"hourly"',)),
    model("at_noon", "0 12 * * *", "day", depends_on=('"daily"',)),
    model("berlin", "0 6 * * *", "day", cron_tz="Europe/Berlin", depends_on=('"daily"',)),
    model("weekly", "@weekly", "day", depends_on=('"daily"',)),
    model("monthly", "0 4 1 * *", "month", depends_on=('"daily"',)),
    model("late", "@daily", "day", signals=("arrived",), depends_on=('"raw"',)),
    model("after_late", "@daily", "day", depends_on=('"late"', '"hourly"')),
    model("restated", "@daily", "day", auto_restatement_cron="0 */7 * * *", depends_on=('"raw"',)),
    model("after_restated", "0 12 * * *", "day", depends_on=('"restated"',)),
    model("ended", "@daily", "day", end="2026-10-01"),
]

RESTATED, RESTATED_DAYS = {'"restated"', '"after_restated"'}, datetime.timedelta(days=2)

Evaluated = set[tuple[str, datetime.datetime, datetime.datetime]]
"""Model, and the interval that was recorded."""


@dataclass
class SQLMeshSimulator:
    """SQLMesh's rule of missing intervals, and runs by it, written apart from what is tested.

    Each model has one recorded interval, up to `recorded`: batches run in order and stop at a
    failure.
    """

    seed: int
    recorded: dict[str, datetime.datetime]
    last: dict[str, LastMaterialization] = field(default_factory=dict)
    """What a runner would have reported to Dagster."""
    restated: datetime.datetime = START

    def run(
        self, now: datetime.datetime, selected: Collection[str] | None
    ) -> tuple[Evaluated, set[str]]:
        """Evaluate what the selected models lack; return that, and the unfinished models."""
        self._restate(now)
        evaluated: Evaluated = set()
        failed: set[str] = set()
        unready: dict[str, datetime.datetime] = {}  # from when on
        for m in MODELS:  # in topological order
            if selected is not None and m.fqn not in selected:
                continue
            missing = list(self._missing(m, now))
            held_from = [unready[upstream] for upstream in m.depends_on if upstream in unready]
            if missing and m.signals and not self._signal_is_ready(now):
                held_from.append(missing[0][0])
            if held_from:
                unready[m.fqn] = min(held_from)
                missing = [(low, high) for low, high in missing if high <= unready[m.fqn]]
            if not missing:
                continue
            if failed & set(m.depends_on):
                failed.add(m.fqn)  # skipped, and so is what depends on it
                continue
            done = missing[: self._batches_before_failure(m, now)]
            if len(done) < len(missing):
                failed.add(m.fqn)
            if done:
                evaluated |= {(m.name, *interval) for interval in done}
                self.recorded[m.fqn] = done[-1][1]
                self.last[m.fqn] = LastMaterialization(
                    now, done[-1][1], is_complete=len(done) == len(missing)
                )
        return evaluated, failed

    def _restate(self, now: datetime.datetime) -> None:
        """Take intervals back if the cron has ticked since the last run, whatever is selected."""
        ticks = TICKS["0 */7 * * *", None]
        tick = ticks[bisect.bisect_right(ticks, now) - 1]
        if tick > self.restated:
            for fqn in RESTATED:
                today = now.replace(hour=0, minute=0, second=0, microsecond=0)
                self.recorded[fqn] = min(self.recorded[fqn], today - RESTATED_DAYS)
        self.restated = now

    def last_of(self, fqns: Collection[str]) -> Mapping[str, LastMaterialization]:
        return {fqn: self.last[fqn] for fqn in fqns if fqn in self.last}

    def _missing(
        self, m: Model, now: datetime.datetime
    ) -> Iterator[tuple[datetime.datetime, datetime.datetime]]:
        ticks = TICKS[m.cron, m.cron_tz]
        floor = ticks[bisect.bisect_right(ticks, now) - 1]
        low = self.recorded[m.fqn]
        while (high := _one_later(low, m.interval_unit)) <= floor and not (
            m.name == "ended" and low >= moment("2026-10-02")
        ):
            yield low, high
            low = high

    def _signal_is_ready(self, now: datetime.datetime) -> bool:
        return now.hour >= 3 + now.day % 5

    def _batches_before_failure(self, m: Model, now: datetime.datetime) -> int | None:
        chance = random.Random(f"{self.seed} {m.name} {now.isoformat()}")
        broken_for_two_days = m.name == "daily" and moment("2026-10-10") <= now < moment(
            "2026-10-12"
        )
        return chance.randrange(3) if broken_for_two_days or chance.random() < 0.03 else None


def _one_later(low: datetime.datetime, unit: str | None) -> datetime.datetime:
    if unit == "month":
        return (low + datetime.timedelta(days=31)).replace(day=1)
    return low + {
        "half_hour": datetime.timedelta(minutes=30),
        "hour": datetime.timedelta(hours=1),
    }.get(str(unit), datetime.timedelta(days=1))


def _ticks_of(cron: str, zone: str | None) -> list[datetime.datetime]:
    local = ZoneInfo(zone or "UTC")
    ticks = [(START - datetime.timedelta(days=40)).astimezone(local)]
    while ticks[-1] < START + datetime.timedelta(days=DAYS + 1):
        ticks.append(
            datetime.datetime.fromtimestamp(croniter(cron, ticks[-1]).get_next(float), local)
        )
    return [tick.astimezone(UTC) for tick in ticks[1:]]


TICKS = {
    (m.cron, m.cron_tz): _ticks_of(m.cron, m.cron_tz)
    for m in [*MODELS, model("restatements", "0 */7 * * *")]
}


EVERY_TICK = sorted(
    {
        tick
        for ticks in TICKS.values()
        for tick in ticks
        if START < tick < START + datetime.timedelta(days=DAYS)
    }
)


def _planned() -> dict[str, datetime.datetime]:
    """Start where `sqlmesh plan` left everything: up to date, and Dagster knows nothing of it."""
    months = {
        m.fqn: moment("2026-09-01")
        if m.interval_unit == "month"
        else START - datetime.timedelta(days=1)
        for m in MODELS
    }
    return months | {'"weekly"': moment("2026-09-20")}


@dataclass
class Daemon:
    """Tick as Dagster does: not while it is down, and not while a run is at work."""

    seed: int

    def __iter__(self) -> Iterator[tuple[datetime.datetime, bool]]:
        """Yield the ticks that Dagster evaluates, and whether the code server restarted before."""
        chance = random.Random(self.seed)
        back = free = START
        for tick, following in itertools.pairwise(EVERY_TICK):
            if chance.random() < 0.002:  # the daemon goes down
                back = tick + datetime.timedelta(hours=chance.choice([1, 5, 30, 80]))
            # The latest of the ticks missed is the one that is evaluated afterwards.
            if following > back and tick >= free:
                yield tick, chance.random() < 0.01
                free = tick + datetime.timedelta(
                    minutes=chance.choice([1, 1, 1, 1, 20, 70])
                )  # how long the run takes


@pytest.mark.parametrize("seed", [1, 2])
def test_60_days_of_due_models_match_sqlmesh_run(
    seed: int,
) -> None:
    whole, due_only = SQLMeshSimulator(seed, _planned()), SQLMeshSimulator(seed, _planned())
    up_to_date_since: UpToDateSince = {}
    signalled, restatements = (
        models_behind_signals(by_fqn(*MODELS)),
        restatement_crons(by_fqn(*MODELS)),
    )
    ticks = evaluated_in_all = asked_in_all = failed_runs = 0
    for tick, restarted in Daemon(seed):
        if restarted:
            up_to_date_since.clear()
        due: list[DueModel] = find_due(
            MODELS,
            tick,
            up_to_date_since=up_to_date_since,
            last_materializations=due_only.last_of,
            restatements=restatements,
            is_punctual=tick.minute == 0,
        )
        asked = {found.model.fqn for found in due}
        evaluated, failed = due_only.run(tick, asked)
        assert (evaluated, failed) == whole.run(tick, None), tick
        up_to_date_since.update(dict.fromkeys(asked - failed - signalled, tick))
        ticks += 1
        evaluated_in_all += len({name for name, _, _ in evaluated})
        asked_in_all += len(due)
        failed_runs += bool(failed)
    assert due_only.recorded == whole.recorded
    assert failed_runs > 50
    # Models are requested in vain only while they or their upstream fail, while a signal is not
    # ready, or until Dagster has seen them.
    assert ticks * len(MODELS) > 3 * asked_in_all > 3 * evaluated_in_all > ticks
