"""Results are in Dagster's event log while the run goes on, from exactly what was selected."""

from acceptance.local.conftest import Deploy
from acceptance.local.planned import PLANNED_AT, RUN_AT
from patience import PATIENCE, wait_until


def test_early_results_are_stored_before_a_late_model_has_ended(deploy: Deploy) -> None:
    deployment = deploy("slow_model")
    held = deployment.project / "wait_here"
    held.touch()
    with deployment.executing(config={"execution_time": RUN_AT}) as (job, log):
        wait_until(
            lambda: 'slow" is running' in log.read_text() or job.poll() is not None,
            "the late model runs",
        )
        wait_until(
            lambda: len(deployment.last_run().stored_at("early", "middle")) == 5,
            "the early results are stored",
        )
        assert deployment.last_run().status == "STARTED"
        held.unlink()
        assert job.wait(PATIENCE) == 0, log.read_text()
    run = deployment.last_run()
    assert set(run.materialized) == {"early", "middle", "slow"}
    assert run.verdicts == {
        ("early", "not_null"): (True, "ERROR"),
        ("early", "number_of_rows"): (True, "ERROR"),
        ("middle", "unique_values"): (True, "WARN"),
    }
    assert max(run.stored_at("early", "middle")) < min(run.stored_at("slow"))


def test_selection_runs_without_upstream_models(deploy: Deploy) -> None:
    deployment = deploy("slow_model")
    subset = deployment.materialize("key:late/late/middle", config={"execution_time": RUN_AT})
    assert subset.success, subset.output
    assert set(subset.materialized) == {"middle"}
    rest = deployment.materialize("*", config={"execution_time": RUN_AT})
    assert rest.success, rest.output
    assert set(rest.materialized) == {"early", "slow"}


def test_a_run_with_nothing_due_materializes_nothing_and_says_so(deploy: Deploy) -> None:
    run = deploy("slow_model").materialize("*", config={"execution_time": PLANNED_AT})
    assert run.success, run.output
    assert run.materialized == {}
    assert run.checks == {}
    assert "Nothing was due" in run.messages
