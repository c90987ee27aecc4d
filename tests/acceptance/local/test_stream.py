"""Results are in Dagster's event log while the run goes on, from exactly what was selected."""

import time

from acceptance.local.conftest import Deploy

SLOW = {"launcher": 'pass_env=["SECONDS_TO_SLEEP", "ENDED_AT"]'}


def test_early_results_are_stored_before_a_late_model_has_ended(deploy: Deploy, in_three_days: str) -> None:
    deployment = deploy("late", **SLOW)
    ended_at = deployment.root / "ended_at"
    deployment.env.update(SECONDS_TO_SLEEP="5", ENDED_AT=str(ended_at))
    run = deployment.execute(config={"execution_time": in_three_days})
    assert run.success, run.output
    assert set(run.materialized) == {"early", "middle", "slow"}
    assert run.verdicts == {
        ("early", "not_null"): (True, "ERROR"),
        ("early", "number_of_rows"): (True, "ERROR"),
        ("middle", "unique_values"): (True, "WARN"),
    }
    ended = float(ended_at.read_text())
    assert ended < time.time()
    stored = [*run.stored_at("early"), *run.stored_at("middle")]
    assert len(stored) == 5
    assert max(stored) < ended


def test_exactly_what_is_selected_is_run_and_upstream_models_stay_untouched(deploy: Deploy, in_three_days: str) -> None:
    deployment = deploy("late")
    subset = deployment.materialize("key:late/late/middle", config={"execution_time": in_three_days})
    assert subset.success, subset.output
    assert set(subset.materialized) == {"middle"}
    rest = deployment.materialize("*", config={"execution_time": in_three_days})
    assert rest.success, rest.output
    assert set(rest.materialized) == {"early", "slow"}


def test_a_run_with_nothing_due_materializes_nothing_and_says_so(deploy: Deploy) -> None:
    run = deploy("late").materialize("*")
    assert run.success, run.output
    assert run.materialized == {}
    assert run.checks == {}
    assert "Nothing was due" in run.messages
