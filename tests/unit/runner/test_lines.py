"""Events as sentences."""

import io

from sqlmesh_runner.recording.events import ModelSkipped, RunFinished
from sqlmesh_runner.sinks.lines import LinesSink


def test_models_that_are_not_due_are_not_counted_as_skipped() -> None:
    log = io.StringIO()
    sink = LinesSink(log)
    sink.emit(ModelSkipped(model="seed", reason="nothing_due"))
    sink.emit(ModelSkipped(model="b", reason="upstream_failed", upstream=["a"]))
    sink.emit(
        RunFinished(
            outcome="failed",
            exit_code=1,
            duration=1.0,
            materialized=[],
            failed=["a"],
            skipped=["b", "seed"],
        )
    )
    assert "0 materialized, 1 failed, 1 skipped, 1 not due" in log.getvalue()
