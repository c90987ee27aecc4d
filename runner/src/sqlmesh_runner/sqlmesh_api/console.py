"""SQLMesh's console callbacks, passed to the recorder. No printing, no decisions."""

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from sqlmesh.core.console import Console, NoopConsole

from sqlmesh_runner.errors import StopEvaluationError
from sqlmesh_runner.recording.aggregation import BatchResult
from sqlmesh_runner.recording.recorder import Recorder
from sqlmesh_runner.sqlmesh_api.compatibility import CALLBACKS
from sqlmesh_runner.sqlmesh_api.queries import RunningQueries

__all__ = ["SilentConsole", "event_console"]

_NOTHING_DUE: Final = "No models are ready to run."
"""How SQLMesh's message begins that has the next time from now on, of seeds, too."""

_Arguments = Mapping[str, Any]
_Handler = Callable[[_Arguments], None]


class SilentConsole(NoopConsole):  # type: ignore[misc]  # SQLMesh is not followed by mypy
    """Show nothing. `NoopConsole` still writes warnings to the log, which are events here."""

    def log_warning(self, short_message: str, long_message: str | None = None) -> None:
        """Show nothing."""


class _Handlers:
    """Pass each callback to the recorder, in a method of the callback's name.

    Arguments come by name: their order and number differ between SQLMesh's releases.
    """

    def __init__(self, recorder: Recorder, queries: RunningQueries) -> None:
        self._recorder = recorder
        self._queries = queries

    def start_evaluation_progress(self, arguments: _Arguments) -> None:
        self._recorder.evaluation_started(arguments["batched_intervals"])

    def start_snapshot_evaluation_progress(self, arguments: _Arguments) -> None:
        snapshot = arguments["snapshot"]
        self._recorder.batch_started(snapshot)
        self._queries.begin(getattr(snapshot, "model_gateway", None))

    def update_snapshot_evaluation_progress(self, arguments: _Arguments) -> None:
        milliseconds: int | None = arguments["duration_ms"]
        # The scheduler calls from a `finally` block: a failed batch's error is being raised.
        error = sys.exc_info()[1] if milliseconds is None else None
        statistics = arguments.get("execution_stats")
        failed = arguments["num_audits_failed"]
        triggers = arguments.get("auto_restatement_triggers") or ()
        batch = BatchResult(
            snapshot=arguments["snapshot"],
            interval=arguments["interval"],
            duration=None if milliseconds is None else milliseconds / 1000,
            audits=arguments["num_audits_passed"] + failed,
            audits_failed=failed,
            rows=getattr(statistics, "total_rows_processed", None),
            bytes=getattr(statistics, "total_bytes_processed", None),
            restated_by=[trigger.name for trigger in triggers],
            error=error,
            query=self._queries.end(error),
        )
        self._recorder.batch_ended(batch)

    def update_signal_progress(self, arguments: _Arguments) -> None:
        self._recorder.signal_checked(
            arguments["snapshot"],
            signal=arguments["signal_name"],
            ready=arguments["ready_intervals"],
            asked=arguments["check_intervals"],
        )

    def log_failed_models(self, arguments: _Arguments) -> None:
        self._recorder.models_failed(arguments["errors"])

    def log_status_update(self, arguments: _Arguments) -> None:
        if not arguments["message"].startswith(_NOTHING_DUE):
            self._recorder.log("INFO", arguments["message"])

    def log_warning(self, arguments: _Arguments) -> None:
        self._recorder.log("WARNING", arguments["short_message"])

    def log_error(self, arguments: _Arguments) -> None:
        self._recorder.log("ERROR", arguments["message"])


def event_console(recorder: Recorder, queries: RunningQueries, display: Console) -> Console:
    """Return a console that passes callbacks to the recorder and then lets `display` show them.

    Its methods are those of the installed SQLMesh's `Console`, newly added ones included.
    """
    handlers = _Handlers(recorder, queries)
    names = {*Console.__abstractmethods__, *(callback.name for callback in CALLBACKS)}
    methods = {
        name: _forward(name, getattr(handlers, name, None), recorder, display)
        for name in names
        if hasattr(Console, name)
    }
    console: Console = type("EventConsole", (NoopConsole,), methods)()
    return console


def _forward(
    name: str, handler: _Handler | None, recorder: Recorder, display: Console
) -> Callable[..., Any]:
    show = getattr(display, name)
    signature = inspect.signature(getattr(Console, name))

    def forward(self: Console, *args: Any, **kwargs: Any) -> Any:
        if handler is not None:
            try:
                handler(signature.bind(self, *args, **kwargs).arguments)
            except StopEvaluationError:
                raise
            except Exception as exc:  # noqa: BLE001 - in SQLMesh it would fail the model
                recorder.internal_error(f"recording SQLMesh's {name}", exc)
        return show(*args, **kwargs)

    forward.__name__ = name
    return forward
