"""SQLMesh's console callbacks, as the installed SQLMesh has them."""

from types import SimpleNamespace
from typing import Any

import pytest
from sqlmesh.core.console import NoopConsole

from sqlmesh_runner.errors import StopEvaluationError
from sqlmesh_runner.recording.aggregation import BatchResult
from sqlmesh_runner.sqlmesh_api.console import SilentConsole, event_console
from sqlmesh_runner.sqlmesh_api.queries import RunningQueries


class FakeRecorder:
    """Keep the calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.internal_errors: list[tuple[str, Exception]] = []
        self.error: Exception | None = None

    def internal_error(self, doing: str, exc: Exception) -> None:
        self.internal_errors.append((doing, exc))

    def __getattr__(self, name: str) -> Any:
        def record(*args: Any) -> None:
            if self.error is not None:
                raise self.error
            self.calls.append((name, args))

        return record


class LoudConsole(SilentConsole):
    """Keep what is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[str] = []

    def log_status_update(self, message: str) -> None:
        self.shown.append(message)


def _console(recorder: FakeRecorder, display: NoopConsole | None = None) -> Any:
    return event_console(recorder, RunningQueries(), display or SilentConsole())  # type: ignore[arg-type]  # a fake


SNAPSHOT = SimpleNamespace(name="m", model_gateway=None)


def test_batch_arguments_are_bound_by_name() -> None:
    recorder = FakeRecorder()

    _console(recorder).update_snapshot_evaluation_progress(
        SNAPSHOT,
        duration_ms=1500,
        batch_idx=0,
        interval=(0, 1),
        num_audits_failed=1,
        num_audits_passed=2,
    )

    batch = BatchResult(
        snapshot=SNAPSHOT, interval=(0, 1), duration=1.5, audits=3, audits_failed=1, restated_by=[]
    )
    assert recorder.calls == [("batch_ended", (batch,))]


def test_failed_batch_has_the_error_being_raised() -> None:
    recorder, error = FakeRecorder(), ValueError("bad cast")
    console = _console(recorder)

    def batch() -> None:
        try:
            raise error
        finally:
            console.update_snapshot_evaluation_progress(SNAPSHOT, (0, 1), 0, None, 0, 0)

    with pytest.raises(ValueError, match="bad cast"):
        batch()

    ((_name, (result,)),) = recorder.calls
    assert (result.duration, result.error) == (None, error)


def test_handler_error_is_internal_and_does_not_reach_sqlmesh() -> None:
    recorder = FakeRecorder()
    recorder.error = KeyError("a bug")

    _console(recorder).update_snapshot_evaluation_progress(SNAPSHOT, (0, 1), 0, 1, 0, 0)

    doing = "recording SQLMesh's update_snapshot_evaluation_progress"
    assert recorder.internal_errors == [(doing, recorder.error)]


def test_unknown_arguments_are_an_internal_error() -> None:
    recorder, display = FakeRecorder(), LoudConsole()
    display.log_status_update = lambda *_args, **_kwargs: None  # type: ignore[method-assign]

    _console(recorder, display).log_status_update("hello", renamed=True)

    ((doing, error),) = recorder.internal_errors
    assert (doing, type(error)) == ("recording SQLMesh's log_status_update", TypeError)


def test_stop_reaches_sqlmesh_where_a_batch_would_start() -> None:
    recorder = FakeRecorder()
    recorder.error = StopEvaluationError("enough")

    with pytest.raises(StopEvaluationError):
        _console(recorder).start_snapshot_evaluation_progress(SNAPSHOT)


def test_callbacks_are_shown_as_well() -> None:
    recorder, display = FakeRecorder(), LoudConsole()

    _console(recorder, display).log_status_update("hello")

    assert display.shown == ["hello"]
    assert recorder.calls == [("log", ("INFO", "hello"))]


def test_console_has_every_abstract_method() -> None:
    assert not type(_console(FakeRecorder())).__abstractmethods__
