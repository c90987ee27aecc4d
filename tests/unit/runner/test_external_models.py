"""EXTERNAL models have audits only: they run with what reads them, and never materialize."""

from unit.runner.fakes import FakeSnapshot, days
from unit.runner.test_recorder import Run, an_audit

from sqlmesh_runner.selection import Selection

READS, EXTERNAL = '"db"."a"."x"', '"db"."raw"."events"'
EXTRAS = {
    "selection": "models",
    "models": {READS: {"checks": {}}},
    "externals": {EXTERNAL: {"asset_key": "e", "checks": {"a:1": "a"}}},
}


def test_an_external_that_guards_the_selection_is_run_with_it() -> None:
    assert Selection.from_extras(EXTRAS).resolved(
        [READS, EXTERNAL], environment="prod"
    ).models == frozenset({READS, EXTERNAL})


def test_unplanned_external_is_no_error() -> None:
    resolved = Selection.from_extras(EXTRAS).resolved([READS], environment="prod")

    assert (resolved.models, resolved.unplanned) == (frozenset({READS}), ())


def test_externals_do_not_narrow_a_run_of_everything() -> None:
    assert (
        Selection.from_extras({**EXTRAS, "selection": "all"})
        .resolved([READS, EXTERNAL], environment="prod")
        .models
        is None
    )


def test_audits_alone_do_not_audit_externals() -> None:
    assert (
        Selection.from_extras(EXTRAS).resolved([READS, EXTERNAL], environment="prod").audits == {}
    )


def test_an_external_has_verdicts_and_no_materialization() -> None:
    external = FakeSnapshot("e", is_symbolic=True)
    run = Run(external)
    run.recorder.evaluation_started({external: days(1)})

    run.batch(external, days(1)[0], an_audit())
    run.recorder.finish(None, 0)

    assert run.only("audit_finished").passed
    assert "model_materialized" not in run.kinds
    assert run.only("run_finished").materialized == []
