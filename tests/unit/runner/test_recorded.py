"""What follows from a model's recorded intervals."""

from typing import Any

from sqlmesh_runner.recording.events import as_json
from sqlmesh_runner.recording.recorded import RecordedModel

DAY = 86_400_000


def recorded(*days: tuple[int, int], **more: Any) -> RecordedModel:
    return RecordedModel(
        **{
            "model": "m",
            "version": "1",
            "fingerprint": "2",
            "physical_table": "t",
            "intervals": [(start * DAY, end * DAY) for start, end in days],
            "recorded_at": 5,
            **more,
        }
    )


def test_contiguous_intervals_are_complete() -> None:
    model = recorded((0, 1), (1, 3))

    assert (model.gaps, model.complete) == (0, True)
    assert model.data_version == f"1:{3 * DAY}:5"


def test_gaps_are_counted_and_incomplete() -> None:
    assert (recorded((0, 1), (2, 3), (5, 6)).gaps, recorded((0, 1), (2, 3)).complete) == (2, False)


def test_pending_restatement_is_incomplete() -> None:
    assert not recorded((0, 1), pending_restatement=True).complete


def test_nothing_recorded_has_no_times_and_no_data_version() -> None:
    payload = as_json(recorded(recorded_at=None).payload())

    nothing = ("interval_start", "interval_end", "recorded_at", "data_version")
    assert [payload[key] for key in nothing] == [None] * 4
    assert payload["complete"] is False


def test_unknown_time_of_recording_is_never_newer() -> None:
    assert recorded((0, 1), recorded_at=None).data_version == f"1:{DAY}:0"
