"""One project on two copies of a database has equal results with SQLMesh alone and with Dagster.

The first runs have failures: an external audit, a standalone audit, a blocking audit on the second
of three days of an incremental model, a bad cast with a model downstream, and a failing leaf. Then
all data but the leaf's is repaired, and both run again.
"""

import os
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from acceptance.local.deployment import PROJECTS, RUNNER_BIN, Deployment, Run, copy_of
from acceptance.local.planned import (
    RUN_AT,
    deploy_planned,
    observations,
    planned_at_a_fixed_time,
    sql,
    values,
)

A_DAY_LATER = "2026-01-06 00:00:00"
KINDS = PROJECTS / "audited_kinds"

# `sqlmesh run` has no option for the time of a run; this is what else it does.
PLAIN_RUN = """\
import sys
from sqlmesh import Context
from sqlmesh.core.console import create_console, set_console

set_console(create_console())
context = Context(load=False)
status = context.run(execution_time=sys.argv[1])
context.close()
print("status", status.name)
"""
WARNING = re.compile(r"\[WARNING\] (\S+): '(\w+)' audit error: (\d+) rows? failed")
FAILED_MODEL = re.compile(r"\* `(.+)`")
AUDIT_ERROR = re.compile(r"\s+'(\w+)' audit error: (\d+) rows? failed")
BATCH = re.compile(
    r"\[\d+/\d+\] (\S+) +\[.*?(?:, |run (?:external|standalone) audit.*)"
    r"audits(?: passed (\d+))?(?: failed (\d+))?\]"
)


@dataclass(frozen=True)
class Side:
    """What one side has in its database, and what it said of the last run."""

    rows: dict[str, list[Any]]
    intervals: list[Any]
    failing_rows: dict[tuple[str, str], int]  # by model and audit
    failed: set[str]
    audited: dict[str, int]  # verdicts of the models that did not fail, failing ones included


@dataclass
class Pair:
    """The two copies."""

    plain: Path
    deployment: Deployment

    def prepare(self, script: str) -> None:
        for project in (self.plain, self.deployment.project):
            sql(project / "audited.duckdb", (KINDS / script).read_text())

    def run(self, at: str) -> tuple[Side, Side, Run]:
        output = plain_run(self.plain, at)
        run = self.deployment.execute(config={"execution_time": at})
        return (
            side(self.plain, *results_of_sqlmesh(output)),
            side(self.deployment.project, *results_of_dagster(run)),
            run,
        )


def plain_run(project: Path, at: str) -> str:
    script = project.parent / "plain_run.py"
    script.write_text(PLAIN_RUN)
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DAGSTER", "SQLMESH", "PYTHONDONT"))
    }
    env = {**inherited, "COLUMNS": "400", "SQLMESH__DISABLE_ANONYMIZED_ANALYTICS": "true"}
    command = [str(RUNNER_BIN / "python"), "-W", "ignore", str(script), at]
    done = subprocess.run(
        command, cwd=project, env=env, capture_output=True, text=True, check=False
    )
    assert "status FAILURE" in done.stdout, done.stdout + done.stderr
    return done.stdout


def side(
    project: Path,
    failing_rows: dict[tuple[str, str], int],
    failed: set[str],
    audited: dict[str, int],
) -> Side:
    database = project / "audited.duckdb"
    tables = sql(
        database,
        "SELECT table_schema, table_name FROM information_schema.tables "
        "WHERE table_schema IN ('kinds', 'sqlmesh__kinds')",
    )
    rows = {
        f"{schema}.{table}": sql(database, f'SELECT * FROM {schema}."{table}" ORDER BY ALL')
        for schema, table in tables
    }
    columns = "name, identifier, version, start_ts, end_ts, is_dev, is_removed"
    return Side(
        rows,
        sql(database, f"SELECT {columns} FROM sqlmesh._intervals ORDER BY ALL"),
        failing_rows,
        failed,
        audited,
    )


def results_of_sqlmesh(output: str) -> tuple[dict[tuple[str, str], int], set[str], dict[str, int]]:
    """Read SQLMesh's own display: warnings, a line a batch, and the failed models at the end."""
    failing: Counter[tuple[str, str]] = Counter()
    audited: Counter[str] = Counter()
    failed: set[str] = set()
    display, _, failures = output.partition("**Failed models**")
    for name, audit, rows in WARNING.findall(display):
        failing[plain(name), audit] += int(rows)
    for name, passed, not_passed in BATCH.findall(display):
        audited[plain(name)] += int(passed or 0) + int(not_passed or 0)
    for line in failures.splitlines():
        if model := FAILED_MODEL.match(line):
            current = plain(model[1])
            failed.add(current)
        elif error := AUDIT_ERROR.match(line):
            failing[current, error[1]] += int(error[2])
    return (
        dict(failing),
        failed,
        {name: count for name, count in audited.items() if name not in failed},
    )


def results_of_dagster(run: Run) -> tuple[dict[tuple[str, str], int], set[str], dict[str, int]]:
    """Read Dagster's event log: checks, observations of external assets, and the step's failure."""
    verdicts = [(check.passed, values(check)) for check in run.checks.values()]
    verdicts += [(each["audit_passed"], each) for each in map(values, observations(run))]
    failing = {
        (plain(metadata["sqlmesh_model_name"]), metadata["audit_name"]): metadata[
            "audit_failing_rows"
        ]
        for passed, metadata in verdicts
        if not passed
    }
    failed = {plain(name) for name in re.findall(r"^- (\S+) \(models/", run.error, re.MULTILINE)}
    audited: Counter[str] = Counter()
    for _, metadata in verdicts:
        audited[plain(metadata["sqlmesh_model_name"])] += metadata["audit_batches"]
    return failing, failed, {name: count for name, count in audited.items() if name not in failed}


def plain(name: str) -> str:
    return name.replace('"', "").rpartition(".")[2]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    planned = planned_at_a_fixed_time("audited_kinds", tmp_path_factory)
    made = Pair(
        copy_of(planned, tmp_path_factory.mktemp("plain") / "audited_kinds"),
        deploy_planned("audited_kinds", tmp_path_factory),
    )
    made.prepare("damage.sql")
    return made


Sides = tuple[Side, Side, Run]


@pytest.fixture(scope="module")
def damaged(pair: Pair) -> Sides:
    return pair.run(RUN_AT)


@pytest.fixture(scope="module")
def repaired(damaged: Sides, pair: Pair) -> Sides:
    pair.prepare("repair.sql")
    return pair.run(A_DAY_LATER)


@pytest.fixture(params=["damaged", "repaired"])
def sides(request: pytest.FixtureRequest) -> Sides:
    both: Callable[[str], Sides] = request.getfixturevalue
    return both(request.param)


def test_the_data_of_all_tables_is_the_same(sides: Sides) -> None:
    alone, through_dagster, _ = sides
    assert len(alone.rows) > 2 * 14, "views and the tables behind them"
    assert through_dagster.rows == alone.rows


def test_the_intervals_in_state_are_the_same(sides: Sides) -> None:
    alone, through_dagster, _ = sides
    assert alone.intervals
    assert through_dagster.intervals == alone.intervals


def test_the_audits_verdicts_are_the_same(sides: Sides) -> None:
    alone, through_dagster, _ = sides
    assert through_dagster.failing_rows == alone.failing_rows
    assert through_dagster.audited == alone.audited


def test_the_failed_models_are_the_same(sides: Sides) -> None:
    alone, through_dagster, run = sides
    assert not run.success
    assert through_dagster.failed == alone.failed


def test_what_failed_is_what_was_meant_to(damaged: Sides, repaired: Sides) -> None:
    assert damaged[0].failed == {"by_time", "numbers", "words"}
    assert damaged[0].failing_rows == {
        ("orders", "positive"): 3,
        ("by_time", "positive"): 3,
        ("by_time", "not_null"): 1,
        ("whole", "not_null"): 2,
        ("words", "unique_values"): 1,
        ("no_debts", "no_debts"): 1,
        ("no_refunds", "no_refunds"): 3,
        ("numbers_only", "numbers_only"): 1,
    }
    standalone = {"no_debts": 1, "no_refunds": 1, "numbers_only": 1}
    assert damaged[0].audited == {
        "orders": 2,
        "by_key": 1,
        "unmanaged": 1,
        "from_python": 1,
        "whole": 3,
        **standalone,
    }
    assert repaired[0].failed == {"words"}
    assert damaged[0].rows != repaired[0].rows


def test_standalone_audit_of_no_model_observes_the_external_asset(
    damaged: Sides,
) -> None:
    _, _, run = damaged
    observed = {
        values(each)["audit_name"]: each.asset_key.to_user_string() for each in observations(run)
    }
    assert observed["no_refunds"] == "external/audited/raw/orders"
    assert observed["numbers_only"] == "external/audited/raw/words"
    assert ("whole", "no_debts") in run.checks


def test_assets_are_materialized_as_far_as_sqlmesh_got(damaged: Sides, repaired: Sides) -> None:
    partly = values(damaged[2].materialized["by_time"])
    assert (
        partly["sqlmesh/batches"],
        partly["sqlmesh/batches_planned"],
        partly["sqlmesh/complete"],
    ) == (2, 3, False)
    always = {
        "by_key", "by_partition", "unmanaged", "history_by_time", "history_by_column",
        "whole", "shown", "by_hand", "from_python", "by_time",
    }  # fmt: skip
    assert set(damaged[2].materialized) == always
    assert set(repaired[2].materialized) == always | {"numbers", "total", "after_by_time"}
