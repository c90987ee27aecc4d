"""What SQLMesh's state has recorded of a model, and whether that is news to Dagster.

The runner reports it in a run (`models_recorded`) and without one (`sqlmesh-runner state`); see
docs/reference/state.md.
"""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import dagster as dg
from pydantic import BaseModel, ConfigDict

from dagster_sqlmesh_pipes.contract import (
    COMPLETE_KEY,
    ENVIRONMENT_KEY,
    FINGERPRINT_KEY,
    GAPS_KEY,
    INTERVAL_END_KEY,
    INTERVAL_START_KEY,
    MODEL_KEY,
    PHYSICAL_TABLE_KEY,
    PLAN_ID_KEY,
    RECORDED_AT_KEY,
    RECORDED_BEGIN_KEY,
    RECORDED_BY_KEY,
    RECORDED_END_KEY,
)

__all__ = ["DataVersion", "RecordedModel", "data_version_of", "describe_recording", "is_news"]

_DATA_VERSION_TAG = "dagster/data_version"


class RecordedModel(BaseModel):
    """A model in SQLMesh's state. Where nothing is recorded, the last four are None."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str
    version: str
    fingerprint: str
    physical_table: str | None
    gaps: int
    complete: bool
    """There is no gap, and no restatement is pending."""
    pending_restatement: bool = False
    """A plan removed intervals that are not filled again yet."""
    interval_start: datetime.datetime | None
    interval_end: datetime.datetime | None
    recorded_at: datetime.datetime | None
    data_version: str | None

    def metadata(self, *, environment: str, plan_id: str) -> Mapping[str, dg.MetadataValue[Any]]:
        """Return the metadata of a materialization or observation of what is recorded."""
        values = {
            MODEL_KEY: self.model,
            ENVIRONMENT_KEY: environment,
            RECORDED_BY_KEY: "outside",
            RECORDED_AT_KEY: self.recorded_at,
            INTERVAL_START_KEY: self.interval_start,
            INTERVAL_END_KEY: self.interval_end,
            RECORDED_BEGIN_KEY: self.interval_start,
            RECORDED_END_KEY: self.interval_end,
            GAPS_KEY: self.gaps,
            COMPLETE_KEY: self.complete,
            PHYSICAL_TABLE_KEY: self.physical_table,
            PLAN_ID_KEY: plan_id,
            FINGERPRINT_KEY: self.fingerprint,
        }
        return {key: _metadata_value(value) for key, value in values.items() if value is not None}

    def materialization(
        self, key: dg.AssetKey, *, environment: str, plan_id: str
    ) -> dg.AssetMaterialization:
        """Return the event that makes this known to Dagster."""
        assert self.data_version is not None
        metadata = self.metadata(environment=environment, plan_id=plan_id)
        return dg.AssetMaterialization(
            key,
            description=describe_recording(metadata),
            metadata=metadata,
            tags={
                _DATA_VERSION_TAG: self.data_version,
                "dagster/data_version_is_user_provided": "true",
            },
        )


def _metadata_value(value: str | int | datetime.datetime) -> dg.MetadataValue[Any]:
    match value:
        case bool():
            return dg.MetadataValue.bool(value)
        case int():
            return dg.MetadataValue.int(value)
        case str():
            return dg.MetadataValue.text(value)
    return dg.MetadataValue.timestamp(value)


def describe_recording(metadata: Mapping[str, Any]) -> str | None:
    """Return what a materialization that no run made is, by its metadata; None for others."""
    if RECORDED_BY_KEY not in metadata:
        return None
    recorded_at = metadata.get(RECORDED_AT_KEY)
    if recorded_at is None:
        return "Recorded by SQLMesh outside of Dagster."
    at = datetime.datetime.fromtimestamp(recorded_at.value, datetime.UTC)
    return f"Recorded by SQLMesh outside of Dagster, on {at:%Y-%m-%d at %H:%M:%S} UTC."


@dataclass(frozen=True)
class DataVersion:
    """A data version as the runner writes it: `version:end:recorded_at`, times in epoch ms."""

    version: str
    end: int
    recorded_at: int

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the parts; None if the text is not the runner's."""
        version, *times = text.rsplit(":", 2)
        if len(times) != len(("end", "recorded_at")) or not all(time.isdigit() for time in times):
            return None
        end, recorded_at = times
        return cls(version, int(end), int(recorded_at))


def data_version_of(event: dg.EventLogEntry | None) -> str | None:
    """Return the data version of a materialization's event."""
    materialization = event.asset_materialization if event else None
    return (materialization.tags or {}).get(_DATA_VERSION_TAG) if materialization else None


def is_news(recorded: RecordedModel, known: str | None) -> bool:
    """Return whether something was recorded after `known`, Dagster's last data version.

    Where only intervals were removed, what is left is older, and not news. A later end is news even
    if its time is not newer: clocks of machines differ, and may be set back.
    """
    if recorded.data_version is None or recorded.data_version == known:
        return False
    now = DataVersion.parse(recorded.data_version)
    before = DataVersion.parse(known) if known else None
    if now is None or before is None or now.version != before.version:
        return True
    return now.recorded_at > before.recorded_at or now.end > before.end
