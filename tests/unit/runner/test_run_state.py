"""What keeps a run from succeeding: events that are not the whole truth."""

from types import SimpleNamespace
from typing import Any

import pytest
from unit.runner.fakes import FakeSnapshot, ListSink, days

from sqlmesh_runner.recording.aggregation import AuditRun, BatchResult
from sqlmesh_runner.recording.events import Event, RunFinished
from sqlmesh_runner.recording.recorder import Recorder
from sqlmesh_runner.recording.run_state import Completion, RunState
from sqlmesh_runner.recording.scope import RunScope
from sqlmesh_runner.stop import StopRequest

WORKER = 1


def _state(*snapshots: FakeSnapshot) -> RunState:
    """Return a run that planned a day of each snapshot."""
    state = RunState(StopRequest())
    held = {snapshot.name: snapshot for snapshot in snapshots}
    state.scope = RunScope(name="prod", plan_id="p1", snapshots=held, selected=None)
    state.evaluation_started({snapshot: days(1) for snapshot in snapshots})
    return state


def _run_batch(state: RunState, snapshot: FakeSnapshot, **values: Any) -> list[Event]:
    batch = BatchResult(snapshot=snapshot, interval=days(1)[0], **{"duration": 1.5, **values})
    return [
        *state.batch_started(snapshot, worker=WORKER),
        *state.batch_ended(batch, worker=WORKER, now=0),
    ]


def _end(state: RunState) -> RunFinished:
    state.skips()
    return state.end(None, 0, error=None, duration=1.0)


def test_complete_run_succeeds() -> None:
    model = FakeSnapshot("m")
    state = _state(model)

    _run_batch(state, model)
    state.evaluation_ended("success")

    assert (_end(state).outcome, state.problem) == ("success", None)


def test_success_without_the_end_of_a_batch_is_an_error() -> None:
    state = _state(FakeSnapshot("m"))

    state.evaluation_ended("success")

    end = _end(state)
    assert (end.outcome, end.exit_code) == ("error", 1)
    assert "reports a successful run, but not the end of 1 batches of m" in (end.error or "")


def test_success_after_a_failed_model_is_an_error() -> None:
    model = FakeSnapshot("m")
    state = _state(model)

    _run_batch(state, model, duration=None, error=ValueError("no"))
    state.evaluation_ended("success")

    assert "reports a successful run, though m failed" in (_end(state).error or "")


@pytest.mark.parametrize("completion", ["success", "failure"])
def test_result_without_any_callback_is_an_error(completion: Completion) -> None:
    state = RunState(StopRequest())

    state.evaluation_ended(completion)

    assert _end(state).outcome == "error"


def test_planned_model_without_a_reason_is_an_error() -> None:
    """It is no skip: `upstream_failed` names its upstream."""
    failed, lost = FakeSnapshot("failed"), FakeSnapshot("lost")
    state = _state(failed, lost)
    _run_batch(state, failed, duration=None, error=ValueError("no"))
    state.evaluation_ended("failure")

    end = _end(state)

    assert (end.outcome, end.failed, end.skipped) == ("error", ["failed"], [])
    assert "planned lost, but neither evaluated it nor reported a failure" in (end.error or "")


def test_audit_that_was_not_seen_is_an_error() -> None:
    model = FakeSnapshot("m")
    state = _state(model)

    _run_batch(state, model, audits=2)

    assert "ran 2 audits of a batch of m, and the runner saw 0" in (_end(state).error or "")


def test_failure_of_an_unknown_model_is_an_error() -> None:
    state = _state()
    node = SimpleNamespace(snapshot_name="unknown")

    state.models_failed([SimpleNamespace(node=node, __cause__=None)])

    assert "unknown, which the environment lacks, failed" in (_end(state).error or "")


def test_first_problem_is_kept() -> None:
    state = _state()

    state.add_problem("first")
    state.add_problem("second")

    assert state.problem == "first"


class BrokenSink(ListSink):
    """Fail to pass on events of one type."""

    def __init__(self, broken: str) -> None:
        super().__init__()
        self.broken = broken

    def emit(self, event: Event) -> None:
        if event.type == self.broken:
            msg = "disk full"
            raise OSError(msg)
        super().emit(event)


def _recorded(sink: ListSink) -> int:
    """Record a run of one model; return the exit code."""
    model = FakeSnapshot("m")
    recorder = Recorder(sink, StopRequest())
    recorder.evaluation_started({model: days(1)})
    recorder.batch_started(model)
    recorder.batch_ended(BatchResult(snapshot=model, interval=days(1)[0], duration=1.0))
    recorder.evaluation_ended("success")
    return recorder.finish(None, 0)


@pytest.mark.parametrize("broken", ["model_started", "batch_finished", "model_materialized"])
def test_event_that_a_sink_misses_is_an_error(broken: str) -> None:
    sink = BrokenSink(broken)

    code = _recorded(sink)

    (end,) = sink.of("run_finished")
    assert (code, end.outcome, end.materialized) == (1, "error", ["m"])
    assert f"reporting {broken} failed (OSError: disk full)" in end.error


def test_end_that_a_sink_misses_changes_the_exit_code() -> None:
    sink = BrokenSink("run_finished")

    assert _recorded(sink) == 1
    assert sink.of("model_materialized")


def test_internal_error_while_interrupted_stays_an_interruption() -> None:
    sink, stop = ListSink(), StopRequest()
    recorder = Recorder(sink, stop)
    stop.request("SIGTERM received", 143)

    recorder.internal_error("recording an audit", KeyError("a bug"))

    assert recorder.finish("interrupted", 143) == 143
    assert recorder.error is not None


def test_seen_audits_are_compared_in_their_batch() -> None:
    model = FakeSnapshot("m")
    state = _state(model)
    audit = AuditRun(
        id="a:1", name="a", args={}, blocking=True, skipped=True, interval=None, duration=0.0
    )

    state.batch_started(model, worker=WORKER)
    state.audit_finished(audit, worker=WORKER)
    batch = BatchResult(snapshot=model, interval=days(1)[0], duration=1.0, audits=1)
    state.batch_ended(batch, worker=WORKER, now=0)

    assert state.problem is None


@pytest.mark.parametrize(
    "node",
    [
        SimpleNamespace(snapshot_name="m", interval=days(1)[0]),
        SimpleNamespace(snapshot_name="m"),
        SimpleNamespace(name="m", identifier="1"),
        ("m", (days(1)[0], 0)),
    ],
    ids=["batch", "creation", "creation in a plan", "batch of an old release"],
)
def test_failed_node_of_any_release_is_its_models_failure(node: Any) -> None:
    state = _state(FakeSnapshot("m"))

    events = state.models_failed([SimpleNamespace(node=node, __cause__=ValueError("no"))])

    assert [event.type for event in events] == ["model_failed"]
    assert state.problem is None
