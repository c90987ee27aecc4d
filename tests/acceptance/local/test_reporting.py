"""What SQLMesh tells of a run, found in Dagster's event log: on the right asset, once."""

import datetime
import json
import shutil
import textwrap
from pathlib import Path

import pytest
from acceptance.local.deployment import PROJECTS, Deployment, Run
from acceptance.local.planned import (
    PLANNED_AT,
    RUN_AT,
    deploy_planned,
    observations,
    recorded_until,
    sql,
    values,
)

SECOND, THIRD, FOURTH, FIFTH = (
    datetime.datetime(2026, 1, day, tzinfo=datetime.UTC).timestamp() for day in (2, 3, 4, 5)
)

DEFINITIONS = """\
import dagster as dg
from dagster_sqlmesh_pipes import SQLMeshResource, sqlmesh_assets_factory

resource = SQLMeshResource(
    project_dir={project!r}, fetch_row_counts=True, allowed_environments=["dev"]
)
orders, daily, leaf, restated, after_restated = (
    dg.AssetKey(["audited", "audited", name])
    for name in ("orders", "daily", "leaf", "restated", "after_restated")
)
defs = dg.Definitions(
    assets=sqlmesh_assets_factory(sqlmesh_resource=resource),
    jobs=[
        dg.define_asset_job(name, selection=selection)
        for name, selection in {{
            "checks_alone": dg.AssetSelection.checks(
                dg.AssetCheckKey(orders, "not_null"),
                dg.AssetCheckKey(leaf, "forall"),
                dg.AssetCheckKey(daily, "daily_adds_up"),
            ),
            "one_check": dg.AssetSelection.assets(orders).without_checks()
            | dg.AssetSelection.checks(dg.AssetCheckKey(orders, "positive")),
            "restated": dg.AssetSelection.assets(restated, after_restated),
        }}.items()
    ],
)
"""


def deploy_with_jobs(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    made = deploy_planned("audited_models", tmp_path_factory)
    made.write_definitions(textwrap.dedent(DEFINITIONS).format(project=str(made.project)))
    return made


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """Return a project with failing rows, an external audit that warns and a signal not ready."""
    made = deploy_with_jobs(tmp_path_factory)
    sql(
        made.project / "audited.duckdb",
        "UPDATE raw.orders SET amount = -1 WHERE id IN (4, 5, 10); "
        "DELETE FROM raw.orders WHERE id = 12",
    )
    (made.project / "not_announced").touch()
    return made


@pytest.fixture(scope="module")
def run(deployment: Deployment) -> Run:
    found = deployment.execute(config={"execution_time": RUN_AT})
    assert found.success, found.error
    return found


def test_materialization_has_interval_rows_and_plan(run: Run) -> None:
    metadata = values(run.materialized["orders"])
    assert (
        metadata["sqlmesh/batches"],
        metadata["sqlmesh/batches_planned"],
        metadata["sqlmesh/complete"],
    ) == (
        3,
        3,
        True,
    )
    assert (metadata["sqlmesh/interval_start"], metadata["sqlmesh/interval_end"]) == (SECOND, FIFTH)
    assert (metadata["sqlmesh/model"], metadata["sqlmesh/environment"]) == (
        '"audited"."audited"."orders"',
        "prod",
    )
    assert metadata["dagster/row_count"] == 11
    assert metadata["sqlmesh/physical_table"].startswith(
        "audited.sqlmesh__audited.audited__orders__"
    )
    assert metadata["sqlmesh/duration"] > 0
    assert metadata["sqlmesh/plan_id"] in run.messages


def test_each_batch_is_logged_with_its_number_and_interval(run: Run) -> None:
    batches = [
        line
        for line in run.messages.splitlines()
        if line.startswith('"audited"."audited"."orders": batch')
    ]
    assert [line.partition(" done")[0] for line in batches] == [
        f'"audited"."audited"."orders": batch {number} of 3 '
        f"[2026-01-0{day} 00:00 to 2026-01-0{day + 1} 00:00 UTC]"
        for number, day in ((1, 2), (2, 3), (3, 4))
    ]
    assert ", 1 audit failed." in batches[0]


def test_batches_of_an_audit_are_one_check(run: Run) -> None:
    check = run.checks["orders", "positive"]
    metadata = values(check)
    assert (check.passed, check.severity.value) == (False, "WARN")
    assert (metadata["audit_failing_rows"], metadata["audit_batches"], metadata["audit_args"]) == (
        3,
        3,
        {"column": "amount"},
    )
    assert (metadata["audit_interval_start"], metadata["audit_interval_end"]) == (SECOND, THIRD)
    assert "CAST('2026-01-02' AS DATE)" in metadata["audit_query"]
    assert (metadata["sqlmesh_model_name"], metadata["audit_name"], metadata["audit_dialect"]) == (
        '"audited"."audited"."orders"',
        "positive",
        "duckdb",
    )
    assert metadata["audit_duration"] > 0


def test_passing_audits_are_reported_but_not_skipped_ones(run: Run) -> None:
    assert set(run.checks) == {
        ("orders", "not_null"), ("orders", "positive"), ("orders", "positive_c334cb69"),
        ("daily", "number_of_rows"), ("daily", "daily_adds_up"), ("leaf", "forall"),
        ("softly", "unique_values"), ("casted", "not_null"), ("after_cast", "number_of_rows"),
        ("from_python", "number_of_rows"), ("elsewhere", "not_null"), ("fragile", "are_numbers"),
    }  # fmt: skip
    assert {key for key, (passed, _) in run.verdicts.items() if not passed} == {
        ("orders", "positive"),
        ("daily", "daily_adds_up"),
    }
    assert '"audited"."audited"."daily": audit never_asked is set to be skipped.' in run.messages


def test_standalone_audit_is_a_check_of_its_model(run: Run) -> None:
    check = run.checks["daily", "daily_adds_up"]
    assert (check.passed, check.severity.value, values(check)["audit_failing_rows"]) == (
        False,
        "WARN",
        1,
    )


def test_python_custom_and_other_gateway_models_materialize(
    run: Run,
) -> None:
    assert {"from_python", "by_hand", "elsewhere"} <= set(run.materialized)
    assert run.materialized["elsewhere"].asset_key.path == ["side", "audited", "elsewhere"]
    assert values(run.materialized["elsewhere"])["sqlmesh/physical_table"].startswith(
        "side.sqlmesh__audited."
    )


def test_audits_of_external_models_are_observations(run: Run) -> None:
    observed = {values(each)["audit_name"]: each for each in observations(run)}
    assert set(observed) == {"not_null", "positive"}
    assert {each.asset_key.to_user_string() for each in observed.values()} == {
        "external/audited/raw/orders"
    }
    assert values(observed["not_null"])["audit_passed"]
    failed = values(observed["positive"])
    assert (failed["audit_passed"], failed["audit_severity"], failed["audit_failing_rows"]) == (
        False,
        "WARN",
        3,
    )
    assert "Models that Dagster does not know" not in run.messages


def test_model_with_unready_signal_is_skipped_by_name(run: Run) -> None:
    assert (
        '"audited"."audited"."waiting" was skipped: its signal announced is not ready.'
        in run.messages
    )
    assert (
        '"audited"."audited"."after_waiting" was skipped: the signal announced of '
        '"audited"."audited"."waiting" is not ready.' in run.messages
    )
    assert not {"waiting", "after_waiting"} & set(run.materialized)


def test_what_a_model_prints_is_in_the_steps_compute_logs(run: Run, deployment: Deployment) -> None:
    logs = (deployment.home / "storage").glob("*/compute_logs/*.out")
    assert any("the words are counted" in log.read_text() for log in logs)


def test_no_drift_is_warned_of_where_there_is_none(run: Run) -> None:
    assert "The environment is not what the manifest says" not in run.messages


# Later runs on the same database. Each leaves intervals that the next one needs.


def test_an_auto_restatement_says_what_restated(run: Run, deployment: Deployment) -> None:
    again = deployment.execute(
        job="restated", config={"execution_time": "2026-01-06"}
    )  # on the tick of the restatements' cron
    assert again.success, again.error
    found = [values(again.materialized[name]) for name in ("restated", "after_restated")]
    assert [each["sqlmesh/auto_restated_by"] for each in found] == [
        ['"audited"."audited"."restated"']
    ] * 2
    assert [each["sqlmesh/interval_start"] for each in found] == [FOURTH] * 2, (
        "a day that was recorded already"
    )


def test_checks_alone_materialize_nothing(run: Run, deployment: Deployment) -> None:
    before = recorded_until(deployment.project)
    alone = deployment.execute(job="checks_alone")
    assert alone.success, alone.error
    assert alone.materialized == {}
    assert alone.verdicts == {
        ("orders", "not_null"): (True, "ERROR"),
        ("leaf", "forall"): (True, "ERROR"),
        ("daily", "daily_adds_up"): (False, "WARN"),
    }
    assert recorded_until(deployment.project) == before


def test_subset_of_checks_reports_those_only(run: Run, deployment: Deployment) -> None:
    subset = deployment.execute(job="one_check", config={"execution_time": "2026-01-06"})
    assert subset.success, subset.error
    assert set(subset.materialized) == {"orders"}
    assert set(subset.checks) == {("orders", "positive")}


def test_another_environment_is_only_observed(run: Run, deployment: Deployment) -> None:
    model = deployment.project / "models" / "softly.sql"
    model.write_text(model.read_text().replace("SELECT word", "SELECT UPPER(word) AS word"))
    plan = (
        "plan",
        "dev",
        "--auto-apply",
        "--no-prompts",
        "--skip-tests",
        "--include-unmodified",
        "--execution-time",
        PLANNED_AT,
    )
    deployment.sqlmesh(*plan, "--start", "2026-01-01", "--end", "2026-01-01")
    deployment.make_manifest()
    dev = deployment.materialize(
        "key:audited/audited/softly", config={"execution_time": RUN_AT, "environment": "dev"}
    )
    assert dev.success, dev.error
    assert dev.materialized == {}
    assert dev.checks == {}
    assert {
        (each.description, values(each)["sqlmesh/environment"]) for each in observations(dev)
    } >= {("Materialized in the environment dev.", "dev")}
    database = deployment.project / "audited.duckdb"
    assert sql(database, "SELECT DISTINCT word FROM audited.audited__dev.softly ORDER BY 1") == [
        ("ONE",),
        ("TWO",),
    ]
    assert sql(database, "SELECT DISTINCT word FROM audited.audited.softly ORDER BY 1") == [
        ("one",),
        ("two",),
    ]


def test_blocking_external_audit_stops_downstream(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    made = deploy_with_jobs(tmp_path_factory)
    sql(made.project / "audited.duckdb", "UPDATE raw.orders SET id = NULL WHERE id = 14")
    failed = made.materialize("key:audited/audited/orders", config={"execution_time": RUN_AT})
    assert not failed.success
    assert failed.materialized == {}
    assert (
        '"audited"."raw"."orders" (external_models.yaml): its audit not_null failed' in failed.error
    )
    assert '"audited"."audited"."orders": it depends on "audited"."raw"."orders"' in failed.error
    assert [
        (values(each)["audit_name"], values(each)["audit_passed"]) for each in observations(failed)
    ] == [
        ("not_null", False),
        ("positive", True),
    ]


# A plan that is finalized while the run goes on.


def test_run_begun_again_has_one_result_for_each_asset(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    made = deploy_planned("replanned", tmp_path_factory)
    found = made.execute(config={"execution_time": RUN_AT})
    assert found.success, found.error
    assert (
        "SQLMesh began the run again (attempt 2): a plan changed the environment while it ran."
        in found.messages
    )
    assert set(found.materialized) == {"first", "second", "third"}
    assert set(found.checks) == {("first", "not_null"), ("third", "not_null")}


# Several projects as one.


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    root = tmp_path_factory.mktemp("two_projects")
    first, second = (
        Path(shutil.copytree(PROJECTS / name, root / name))
        for name in ("upstream_project", "downstream_project")
    )
    folders = {"project_dir": [str(first), str(second)]}
    made = Deployment(root=root, project=first, resource=folders)
    options = ("--auto-apply", "--no-prompts", "--skip-tests", "--execution-time", PLANNED_AT)
    made.sqlmesh("-p", str(first), "-p", str(second), "plan", *options)
    made.write()
    arguments = ("--project-dir", str(first), "--project-dir", str(second))
    made.sqlmesh_runner(
        "manifest", *arguments, "-o", str(first / ".sqlmesh-pipes" / "manifest.json")
    )
    return made


def test_models_of_two_projects_are_assets_of_one_run(two: Deployment) -> None:
    found = two.execute(config={"execution_time": RUN_AT})
    assert found.success, found.error
    assert set(found.materialized) == {"source", "report"}
    assert found.verdicts == {("report", "number_of_rows"): (True, "ERROR")}
    assert "Models that Dagster does not know" not in found.messages


def test_models_missing_in_the_manifest_are_named_once(two: Deployment) -> None:
    manifest = two.project / ".sqlmesh-pipes" / "manifest.json"
    known = json.loads(manifest.read_text())
    known["models"] = [model for model in known["models"] if model["name"] != "two.report"]
    manifest.write_text(json.dumps(known))
    found = two.execute(config={"execution_time": "2026-01-06"})
    assert found.success, found.error
    assert set(found.materialized) == {"source"}
    assert recorded_until(two.project)["report"] == "2026-01-06"
    said = found.messages.splitlines()
    (drift,) = [line for line in said if "The environment is not what the manifest says" in line]
    assert 'it holds models that the manifest does not know: "audited"."two"."report"' in drift
    (ran,) = [line for line in said if "Models that Dagster does not know ran too" in line]
    assert '"audited"."two"."report"' in ran
