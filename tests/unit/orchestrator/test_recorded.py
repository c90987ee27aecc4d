"""What is news to Dagster in what SQLMesh recorded."""

from typing import Any

import dagster as dg
import pytest

from dagster_sqlmesh_pipes.run.recorded import RecordedModel, data_version_of, is_news

ORDERS: dict[str, Any] = {
    "model": '"shop"."marts"."orders"',
    "version": "153",
    "fingerprint": "153_2_0_0",
    "physical_table": "shop.sqlmesh__marts.marts__orders__153",
    "interval_start": "2026-01-01T00:00:00+00:00",
    "interval_end": "2026-01-05T00:00:00+00:00",
    "gaps": 0,
    "complete": True,
    "recorded_at": "2026-01-05T00:10:12.345000+00:00",
    "data_version": "153:1767571200000:1767571812345",
}


def recorded(**changes: Any) -> RecordedModel:
    return RecordedModel.model_validate({**ORDERS, **changes})


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (None, True),
        ("153:1767571200000:1767571812345", False),
        ("153:1767571200000:1767571812344", True),
        ("153:1767484800000:1767571812344", True),
        # By a clock that is behind the one of the recording before.
        ("153:1767484800000:1767571812346", True),
        ("152:1767571200000:1767571812345", True),
        ("somebody-elses", True),
        # The state was compacted, or intervals were removed: nothing was recorded since.
        ("153:1767571200000:1767571812346", False),
        ("153:1767657600000:1767571812346", False),
    ],
)
def test_recording_is_news_if_version_end_or_time_is_newer(
    known: str | None, *, expected: bool
) -> None:
    assert is_news(recorded(), known) is expected


def test_model_without_recording_is_no_news() -> None:
    nothing = dict.fromkeys(["interval_start", "interval_end", "recorded_at", "data_version"])
    assert not is_news(recorded(**nothing), None)


def test_materialization_keeps_data_version_and_sqlmesh_s_time() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        key = dg.AssetKey(["shop", "marts", "orders"])
        instance.report_runless_asset_event(
            recorded().materialization(key, environment="prod", plan_id="7")
        )
        (record,) = instance.get_asset_records([key])
    event = record.asset_entry.last_materialization
    assert data_version_of(event) == ORDERS["data_version"]
    assert event is not None
    assert event.asset_materialization is not None
    metadata = event.asset_materialization.metadata
    assert metadata["sqlmesh/recorded_by"].value == "outside"
    assert metadata["sqlmesh/recorded_at"].value == pytest.approx(1767571812.345)
    assert metadata["sqlmesh/interval_end"].value == 1767571200
    assert metadata["sqlmesh/complete"].value is True
