"""How the recorder turns callbacks into events, in orders that real runs rarely take."""

from types import SimpleNamespace
from typing import Any

import pytest
from unit.runner.fakes import NEXT_DUE, FakeSnapshot, ListSink, days

from sqlmesh_runner.errors import StopEvaluationError, describe
from sqlmesh_runner.recording.aggregation import AuditRun, AuditsFailedError, BatchResult
from sqlmesh_runner.recording.events import RunStarted
from sqlmesh_runner.recording.recorder import Recorder
from sqlmesh_runner.recording.scope import RunScope
from sqlmesh_runner.stop import StopRequest


class Run:
    """A recorder and what it emitted."""

    def __init__(self, *snapshots: FakeSnapshot, **options: Any) -> None:
        self.sink, self.stop = ListSink(), StopRequest()
        self.recorder = Recorder(self.sink, self.stop)
        held = {snapshot.name: snapshot for snapshot in snapshots}
        environment = RunScope(
            name="prod", plan_id="p1", snapshots=held, **{"selected": None, **options}
        )
        started = RunStarted(
            sqlmesh_version="1",
            environment="prod",
            gateway=None,
            plan_id="p1",
            environment_models={},
        )
        self.recorder.run_started(environment, started)

    def batch(
        self,
        snapshot: FakeSnapshot,
        interval: tuple[int, int],
        *audits: AuditRun,
        error: Exception | None = None,
    ) -> None:
        self.recorder.batch_started(snapshot)
        for audit in audits:
            self.recorder.audit_finished(audit)
        self.end_batch(snapshot, interval, error=error, audits=len(audits))

    def end_batch(
        self,
        snapshot: FakeSnapshot,
        interval: tuple[int, int],
        *,
        error: Exception | None = None,
        **values: Any,
    ) -> None:
        duration = None if error else 1.5
        batch = BatchResult(
            snapshot=snapshot, interval=interval, duration=duration, error=error, **values
        )
        self.recorder.batch_ended(batch)

    @property
    def kinds(self) -> list[str]:
        return [event.type for event in self.sink.events]

    def only(self, kind: str) -> Any:
        (event,) = self.sink.of(kind)
        return event


def an_audit(name: str = "not_null", **values: Any) -> AuditRun:
    defaults: dict[str, Any] = {
        "id": f"{name}:1",
        "name": name,
        "args": {},
        "blocking": True,
        "skipped": False,
        "interval": (0, 1),
        "duration": 0.1,
    }
    return AuditRun(**{**defaults, **values})


def test_model_materializes_after_its_last_batch() -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    first, second = days(2)
    run.recorder.evaluation_started({model: [first, second]})

    run.batch(model, second)
    assert "model_materialized" not in run.kinds
    run.batch(model, first)

    event = run.only("model_materialized")
    assert (event.batches, event.complete, event.duration) == (2, True, 3.0)
    assert (event.interval_start.day, event.interval_end.day) == (1, 3)
    assert event.data_version.startswith(f"v1:{second[1]}:")


def test_audit_reports_worst_batch_and_all_rows() -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    intervals = days(3)
    run.recorder.evaluation_started({model: intervals})

    for interval, rows in zip(intervals, (2, 5, 0), strict=True):
        run.batch(
            model,
            interval,
            an_audit(blocking=False, failing_rows=rows, interval=interval, query=f"{rows} rows"),
        )

    finished = run.only("audit_finished")
    assert (finished.passed, finished.failing_rows, finished.batches, finished.query) == (
        False,
        7,
        3,
        "5 rows",
    )
    assert finished.interval_start.day == 2


def test_audit_error_is_worse_than_failing_rows() -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    first, second = days(2)
    run.recorder.evaluation_started({model: [first, second]})

    run.batch(
        model,
        first,
        an_audit(error="no such column", query="broken"),
        error=ValueError("no such column"),
    )
    run.batch(
        model, second, an_audit(failing_rows=9, query="9 rows"), error=ValueError("audits failed")
    )

    finished = run.only("audit_finished")
    assert (finished.error, finished.query, finished.failing_rows) == (
        "no such column",
        "broken",
        9,
    )


@pytest.mark.parametrize("uses", [(False, False), (False, True), (True, False)])
def test_identical_audits_of_a_model_count_once(uses: tuple[bool, bool]) -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    run.recorder.evaluation_started({model: days(1)})

    run.batch(
        model,
        days(1)[0],
        *(an_audit(blocking=blocking, failing_rows=2) for blocking in uses),
    )

    finished = run.only("audit_finished")
    assert (finished.failing_rows, finished.blocking) == (2, any(uses))


@pytest.mark.parametrize(("published", "word"), [(True, "published"), (False, "withholds")])
def test_blocking_failure_notes_where_the_data_is(*, published: bool, word: str) -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    run.recorder.evaluation_started({model: days(1)})

    run.batch(
        model,
        days(1)[0],
        an_audit(failing_rows=1, write_audit_publish=published),
        error=ValueError("audits failed"),
    )

    assert word in run.only("audit_finished").note


def test_restart_reports_a_finished_model_once() -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    run.recorder.evaluation_started({model: days(1)})
    run.batch(model, days(1)[0], an_audit())

    run.recorder.evaluation_started({model: days(1)})
    run.batch(model, days(1)[0], an_audit())
    run.recorder.finish(None, 0)

    assert run.only("run_restarted").attempt == 2
    assert len(run.sink.of("model_materialized")) == len(run.sink.of("audit_finished")) == 1
    assert [event.attempt for event in run.sink.of("model_started")] == [1, 2]


def test_restart_adds_batches_to_one_result() -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    first, second, third = days(3)
    run.recorder.evaluation_started({model: [first, second, third]})
    run.batch(model, first)

    run.recorder.evaluation_started({model: [second, third]})
    run.batch(model, second)
    run.batch(model, third)
    run.recorder.finish(None, 0)

    event = run.only("model_materialized")
    assert (event.batches, event.batches_planned, event.complete, event.interval_start.day) == (
        3,
        3,
        True,
        1,
    )
    assert run.sink.of("model_skipped") == []
    assert run.only("run_finished").outcome == "success"


def test_restart_voids_earlier_failures() -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    run.recorder.evaluation_started({model: days(1)})
    run.batch(model, days(1)[0], error=ValueError("the old code"))

    run.recorder.evaluation_started({model: days(1)})
    run.batch(model, days(1)[0])
    run.recorder.finish(None, 0)

    assert (run.only("run_finished").outcome, run.only("run_finished").failed) == ("success", [])
    assert (
        run.kinds.index("model_failed")
        < run.kinds.index("run_restarted")
        < run.kinds.index("model_materialized")
    )


def test_restart_reports_models_it_leaves_incomplete() -> None:
    model, other = FakeSnapshot("m"), FakeSnapshot("other")
    run = Run(model, other)
    run.recorder.evaluation_started({model: days(2)})
    run.batch(model, days(1)[0])

    run.recorder.evaluation_started({other: days(1)})
    run.batch(other, days(1)[0])
    run.recorder.finish(None, 0)

    assert [(event.model, event.complete) for event in run.sink.of("model_materialized")] == [
        ("other", True),
        ("m", False),
    ]
    assert run.sink.of("model_skipped") == []


def test_failed_table_creation_fails_its_model() -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    run.recorder.evaluation_started({model: days(1)})
    error = RuntimeError("permission denied for schema")

    run.recorder.models_failed([_node_error("m", error)])
    code = run.recorder.finish(None, 0)

    assert (run.only("model_failed").error, run.only("model_failed").interval_start) == (
        "permission denied for schema",
        None,
    )
    assert (code, run.only("run_finished").failed) == (1, ["m"])


@pytest.mark.parametrize(
    ("chained", "runs"),
    [
        pytest.param({}, [0, 1, 2, 3, 4], id="independent batches"),
        pytest.param({"depends_on_past": True}, [0, 1], id="each waits for the one before"),
        pytest.param({"batch_concurrency": 2}, [0, 1, 2, 4], id="each waits for the last but one"),
    ],
)
def test_results_follow_when_no_batch_can_run(chained: dict[str, Any], runs: list[int]) -> None:
    model = FakeSnapshot("m", **chained)
    run = Run(model)
    intervals = days(5)
    run.recorder.evaluation_started({model: intervals})

    for index in runs:
        assert "model_materialized" not in run.kinds
        run.batch(model, intervals[index], error=ValueError("no") if index == 1 else None)
        assert ("model_failed" in run.kinds) == (index >= 1)

    event = run.only("model_materialized")
    assert (event.batches, event.complete) == (len(runs) - 1, False)
    assert run.only("model_failed").batches_done == 1


def test_failure_before_a_stop_is_kept() -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    first, second = days(2)
    run.recorder.evaluation_started({model: [first, second]})
    run.batch(model, first, error=ValueError("no"))
    run.recorder.batch_started(model)
    run.stop.request("enough", 130)
    run.end_batch(model, second, error=RuntimeError("Interrupted!"))

    run.recorder.finish("interrupted", 130)

    assert run.only("model_failed").error == "no"
    assert run.sink.of("model_skipped") == []


def test_failed_table_creation_is_kept_after_a_stop() -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    run.recorder.evaluation_started({model: days(1)})
    run.stop.request("enough", 130)

    run.recorder.models_failed([_node_error("m", RuntimeError("permission denied"))])
    run.recorder.finish("interrupted", 130)

    assert run.only("run_finished").failed == ["m"]


def test_rows_are_counted_after_the_last_batch() -> None:
    model = FakeSnapshot("m")
    kinds_before: list[str] = []

    def count_rows(_snapshot: Any) -> int:
        kinds_before.extend(run.kinds)
        return 7

    run = Run(model, count_rows=count_rows)
    run.recorder.evaluation_started({model: days(2)})

    run.batch(model, days(2)[0])
    run.batch(model, days(2)[1])

    assert kinds_before.count("batch_finished") == 2
    assert run.only("model_materialized").row_count == 7


def test_restart_uses_the_new_environment() -> None:
    """Tables, plan and paths are the new environment's; what it added can fail."""
    kept, gone, new = FakeSnapshot("kept"), FakeSnapshot("gone"), FakeSnapshot("new")
    after = RunScope(
        name="prod",
        plan_id="p2",
        selected=None,
        snapshots={"kept": kept, "new": new},
        physical_table=lambda snapshot: f"t2.{snapshot.name}",
    )
    run = Run(
        kept, gone, reload=lambda: after, physical_table=lambda snapshot: f"t1.{snapshot.name}"
    )
    run.recorder.evaluation_started({kept: days(1), gone: days(1)})
    run.batch(gone, days(1)[0], error=ValueError("the old code"))

    run.recorder.evaluation_started({kept: days(1), new: days(1)})
    run.batch(kept, days(1)[0])
    run.recorder.models_failed([_node_error("new", RuntimeError("permission denied for schema"))])
    code = run.recorder.finish(None, 0)

    event = run.only("model_materialized")
    assert (event.model, event.plan_id, event.physical_table) == ("kept", "p2", "t2.kept")
    assert [event.model for event in run.sink.of("model_failed")] == ["gone", "new"]
    assert (code, run.only("run_finished").failed, run.sink.of("model_skipped")) == (1, ["new"], [])


def test_restart_separates_versions_of_a_model() -> None:
    old, new = FakeSnapshot("m", version="v1"), FakeSnapshot("m", version="v2")
    run = Run(old, reload=lambda: None)
    run.recorder.evaluation_started({old: days(2)})
    run.batch(old, days(1)[0])

    run.recorder.evaluation_started({new: days(1)})
    run.batch(new, days(1)[0])

    event = run.only("model_materialized")
    assert (event.batches, event.batches_planned, event.data_version.partition(":")[0]) == (
        1,
        1,
        "v2",
    )


def test_plan_that_leaves_nothing_to_do_is_a_restart() -> None:
    source, reader = FakeSnapshot("source"), FakeSnapshot("reader")
    run = Run(source, reader)
    run.recorder.evaluation_started({source: days(1), reader: days(1)})
    run.batch(source, days(1)[0])

    run.recorder.evaluation_ended("nothing_to_do")
    run.recorder.finish(None, 0)

    assert run.only("run_restarted").attempt == 2
    assert [(event.model, event.reason) for event in run.sink.of("model_skipped")] == [
        ("reader", "nothing_due")
    ]
    assert run.only("run_finished").outcome == "success"


def test_skipped_model_names_failed_upstream() -> None:
    broken = FakeSnapshot("broken")
    between = FakeSnapshot("between", reads=[broken])
    leaf = FakeSnapshot("leaf", reads=[between])
    run = Run(broken, between, leaf, next_due_of=lambda _snapshot: NEXT_DUE)
    run.recorder.evaluation_started({broken: days(1), leaf: days(1)})
    run.batch(broken, days(1)[0], error=ValueError("no"))

    run.recorder.finish(None, 0)

    skips = {event.model: event for event in run.sink.of("model_skipped")}
    assert (skips["leaf"].reason, skips["leaf"].upstream) == ("upstream_failed", ["broken"])
    assert (skips["between"].reason, skips["between"].next_due) == ("nothing_due", NEXT_DUE)


@pytest.mark.parametrize("has_callback", [True, False])
def test_skipped_model_names_blocking_signals(*, has_callback: bool) -> None:
    """SQLMesh before 0.199 has no callback for signals."""
    source = FakeSnapshot("source", signals=[("landed", {})])
    reader = FakeSnapshot("reader", reads=[source])
    run = Run(source, reader)
    if has_callback:
        run.recorder.signal_checked(source, signal="landed", ready=[], asked=days(1))
    run.recorder.evaluation_started({source: [], reader: []})

    run.recorder.finish(None, 0)

    skips = {event.model: event for event in run.sink.of("model_skipped")}
    assert [(each.reason, each.signals) for each in skips.values()] == [
        ("signal_not_ready", ["landed"])
    ] * 2
    assert (skips["source"].upstream, skips["reader"].upstream) == ([], ["source"])
    assert run.only("run_finished").outcome == "nothing_to_do"


def test_model_without_batches_and_without_signal_is_not_due() -> None:
    alone = FakeSnapshot("alone")
    run = Run(alone, next_due_of=lambda _snapshot: NEXT_DUE)
    run.recorder.evaluation_started({alone: []})

    run.recorder.finish(None, 0)

    skip = run.only("model_skipped")
    assert (skip.reason, skip.next_due) == ("nothing_due", NEXT_DUE)


def test_model_failed_and_skipped_is_failed() -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    run.recorder.evaluation_started({model: days(3)})
    run.batch(model, days(1)[0], error=ValueError("no"))

    run.recorder.finish(None, 0)

    assert run.only("model_failed").batches == 3
    assert run.sink.of("model_skipped") == []


def test_models_out_of_scope_are_not_skipped() -> None:
    run = Run(
        FakeSnapshot("external", is_symbolic=True),
        FakeSnapshot("audit", is_audit=True),
        FakeSnapshot("other"),
        selected=frozenset(),
    )

    run.recorder.finish(None, 0)

    assert run.sink.of("model_skipped") == []
    assert run.only("run_finished").outcome == "nothing_to_do"


def test_stop_keeps_batches_from_starting() -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    run.recorder.evaluation_started({model: days(1)})
    run.stop.request("enough", 130)

    with pytest.raises(StopEvaluationError):
        run.recorder.batch_started(model)

    run.recorder.models_failed([_node_error("m", StopEvaluationError("enough"))])
    run.recorder.finish("interrupted", 130)
    assert run.only("model_skipped").reason == "interrupted"
    assert run.sink.of("model_failed") == []


def test_interrupted_model_is_incomplete() -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    run.recorder.evaluation_started({model: days(2)})
    run.batch(model, days(1)[0])
    run.stop.request("enough", 130)

    run.recorder.finish("interrupted", 130)

    assert not run.only("model_materialized").complete
    assert run.only("model_skipped").reason == "interrupted"


def test_cancelled_audit_is_not_reported() -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    run.recorder.evaluation_started({model: days(1)})
    run.recorder.batch_started(model)
    run.stop.request("enough", 130)

    run.recorder.audit_finished(an_audit(error="INTERRUPT Error: Interrupted!"))
    run.end_batch(model, days(1)[0], error=RuntimeError("Interrupted!"))
    run.recorder.finish("interrupted", 130)

    assert run.sink.of("audit_finished") == run.sink.of("model_failed") == []


def test_failed_audit_is_kept_after_a_stop() -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    run.recorder.evaluation_started({model: days(1)})
    run.recorder.batch_started(model)
    run.stop.request("enough", 130)

    found = an_audit(failing_rows=2)
    run.recorder.audit_finished(found)
    run.end_batch(model, days(1)[0], error=AuditsFailedError([found]))
    run.recorder.finish("interrupted", 130)

    assert (run.only("audit_finished").passed, run.only("audit_finished").failing_rows) == (
        False,
        2,
    )
    assert run.only("model_failed").audit == "not_null"
    assert (run.only("run_finished").failed, run.sink.of("model_skipped")) == (["m"], [])


def test_batches_add_rows_and_bytes() -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    run.recorder.evaluation_started({model: days(2)})
    for interval, rows in zip(days(2), (3, 4), strict=True):
        run.recorder.batch_started(model)
        run.end_batch(model, interval, rows=rows, bytes=rows * 100)

    event = run.only("model_materialized")
    assert (event.rows_processed, event.bytes_processed) == (7, 700)
    assert [(batch.rows, batch.bytes) for batch in run.sink.of("batch_finished")] == [
        (3, 300),
        (4, 400),
    ]


def test_nothing_is_emitted_after_the_end() -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    run.recorder.evaluation_started({model: days(1)})
    run.recorder.batch_started(model)
    run.stop.request("enough", 130)

    run.recorder.abandon("it did not end")
    run.end_batch(model, days(1)[0])

    assert run.kinds[-1] == "run_finished"
    assert run.recorder.finish(None, 0) == 0
    assert run.kinds.count("run_finished") == 1


def test_run_error_reports_no_skipped_models() -> None:
    run = Run(FakeSnapshot("m"))

    run.recorder.finish("error", 4, error="gone")

    assert run.kinds == ["run_started", "run_finished"]


def test_audit_warnings_are_not_logged_again() -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    run.recorder.evaluation_started({model: days(1)})
    run.recorder.batch_started(model)
    run.recorder.audit_finished(an_audit(failing_rows=1, blocking=False))

    run.recorder.log("WARNING", "\nm: 'not_null' audit error: 1 row failed.")
    run.recorder.log("WARNING", "The disk is nearly full")

    assert [event.message for event in run.sink.of("log")] == ["The disk is nearly full"]


def _node_error(name: str, error: Exception) -> Any:
    wrapped = type("NodeExecutionFailedError", (Exception,), {})("Execution failed")
    wrapped.node = SimpleNamespace(snapshot_name=name)
    wrapped.__cause__ = error
    return wrapped


def test_log_messages_have_no_escape_codes() -> None:
    run = Run(FakeSnapshot("m"))
    run.recorder.log("WARNING", "\x1b[33mcareful\x1b[0m \x1b]8;;http://x\x1b\\link")
    assert run.only("log").message == "careful link"


def test_errors_have_no_escape_codes() -> None:
    assert describe(ValueError("Invalid \x1b[4mSELEC\x1b[0m")) == "Invalid SELEC"
