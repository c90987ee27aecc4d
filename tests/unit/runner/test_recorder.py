"""How the recorder folds what SQLMesh tells, in orders of events that real runs take only now and then."""

from types import SimpleNamespace
from typing import Any

import pytest
from unit.runner.fakes import NEXT_DUE, FakeSnapshot, ListSink, days

from sqlmesh_runner.environment import Environment
from sqlmesh_runner.errors import StopEvaluationError
from sqlmesh_runner.events import RunStarted
from sqlmesh_runner.folding import AuditRun, AuditsFailedError
from sqlmesh_runner.recorder import Recorder
from sqlmesh_runner.stop import StopRequest


class Run:
    """A recorder and what it emitted."""

    def __init__(self, *snapshots: FakeSnapshot, **options: Any) -> None:
        self.sink, self.stop = ListSink(), StopRequest()
        self.recorder = Recorder(self.sink, self.stop)
        held = {snapshot.name: snapshot for snapshot in snapshots}
        environment = Environment(name="prod", plan_id="p1", snapshots=held, **{"selected": None, **options})
        started = RunStarted(sqlmesh_version="1", environment="prod", gateway=None, plan_id="p1", environment_models={})
        self.recorder.run_started(environment, started)

    def batch(self, snapshot: FakeSnapshot, interval: tuple[int, int], *audits: AuditRun, error: Exception | None = None) -> None:
        self.recorder.batch_started(snapshot)
        for audit in audits:
            self.recorder.audited(audit)
        self.recorder.batch_ended(snapshot, interval, seconds=None if error else 1.5, audits=(len(audits), 0), error=error)

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


def test_a_model_is_materialized_when_its_last_batch_is_over_and_not_before() -> None:
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


def test_the_worst_batch_of_an_audit_is_shown_and_rows_are_added_up() -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    intervals = days(3)
    run.recorder.evaluation_started({model: intervals})

    for interval, rows in zip(intervals, (2, 5, 0), strict=True):
        run.batch(model, interval, an_audit(blocking=False, failing_rows=rows, interval=interval, query=f"{rows} rows"))

    verdict = run.only("audit_finished")
    assert (verdict.passed, verdict.failing_rows, verdict.batches, verdict.query) == (False, 7, 3, "5 rows")
    assert verdict.interval_start.day == 2


def test_an_audit_that_broke_is_worse_than_any_number_of_rows() -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    first, second = days(2)
    run.recorder.evaluation_started({model: [first, second]})

    run.batch(model, first, an_audit(error="no such column", query="broken"), error=ValueError("no such column"))
    run.batch(model, second, an_audit(failing_rows=9, query="9 rows"), error=ValueError("audits failed"))

    verdict = run.only("audit_finished")
    assert (verdict.error, verdict.query, verdict.failing_rows) == ("no such column", "broken", 9)


def test_two_identical_uses_of_an_audit_count_once() -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    run.recorder.evaluation_started({model: days(1)})

    run.batch(model, days(1)[0], an_audit(blocking=False, failing_rows=2), an_audit(blocking=False, failing_rows=2))

    assert run.only("audit_finished").failing_rows == 2


@pytest.mark.parametrize(("published", "word"), [(True, "published"), (False, "withholds")])
def test_a_blocking_failure_says_where_the_data_stands(*, published: bool, word: str) -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    run.recorder.evaluation_started({model: days(1)})

    run.batch(model, days(1)[0], an_audit(failing_rows=1, write_audit_publish=published), error=ValueError("audits failed"))

    assert word in run.only("audit_finished").note


def test_a_model_is_reported_once_when_the_environment_changes_after_it_ran() -> None:
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


def test_batches_recorded_before_and_after_a_restart_are_one_result() -> None:
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
    assert (event.batches, event.batches_planned, event.complete, event.interval_start.day) == (3, 3, True, 1)
    assert run.sink.of("model_skipped") == []
    assert run.only("run_finished").outcome == "success"


def test_a_failure_of_an_attempt_that_was_given_up_is_void() -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    run.recorder.evaluation_started({model: days(1)})
    run.batch(model, days(1)[0], error=ValueError("the old code"))

    run.recorder.evaluation_started({model: days(1)})
    run.batch(model, days(1)[0])
    run.recorder.finish(None, 0)

    assert (run.only("run_finished").outcome, run.only("run_finished").failed) == ("success", [])
    assert run.kinds.index("model_failed") < run.kinds.index("run_restarted") < run.kinds.index("model_materialized")


def test_what_an_abandoned_attempt_recorded_of_a_model_that_does_not_come_again_is_reported() -> None:
    model, other = FakeSnapshot("m"), FakeSnapshot("other")
    run = Run(model, other)
    run.recorder.evaluation_started({model: days(2)})
    run.batch(model, days(1)[0])

    run.recorder.evaluation_started({other: days(1)})
    run.batch(other, days(1)[0])
    run.recorder.finish(None, 0)

    assert [(event.model, event.complete) for event in run.sink.of("model_materialized")] == [("other", True), ("m", False)]
    assert run.sink.of("model_skipped") == []


def test_a_table_that_can_not_be_created_fails_its_model_though_no_batch_started() -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    run.recorder.evaluation_started({model: days(1)})
    error = RuntimeError("permission denied for schema")

    run.recorder.models_failed([_node_error("m", error)])
    code = run.recorder.finish(None, 0)

    assert (run.only("model_failed").error, run.only("model_failed").interval_start) == ("permission denied for schema", None)
    assert (code, run.only("run_finished").failed) == (1, ["m"])


@pytest.mark.parametrize(
    ("chained", "runs"),
    [
        pytest.param({}, [0, 1, 2, 3, 4], id="independent batches"),
        pytest.param({"depends_on_past": True}, [0, 1], id="each waits for the one before"),
        pytest.param({"batch_concurrency": 2}, [0, 1, 2, 4], id="each waits for the last but one"),
    ],
)
def test_a_failure_is_told_at_once_and_results_when_no_batch_can_come(chained: dict[str, Any], runs: list[int]) -> None:
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


def test_a_failure_before_a_stop_stays_one_though_the_model_s_other_batches_are_cancelled() -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    first, second = days(2)
    run.recorder.evaluation_started({model: [first, second]})
    run.batch(model, first, error=ValueError("no"))
    run.recorder.batch_started(model)
    run.stop.request("enough", 130)
    run.recorder.batch_ended(model, second, seconds=None, audits=(0, 0), error=RuntimeError("Interrupted!"))

    run.recorder.finish("interrupted", 130)

    assert run.only("model_failed").error == "no"
    assert run.sink.of("model_skipped") == []


def test_a_table_that_could_not_be_created_before_a_stop_is_a_failure() -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    run.recorder.evaluation_started({model: days(1)})
    run.stop.request("enough", 130)

    run.recorder.models_failed([_node_error("m", RuntimeError("permission denied"))])
    run.recorder.finish("interrupted", 130)

    assert run.only("run_finished").failed == ["m"]


def test_rows_are_counted_after_the_batch_was_told_and_only_when_all_are_over() -> None:
    model = FakeSnapshot("m")
    told_before: list[str] = []

    def count_rows(_snapshot: Any) -> int:
        told_before.extend(run.kinds)
        return 7

    run = Run(model, count_rows=count_rows)
    run.recorder.evaluation_started({model: days(2)})

    run.batch(model, days(2)[0])
    run.batch(model, days(2)[1])

    assert told_before.count("batch_finished") == 2
    assert run.only("model_materialized").row_count == 7


def test_after_a_restart_everything_is_of_the_new_plan() -> None:
    """Tables, plan and paths are the new environment's; what it took away is left out, and what it added can fail."""
    kept, gone, new = FakeSnapshot("kept"), FakeSnapshot("gone"), FakeSnapshot("new")
    after = Environment(
        name="prod",
        plan_id="p2",
        selected=None,
        snapshots={"kept": kept, "new": new},
        physical_table=lambda snapshot: f"t2.{snapshot.name}",
    )
    run = Run(kept, gone, reload=lambda: after, physical_table=lambda snapshot: f"t1.{snapshot.name}")
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


def test_a_part_that_was_recorded_of_a_version_that_a_plan_replaced_is_not_the_new_one_s() -> None:
    old, new = FakeSnapshot("m", version="v1"), FakeSnapshot("m", version="v2")
    run = Run(old, reload=lambda: None)
    run.recorder.evaluation_started({old: days(2)})
    run.batch(old, days(1)[0])

    run.recorder.evaluation_started({new: days(1)})
    run.batch(new, days(1)[0])

    event = run.only("model_materialized")
    assert (event.batches, event.batches_planned, event.data_version.partition(":")[0]) == (1, 1, "v2")


def test_a_plan_that_leaves_nothing_to_do_is_a_restart_too() -> None:
    source, reader = FakeSnapshot("source"), FakeSnapshot("reader")
    run = Run(source, reader)
    run.recorder.evaluation_started({source: days(1), reader: days(1)})
    run.batch(source, days(1)[0])

    run.recorder.evaluation_ended(nothing_to_do=True)
    run.recorder.finish(None, 0)

    assert run.only("run_restarted").attempt == 2
    assert [(event.model, event.reason) for event in run.sink.of("model_skipped")] == [("reader", "nothing_due")]
    assert run.only("run_finished").outcome == "success"


def test_skipped_models_name_the_nearest_failed_ones_upstream() -> None:
    broken = FakeSnapshot("broken")
    between = FakeSnapshot("between", reads=[broken])
    leaf = FakeSnapshot("leaf", reads=[between])
    run = Run(broken, between, leaf)
    run.recorder.evaluation_started({broken: days(1), leaf: days(1)})
    run.batch(broken, days(1)[0], error=ValueError("no"))

    run.recorder.finish(None, 0)

    skips = {event.model: event for event in run.sink.of("model_skipped")}
    assert (skips["leaf"].reason, skips["leaf"].upstream) == ("upstream_failed", ["broken"])
    assert (skips["between"].reason, skips["between"].next_due) == ("nothing_due", NEXT_DUE)


@pytest.mark.parametrize("told", [True, False])
def test_a_model_without_batches_names_the_signals_that_hold_it_or_what_it_reads(*, told: bool) -> None:
    """SQLMesh before 0.199 does not tell the console of signals."""
    source = FakeSnapshot("source", signals=[("landed", {})])
    reader = FakeSnapshot("reader", reads=[source])
    run = Run(source, reader)
    if told:
        run.recorder.signal_checked(source, signal="landed", ready=[], asked=days(1))
    run.recorder.evaluation_started({source: [], reader: []})

    run.recorder.finish(None, 0)

    assert [(event.reason, event.signals) for event in run.sink.of("model_skipped")] == [("signal_not_ready", ["landed"])] * 2
    assert run.only("run_finished").outcome == "nothing_to_do"


def test_a_model_both_failed_and_skipped_is_failed() -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    run.recorder.evaluation_started({model: days(3)})
    run.batch(model, days(1)[0], error=ValueError("no"))

    run.recorder.finish(None, 0)

    assert run.only("model_failed").batches == 3
    assert run.sink.of("model_skipped") == []


def test_symbolic_models_standalone_audits_and_unselected_models_are_not_skipped() -> None:
    run = Run(FakeSnapshot("external", is_symbolic=True), FakeSnapshot("audit", is_audit=True), FakeSnapshot("other"), selected=frozenset())

    run.recorder.finish(None, 0)

    assert run.sink.of("model_skipped") == []
    assert run.only("run_finished").outcome == "nothing_to_do"


def test_no_batch_starts_once_stopping_was_asked_for() -> None:
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


def test_what_is_recorded_of_an_interrupted_model_is_reported_as_incomplete() -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    run.recorder.evaluation_started({model: days(2)})
    run.batch(model, days(1)[0])
    run.stop.request("enough", 130)

    run.recorder.finish("interrupted", 130)

    assert not run.only("model_materialized").complete
    assert run.only("model_skipped").reason == "interrupted"


def test_a_cancelled_audit_is_not_a_failed_one() -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    run.recorder.evaluation_started({model: days(1)})
    run.recorder.batch_started(model)
    run.stop.request("enough", 130)

    run.recorder.audited(an_audit(error="INTERRUPT Error: Interrupted!"))
    run.recorder.batch_ended(model, days(1)[0], seconds=None, audits=(0, 0), error=RuntimeError("Interrupted!"))
    run.recorder.finish("interrupted", 130)

    assert run.sink.of("audit_finished") == run.sink.of("model_failed") == []


def test_a_stop_does_not_hide_an_audit_that_found_rows() -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    run.recorder.evaluation_started({model: days(1)})
    run.recorder.batch_started(model)
    run.stop.request("enough", 130)

    found = an_audit(failing_rows=2)
    run.recorder.audited(found)
    run.recorder.batch_ended(model, days(1)[0], seconds=None, audits=(0, 0), error=AuditsFailedError([found]))
    run.recorder.finish("interrupted", 130)

    assert (run.only("audit_finished").passed, run.only("audit_finished").failing_rows) == (False, 2)
    assert run.only("model_failed").audit == "not_null"
    assert (run.only("run_finished").failed, run.sink.of("model_skipped")) == (["m"], [])


def test_rows_and_bytes_of_batches_are_added_up() -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    run.recorder.evaluation_started({model: days(2)})
    for interval, rows in zip(days(2), (3, 4), strict=True):
        statistics = SimpleNamespace(total_rows_processed=rows, total_bytes_processed=rows * 100)
        run.recorder.batch_started(model)
        run.recorder.batch_ended(model, interval, seconds=1.0, audits=(0, 0), statistics=statistics)

    event = run.only("model_materialized")
    assert (event.rows_processed, event.bytes_processed) == (7, 700)
    assert [(batch.rows, batch.bytes) for batch in run.sink.of("batch_finished")] == [(3, 300), (4, 400)]


def test_nothing_is_emitted_after_the_end() -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    run.recorder.evaluation_started({model: days(1)})
    run.recorder.batch_started(model)
    run.stop.request("enough", 130)

    run.recorder.abandon("it did not end")
    run.recorder.batch_ended(model, days(1)[0], seconds=1.0, audits=(0, 0))

    assert run.kinds[-1] == "run_finished"
    assert run.recorder.finish(None, 0) == 0
    assert run.kinds.count("run_finished") == 1


def test_an_error_of_the_whole_run_claims_nothing_about_its_models() -> None:
    run = Run(FakeSnapshot("m"))

    run.recorder.finish("error", 4, error="gone")

    assert run.kinds == ["run_started", "run_finished"]


def test_warnings_of_failed_audits_are_not_logged_again_but_others_are() -> None:
    model = FakeSnapshot("m")
    run = Run(model)
    run.recorder.evaluation_started({model: days(1)})
    run.recorder.batch_started(model)
    run.recorder.audited(an_audit(failing_rows=1, blocking=False))

    run.recorder.log("WARNING", "\nm: 'not_null' audit error: 1 row failed.")
    run.recorder.log("WARNING", "The disk is nearly full")

    assert [event.message for event in run.sink.of("log")] == ["The disk is nearly full"]


def _node_error(name: str, error: Exception) -> Any:
    wrapped = type("NodeExecutionFailedError", (Exception,), {})("Execution failed")
    wrapped.node = SimpleNamespace(snapshot_name=name)
    wrapped.__cause__ = error
    return wrapped
