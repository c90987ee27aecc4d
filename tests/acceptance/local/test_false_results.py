"""What other integrations show falsely, each case as Dagster's event log has it here.

Runs are slow, so each serves several cases: `broken` has many failures at once, `unplanned` runs
files that are in no plan.
"""

import subprocess
import textwrap

import dagster as dg
import pytest
from acceptance.local.deployment import Deployment, Run
from acceptance.local.planned import RUN_AT, deploy_planned, recorded_until, sql, values

MODELS = {
    "after_cast", "after_restated", "after_waiting", "by_hand", "casted", "daily", "daily_view",
    "elsewhere", "fragile", "from_python", "leaf", "orders", "restated", "softly", "waiting",
}  # fmt: skip

EIGHT = (
    "orders",
    "daily",
    "daily_view",
    "softly",
    "from_python",
    "by_hand",
    "casted",
    "after_cast",
)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """A project in whose raw data much is wrong."""
    made = deploy_planned("audited_models", tmp_path_factory)
    sql(
        made.project / "audited.duckdb",
        """
        INSERT INTO raw.words VALUES ('two', 'many');
        UPDATE raw.orders SET amount = -1 WHERE id IN (4, 5, 10);
        UPDATE raw.orders SET amount = 5000 WHERE id = 7;
        """,
    )
    return made


@pytest.fixture(scope="module")
def broken(deployment: Deployment) -> Run:
    return deployment.execute(config={"execution_time": RUN_AT})


def test_bad_cast_materializes_neither_model_nor_downstream(
    broken: Run,
) -> None:
    assert not broken.success
    assert not {"casted", "after_cast"} & set(broken.materialized)
    assert "Could not convert string 'many' to INT32" in broken.error
    assert "models/casted.sql" in broken.error
    assert (
        '"number" AS INT'
        in broken.error.partition("models/casted.sql")[2].partition("query: ")[2].splitlines()[0]
    )
    assert (
        '"audited"."audited"."after_cast" was skipped: it depends on "audited"."audited"."casted".'
        in broken.messages
    )


def test_audits_that_did_not_get_to_run_are_not_reported(broken: Run) -> None:
    assert not {"casted", "after_cast"} & {asset for asset, _ in broken.checks}


def test_blocking_audit_failing_on_a_leaf_fails_the_run(
    broken: Run,
) -> None:
    check = broken.checks["leaf", "forall"]
    assert (check.passed, check.severity.value, values(check)["audit_failing_rows"]) == (
        False,
        "ERROR",
        1,
    )
    assert "leaf" not in broken.materialized
    assert '"audited"."audited"."leaf" (models/leaf.sql): its audit forall failed' in broken.error


def test_non_blocking_audit_failing_is_a_warning(
    broken: Run,
) -> None:
    assert broken.verdicts["orders", "positive"] == (False, "WARN")
    assert "orders" in broken.materialized
    assert '"audited"."audited"."orders"' not in broken.error


def test_audit_with_an_error_fails_its_check_and_model(
    broken: Run,
) -> None:
    check = broken.checks["fragile", "are_numbers"]
    assert (check.passed, check.severity.value) == (False, "ERROR"), (
        "though it does not block where it finds rows"
    )
    assert "Could not convert string 'many' to INT32" in values(check)["audit_error"]
    assert (
        '"audited"."audited"."fragile" (models/fragile.sql): its audit are_numbers failed'
        in broken.error
    )
    assert "fragile" not in broken.materialized


def test_blocking_false_in_the_models_audit_call_counts(broken: Run) -> None:
    check = broken.checks["softly", "unique_values"]
    assert (check.passed, check.severity.value, values(check)["audit_blocking"]) == (
        False,
        "WARN",
        False,
    )
    assert "softly" in broken.materialized


def test_two_uses_of_one_audit_are_two_checks(broken: Run) -> None:
    uses = {
        name: verdict
        for (asset, name), verdict in broken.verdicts.items()
        if asset == "orders" and name.startswith("positive")
    }
    assert uses == {"positive": (False, "WARN"), "positive_c334cb69": (True, "ERROR")}
    assert values(broken.checks["orders", "positive_c334cb69"])["audit_args"] == {"column": "id"}


def test_asset_is_materialized_only_if_recorded(broken: Run, deployment: Deployment) -> None:
    recorded = {
        name for name, until in recorded_until(deployment.project).items() if until == "2026-01-05"
    }
    assert (
        set(broken.materialized)
        == recorded & MODELS
        == MODELS - {"casted", "after_cast", "fragile", "leaf"}
    )


def test_external_models_can_not_be_materialized(broken: Run, deployment: Deployment) -> None:
    assert not {"orders", "words"} & {
        key.path[-1] for key in planned_to_be_materialized(broken) if key.path[0] == "external"
    }
    refused = deployment.materialize("key:external/audited/raw/orders")
    assert "must be a subset of existing executable asset keys" in refused.output


def planned_to_be_materialized(run: Run) -> set[dg.AssetKey]:
    return {
        entry.dagster_event.asset_materialization_planned_data.asset_key
        for entry in run.logs
        if entry.dagster_event is not None
        and entry.dagster_event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
    }


# Files that nobody planned.


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """Return a project with one model changed and an audited one added since the plan."""
    made = deploy_planned("audited_models", tmp_path_factory)
    models = made.project / "models"
    (models / "softly.sql").write_text(
        (models / "softly.sql").read_text().replace("SELECT word", "SELECT UPPER(word) AS word")
    )
    (models / "added.sql").write_text(
        "MODEL (name audited.added, kind FULL, audits (not_null(columns := (id)))); SELECT 1 AS id"
    )
    made.make_manifest()
    return made


@pytest.fixture(scope="module")
def unplanned(changed: Deployment) -> Run:
    return changed.execute(config={"execution_time": RUN_AT})


def test_unplanned_model_is_named_and_not_materialized(
    unplanned: Run,
) -> None:
    assert unplanned.success, unplanned.error
    assert set(unplanned.materialized) == MODELS
    assert not any(asset == "added" for asset, _ in unplanned.checks)
    (warning,) = [
        line
        for line in unplanned.messages.splitlines()
        if "The environment is not what the manifest says" in line
    ]
    assert 'it lacks "audited"."audited"."added"' in warning
    assert 'it has other versions of "audited"."audited"."softly"' in warning
    assert "run `sqlmesh plan`" in warning


def test_a_materialize_deploys_nothing_that_was_not_planned(
    unplanned: Run, changed: Deployment
) -> None:
    database = changed.project / "audited.duckdb"
    assert sql(database, "SELECT DISTINCT word FROM audited.audited.softly ORDER BY 1") == [
        ("one",),
        ("two",),
    ]
    assert sql(
        database, "SELECT COUNT(*) FROM information_schema.tables WHERE table_name LIKE '%added%'"
    ) == [(0,)]
    assert values(unplanned.materialized["softly"])["sqlmesh/physical_table"].startswith(
        "audited.sqlmesh__audited.audited__softly__"
    )


def test_run_with_nothing_due_names_the_next_time(unplanned: Run, changed: Deployment) -> None:
    again = changed.execute(config={"execution_time": RUN_AT})
    assert again.success, again.error
    assert (again.materialized, again.checks) == ({}, {})
    (said,) = [line for line in again.messages.splitlines() if "Nothing was due for" in line]
    assert all(f'"{name}"' in said for name in MODELS)
    assert ". Next: 20" in said


# Keys of one's own, and one failure among eight.

KEYED = """\
import dagster as dg
from dagster_sqlmesh_pipes import SQLMeshResource, SQLMeshTranslator, sqlmesh_assets_factory

class Keys(SQLMeshTranslator):
    def get_asset_key(self, model):
        return dg.AssetKey(["warehouse", "of", model.view_name])

    def get_external_asset_key(self, external_fqn):
        return dg.AssetKey(["lake", external_fqn.rpartition(".")[2].strip('"')])

resource = SQLMeshResource(project_dir={project!r}, translator=Keys())
eight = dg.AssetSelection.assets(*(["warehouse", "of", name] for name in {eight!r}))
defs = dg.Definitions(
    assets=sqlmesh_assets_factory(sqlmesh_resource=resource),
    jobs=[dg.define_asset_job("eight", selection=eight)],
)
for key in sorted(defs.resolve_asset_graph().get_all_asset_keys()):
    parents = defs.resolve_asset_graph().get(key).parent_keys
    names = sorted(parent.to_user_string() for parent in parents)
    with open({dependencies!r}, "a") as file:
        print(key.to_user_string(), *names, file=file)
"""


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    made = deploy_planned("audited_models", tmp_path_factory)
    sql(made.project / "audited.duckdb", "INSERT INTO raw.words VALUES ('three', 'many')")
    made.write_definitions(
        textwrap.dedent(KEYED).format(
            project=str(made.project), eight=EIGHT, dependencies=str(made.root / "dependencies")
        )
    )
    return made


@pytest.fixture(scope="module")
def one_of_eight(keyed: Deployment) -> Run:
    return keyed.execute(job="eight", config={"execution_time": RUN_AT})


def test_one_failure_among_eight_leaves_six_materialized(
    one_of_eight: Run, keyed: Deployment
) -> None:
    assert not one_of_eight.success
    six = set(EIGHT) - {"casted", "after_cast"}
    assert set(one_of_eight.materialized) == six
    assert six <= {
        name for name, until in recorded_until(keyed.project).items() if until == "2026-01-05"
    }
    assert recorded_until(keyed.project)["leaf"] == "2026-01-02", "it was not selected"


def test_custom_asset_key_keeps_dependencies(one_of_eight: Run, keyed: Deployment) -> None:
    assert one_of_eight.materialized["daily"].asset_key.path == ["warehouse", "of", "daily"]
    parents = {
        key: deps
        for key, *deps in map(str.split, (keyed.root / "dependencies").read_text().splitlines())
    }
    assert parents["warehouse/of/daily"] == ["warehouse/of/orders"]
    assert parents["warehouse/of/daily_view"] == ["warehouse/of/daily"]
    assert parents["warehouse/of/orders"] == ["lake/orders"]


def test_commands_in_the_log_repeat_the_failure(one_of_eight: Run, keyed: Deployment) -> None:
    shell, command = (
        line.partition(": ")[2]
        for line in one_of_eight.messages.splitlines()
        if line.startswith(("A shell like the runner's: ", "To repeat this in it: "))
    )
    repeated = subprocess.run(
        ["bash", "-c", f"{shell} && {command}"],
        env=keyed.environ(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert repeated.returncode == 1
    assert "0 materialized, 1 failed, 1 skipped, 6 not due" in repeated.stdout
