"""SQLMesh's console, as the installed SQLMesh has it."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from sqlmesh.core.console import NoopConsole

from sqlmesh_runner.console import HANDLED, SilentConsole, event_console
from sqlmesh_runner.errors import StopEvaluationError
from sqlmesh_runner.queries import RunningQueries


class FakeRecorder:
    """Keep what is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.error: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        def tell(*args: Any, **kwargs: Any) -> None:
            if self.error is not None:
                raise self.error
            self.told.append((name, args, kwargs))

        return tell


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


def test_what_is_handled_exists_in_this_sqlmesh_or_came_later() -> None:
    later = {"update_signal_progress"}  # since 0.199

    assert {name for name in HANDLED if not hasattr(NoopConsole, name)} <= later


def test_a_batch_that_ended_is_told_by_name_whatever_the_order_of_arguments() -> None:
    recorder = FakeRecorder()

    _console(recorder).update_snapshot_evaluation_progress(
        SNAPSHOT, duration_ms=1500, batch_idx=0, interval=(0, 1), num_audits_failed=1, num_audits_passed=2
    )

    ((name, args, given),) = recorder.told
    assert (name, args) == ("batch_ended", (SNAPSHOT, (0, 1)))
    assert (given["seconds"], given["audits"], given["error"], given["restated_by"]) == (1.5, (2, 1), None, [])


def test_a_failed_batch_is_told_with_the_error_that_is_on_its_way() -> None:
    recorder, error = FakeRecorder(), ValueError("bad cast")
    console = _console(recorder)

    def batch() -> None:
        try:
            raise error
        finally:
            console.update_snapshot_evaluation_progress(SNAPSHOT, (0, 1), 0, None, 0, 0)

    with pytest.raises(ValueError, match="bad cast"):
        batch()

    assert (recorder.told[0][2]["seconds"], recorder.told[0][2]["error"]) == (None, error)


def test_an_error_of_ours_does_not_reach_sqlmesh(caplog: pytest.LogCaptureFixture) -> None:
    recorder = FakeRecorder()
    recorder.error = KeyError("a bug")

    with caplog.at_level(logging.ERROR):
        _console(recorder).update_snapshot_evaluation_progress(SNAPSHOT, (0, 1), 0, 1, 0, 0)

    assert "update_snapshot_evaluation_progress could not be reported" in caplog.text


def test_the_wish_to_stop_does_reach_sqlmesh_where_a_batch_would_start() -> None:
    recorder = FakeRecorder()
    recorder.error = StopEvaluationError("enough")

    with pytest.raises(StopEvaluationError):
        _console(recorder).start_snapshot_evaluation_progress(SNAPSHOT)


def test_everything_is_shown_as_well() -> None:
    recorder, display = FakeRecorder(), LoudConsole()

    _console(recorder, display).log_status_update("hello")

    assert display.shown == ["hello"]
    assert recorder.told == [("log", ("INFO", "hello"), {})]


def test_all_that_sqlmesh_may_call_is_there() -> None:
    assert not type(_console(FakeRecorder())).__abstractmethods__
