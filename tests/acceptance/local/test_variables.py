"""A project reads the environment variables that it would read under `sqlmesh run`."""

from acceptance.local.conftest import Deploy
from acceptance.local.planned import RUN_AT, sql


def test_macro_reads_variable_of_dagsters_process(deploy: Deploy) -> None:
    deployment = deploy("reads_variables", env={"REGION": "EU"})
    run = deployment.execute(config={"execution_time": RUN_AT})
    assert run.success, run.output
    regions = "SELECT DISTINCT region FROM shop.sales WHERE day > '2026-01-01'"
    assert sql(deployment.project / "audited.duckdb", regions) == [("EU",)]


def test_variable_that_runner_lacks_is_named_in_run_log(deploy: Deploy) -> None:
    deployment = deploy("reads_variables", env={"REGION": "EU"}, launcher="inherit_env=False")
    run = deployment.execute(config={"execution_time": RUN_AT})
    assert "not set for the runner: REGION (read in macros/region.py)" in run.messages
