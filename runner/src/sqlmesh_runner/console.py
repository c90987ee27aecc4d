"""SQLMesh's console callbacks, handed to the recorder. No printing, no decisions."""

import inspect
import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from sqlmesh.core.console import Console, NoopConsole

from sqlmesh_runner.errors import StopEvaluationError
from sqlmesh_runner.queries import RunningQueries
from sqlmesh_runner.recorder import Recorder

__all__ = ["SilentConsole", "event_console"]

logger = logging.getLogger(__name__)

_Arguments = Mapping[str, Any]
_Handler = Callable[[_Arguments], None]


class SilentConsole(NoopConsole):  # type: ignore[misc]  # SQLMesh is not followed by mypy
    """Show nothing. `NoopConsole` still writes warnings to the log, which are events here."""

    def log_warning(self, short_message: str, long_message: str | None = None) -> None:
        """Pass over."""


class _Handlers:
    """What the recorder learns from which callback. Arguments come by name: their order and number differ between releases."""

    def __init__(self, recorder: Recorder, queries: RunningQueries) -> None:
        self._recorder = recorder
        self._queries = queries

    def start_evaluation_progress(self, given: _Arguments) -> None:
        self._recorder.evaluation_started(given["batched_intervals"])

    def start_snapshot_evaluation_progress(self, given: _Arguments) -> None:
        snapshot = given["snapshot"]
        self._recorder.batch_started(snapshot)
        self._queries.begin(getattr(snapshot, "model_gateway", None))

    def update_snapshot_evaluation_progress(self, given: _Arguments) -> None:
        duration: int | None = given["duration_ms"]
        error = sys.exc_info()[1] if duration is None else None  # called from the scheduler's `finally`: the error is on its way
        self._recorder.batch_ended(
            given["snapshot"],
            given["interval"],
            seconds=None if duration is None else duration / 1000,
            audits=(given["num_audits_passed"], given["num_audits_failed"]),
            statistics=given.get("execution_stats"),
            restated_by=[trigger.name for trigger in given.get("auto_restatement_triggers") or ()],
            error=error,
            query=self._queries.end(error),
        )

    def update_signal_progress(self, given: _Arguments) -> None:
        self._recorder.signal_checked(
            given["snapshot"], signal=given["signal_name"], ready=given["ready_intervals"], asked=given["check_intervals"]
        )

    def log_failed_models(self, given: _Arguments) -> None:
        self._recorder.models_failed(given["errors"])

    def log_status_update(self, given: _Arguments) -> None:
        self._recorder.log("INFO", given["message"])

    def log_warning(self, given: _Arguments) -> None:
        self._recorder.log("WARNING", given["short_message"])

    def log_error(self, given: _Arguments) -> None:
        self._recorder.log("ERROR", given["message"])


HANDLED: Final = tuple(name for name in vars(_Handlers) if not name.startswith("_"))


def event_console(recorder: Recorder, queries: RunningQueries, display: Console) -> Console:
    """Make a console that tells the recorder what it learns and then lets `display` show it.

    It is put together from the installed SQLMesh's own `Console`, so that methods which a release adds are there.
    """
    handlers = _Handlers(recorder, queries)
    names = {*Console.__abstractmethods__, *HANDLED}
    methods = {name: _forward(name, getattr(handlers, name, None), display) for name in names if hasattr(display, name)}
    console: Console = type("EventConsole", (NoopConsole,), methods)()
    return console


def _forward(name: str, handler: _Handler | None, display: Console) -> Callable[..., Any]:
    show = getattr(display, name)
    signature = inspect.signature(getattr(Console, name, getattr(NoopConsole, name)))

    def forward(self: Console, *args: Any, **kwargs: Any) -> Any:
        if handler is not None:
            _handle(name, handler, lambda: signature.bind(self, *args, **kwargs).arguments)
        return show(*args, **kwargs)

    forward.__name__ = name
    return forward


def _handle(name: str, handler: _Handler, arguments: Callable[[], _Arguments]) -> None:
    """Call a handler. An error of ours must not reach SQLMesh, where it would fail the model; the wish to stop must."""
    try:
        handler(arguments())
    except StopEvaluationError:
        raise
    except Exception:  # see above
        logger.exception("%s could not be reported", name)
