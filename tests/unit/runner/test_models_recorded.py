"""Before its first result, a run reports what is recorded of the models that it leaves alone."""

from collections.abc import Collection, Mapping
from typing import Any

from unit.runner.fakes import DAY, FakeSnapshot, days
from unit.runner.test_recorder import Run

from sqlmesh_runner.recording.recorded import RecordedModel

SOURCE = FakeSnapshot("z_source")
EMBEDDED = FakeSnapshot("embedded", [SOURCE], is_symbolic=True)
READER = FakeSnapshot("a_reader", [EMBEDDED])
LEAF = FakeSnapshot("leaf", [READER])
ALL = (SOURCE, EMBEDDED, READER, LEAF)


def recorded_of(snapshots: Collection[Any], *, at: int = 7) -> Mapping[str, RecordedModel]:
    return {
        snapshot.name: RecordedModel(
            model=snapshot.name,
            version=snapshot.version,
            fingerprint="f",
            physical_table="t",
            intervals=days(3),
            recorded_at=at,
        )
        for snapshot in snapshots
    }


def reported(run: Run) -> dict[str, bool]:
    """Return the models, in order, and whether something that they read has batches."""
    return {
        entry["model"]: entry["upstream_runs"]
        for event in run.sink.of("models_recorded")
        for entry in event.payload()["models"]
    }


def test_models_without_batches_keep_topological_order() -> None:
    run = Run(*ALL, adopt=True, recorded_of=recorded_of)

    run.recorder.evaluation_started({})

    assert list(reported(run).items()) == [
        ("z_source", False),
        ("a_reader", False),
        ("leaf", False),
    ]


def test_reader_of_a_model_with_batches_is_marked() -> None:
    run = Run(*ALL, adopt=True, recorded_of=recorded_of)

    run.recorder.evaluation_started({SOURCE: days(1)})

    # The leaf reads a model that stays as it is.
    assert reported(run) == {"a_reader": True, "leaf": False}


def test_model_held_back_by_a_signal_is_reported() -> None:
    run = Run(*ALL, adopt=True, recorded_of=recorded_of)

    run.recorder.evaluation_started({SOURCE: [], READER: days(1), LEAF: days(1)})

    assert reported(run) == {"z_source": False}


def test_nothing_to_do_reports_all_selected_models() -> None:
    selected = frozenset({"leaf", "embedded"})
    run = Run(*ALL, adopt=True, recorded_of=recorded_of, selected=selected)

    run.recorder.evaluation_ended("nothing_to_do")

    assert reported(run) == {"leaf": False}
    assert run.recorder.error is None


def test_restarted_run_does_not_report_again() -> None:
    run = Run(SOURCE, adopt=True, recorded_of=recorded_of)

    run.recorder.evaluation_started({})
    run.recorder.evaluation_started({})

    assert len(run.sink.of("models_recorded")) == 1


def test_many_models_are_reported_in_several_events() -> None:
    models = [FakeSnapshot(f"m{number:03}") for number in range(401)]
    run = Run(*models, adopt=True, recorded_of=recorded_of)

    run.recorder.evaluation_started({})

    assert [len(event.models) for event in run.sink.of("models_recorded")] == [200, 200, 1]


def test_run_that_is_not_asked_reads_and_reports_nothing() -> None:
    def refuse(_snapshots: Collection[Any]) -> Mapping[str, RecordedModel]:
        raise AssertionError

    run = Run(SOURCE, recorded_of=refuse)

    run.recorder.evaluation_started({})

    assert run.sink.of("models_recorded") == []


def test_unreadable_state_is_a_warning() -> None:
    def break_off(_snapshots: Collection[Any]) -> Mapping[str, RecordedModel]:
        msg = "gone"
        raise ConnectionError(msg)

    run = Run(SOURCE, READER, adopt=True, recorded_of=break_off)

    run.recorder.evaluation_started({SOURCE: days(1)})
    run.batch(SOURCE, days(1)[0])

    (materialized,) = run.sink.of("model_materialized")
    assert materialized.recorded_at is None
    assert materialized.data_version.startswith(f"v1:{DAY}:")
    assert "could not be read: gone" in run.sink.of("log")[0].message


def test_materialization_has_recorded_time_and_interval() -> None:
    run = Run(SOURCE, recorded_of=recorded_of)

    run.recorder.evaluation_started({SOURCE: days(1)})
    run.batch(SOURCE, days(1)[0])

    (materialized,) = run.sink.of("model_materialized")
    assert materialized.data_version == f"v1:{3 * DAY}:7"
    assert materialized.recorded_at.timestamp() == 0.007
    assert (materialized.recorded_end - materialized.recorded_begin).days == 3
    assert materialized.gaps == 0
