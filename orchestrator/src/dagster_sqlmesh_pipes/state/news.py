"""The difference between SQLMesh's state and what Dagster knows, as events for Dagster."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from dagster_sqlmesh_pipes.contract import (
    COMPLETE_KEY,
    ENVIRONMENT_KEY,
    GAPS_KEY,
    RECORDED_BEGIN_KEY,
)
from dagster_sqlmesh_pipes.run.recorded import (
    DataVersion,
    RecordedModel,
    data_version_of,
    is_news,
)
from dagster_sqlmesh_pipes.run.removals import Removal
from dagster_sqlmesh_pipes.state.reading import RecordedState

__all__ = ["News", "compare"]

Event = dg.AssetMaterialization | dg.AssetObservation


@dataclass
class News:
    """What Dagster does not know yet."""

    events: list[Event] = field(default_factory=list)
    """A materialization for each recording, and an observation for each removal of intervals."""
    removals: list[Removal] = field(default_factory=list)
    """The removals, in the order of their observations."""
    obsolete: list[Removal] = field(default_factory=list)
    """Earlier removals that are recorded again, or followed by another removal."""


def compare(
    state: RecordedState,
    asset_keys: Mapping[str, dg.AssetKey],
    instance: dg.DagsterInstance,
    removals: Mapping[str, Removal],
    *,
    max_events: int,
) -> tuple[News, int]:
    """Return the news of some models in topological order, and how many events are left out.

    It takes one query of the instance.

    Args:
        state: SQLMesh's state.
        asset_keys: the assets to report on, by their model's FQN.
        instance: Dagster's instance.
        removals: those that were reported before, by FQN.
        max_events: the limit.
    """
    shown = [model for model in state.models if model.model in asset_keys]
    records = instance.get_asset_records([asset_keys[model.model] for model in shown])
    last = {
        record.asset_entry.asset_key: record.asset_entry.last_materialization for record in records
    }
    now = datetime.datetime.now(datetime.UTC)
    news, left = News(), 0
    for model in shown:
        key = asset_keys[model.model]
        known = _Known.of(last.get(key), state.environment)
        event = _event(model, key, state, known, removals.get(model.model))
        if event is not None and len(news.events) == max_events:
            left += 1
            continue
        _add(
            news,
            model,
            event,
            removals.get(model.model),
            is_removed=_has_less(model, known),
            now=now,
        )
    return news, left


def _add(
    news: News,
    model: RecordedModel,
    event: Event | None,
    removal: Removal | None,
    *,
    is_removed: bool,
    now: datetime.datetime,
) -> None:
    if event is not None:
        news.events.append(event)
    if isinstance(event, dg.AssetObservation):
        news.removals.append(Removal.of(model, now))
    if removal is not None and (event is not None or not is_removed):
        news.obsolete.append(removal)


@dataclass(frozen=True)
class _Known:
    """A model's last materialization in Dagster."""

    data_version: str | None
    begin: float | None
    """Of all that is recorded, in seconds since the epoch; None if the event does not have it."""
    gaps: int
    is_complete: bool

    @classmethod
    def of(cls, entry: dg.EventLogEntry | None, environment: str) -> "_Known | None":
        event = entry.asset_materialization if entry else None
        if event is None:
            return None
        metadata: Mapping[str, Any] = {name: each.value for name, each in event.metadata.items()}
        if metadata.get(ENVIRONMENT_KEY, environment) != environment:
            return None
        return cls(
            data_version=data_version_of(entry),
            begin=metadata.get(RECORDED_BEGIN_KEY),
            gaps=metadata.get(GAPS_KEY, 0),
            is_complete=metadata.get(COMPLETE_KEY, True),
        )


def _event(
    recorded: RecordedModel,
    key: dg.AssetKey,
    state: RecordedState,
    known: _Known | None,
    removal: Removal | None,
) -> Event | None:
    if is_news(recorded, known.data_version if known else None):
        return recorded.materialization(key, environment=state.environment, plan_id=state.plan_id)
    if not _has_less(recorded, known) or (removal and removal.shows(recorded)):
        return None
    metadata = recorded.metadata(environment=state.environment, plan_id=state.plan_id)
    return dg.AssetObservation(
        key,
        description="Intervals were removed from SQLMesh's state and are not recorded again.",
        metadata={**metadata, COMPLETE_KEY: False},
    )


def _has_less(recorded: RecordedModel, known: _Known | None) -> bool:
    """Return whether the state has fewer intervals than Dagster's last materialization says."""
    if known is None:
        return False
    if recorded.data_version is None or recorded.gaps > known.gaps:
        return True
    if recorded.pending_restatement and known.is_complete:
        return True
    return _begins_later(recorded, known) or _ends_earlier(recorded, known)


def _begins_later(recorded: RecordedModel, known: _Known) -> bool:
    now, before = recorded.interval_start, known.begin
    return now is not None and before is not None and now.timestamp() > before


def _ends_earlier(recorded: RecordedModel, known: _Known) -> bool:
    now = DataVersion.parse(recorded.data_version or "")
    before = DataVersion.parse(known.data_version or "")
    return now is not None and before is not None and now.end < before.end
