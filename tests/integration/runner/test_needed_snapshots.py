"""A run that loads only what it needs does exactly what a run that loads everything does."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
from integration.runner.harness import (
    ORDERS,
    PROJECTS,
    RUN_AT,
    SQLMESH,
    STANDALONE,
    TOTALS,
    VIEW,
    ProjectCopy,
    plan_kinds,
    planned_orders,
)
from patience import PATIENCE

pytestmark = pytest.mark.skipif(SQLMESH < (0, 200), reason="its scheduler loads all snapshots")

KINDS = "model_kinds"


@dataclass(frozen=True)
class Case:
    project: str
    select: Sequence[str]
    loads: str
    arguments: Sequence[str] = ()


def _kind(*names: str) -> list[str]:
    return [f'"{KINDS}"."marts"."{name}"' for name in names]


MOST = ("by_key", "by_time", "by_partition", "in_pieces", "inserted_whole", "shown", "unmanaged")
NEEDED, ALL = "needed", "all"
CASES = {
    "incremental of an embedded model": Case(KINDS, _kind("by_time"), NEEDED),
    "incremental of an incremental": Case(KINDS, _kind("reads_by_time"), NEEDED),
    "view": Case(KINDS, _kind("shown"), NEEDED),
    "what a view reads two levels up": Case(KINDS, _kind("by_key", "shown"), NEEDED),
    "seed and its reader": Case(KINDS, ['"model_kinds"."seeds"."names"', *_kind("whole")], NEEDED),
    "python": Case(KINDS, _kind("in_pieces"), NEEDED),
    "custom materialization": Case(KINDS, _kind("inserted_whole"), NEEDED),
    "histories": Case(KINDS, _kind("history_by_time", "history_by_column"), NEEDED),
    "partitions": Case(KINDS, _kind("by_partition"), NEEDED),
    "external": Case(KINDS, ['"model_kinds"."raw"."orders"', *_kind("unmanaged")], NEEDED),
    "from and to": Case(
        KINDS, _kind("by_time"), NEEDED, ("--start", "2026-01-02", "--end", "2026-01-03")
    ),
    "whether or not due": Case(KINDS, _kind("whole"), NEEDED, ("--ignore-cron",)),
    "most of them": Case(KINDS, _kind(*MOST), ALL),
    "due restatement elsewhere": Case("restated", _kind("reads_by_time"), ALL),
    "restatement not due": Case("restated early", _kind("reads_by_time"), NEEDED),
    "inferred start": Case("without start", _kind("reads_by_time"), NEEDED),
    "inferred start and an end": Case(
        "without start", _kind("reads_by_time"), ALL, ("--end", "2026-01-03")
    ),
    "audited totals": Case("orders", [TOTALS], NEEDED),
    "batches and their reader": Case("orders", [ORDERS, VIEW], NEEDED),
    "standalone audit": Case("orders", [STANDALONE, TOTALS], NEEDED),
    "signal": Case("orders", ['"orders"."marts"."announced"'], ALL),
    "statements": Case("statements", [TOTALS], ALL),
    "another environment": Case("dev", [TOTALS], ALL, ("--environment", "dev")),
}
RUN_TIMES = {"restated": "2099-06-01 00:00:00"}  # counted from when it was planned


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the planned projects, by name."""
    root = tmp_path_factory.mktemp("planned")
    orders = planned_orders(root)
    paths = {"orders": orders}
    for name, extra in {
        "statements": "before_all: [CREATE SCHEMA IF NOT EXISTS scratch]\n",
        "dev": "",
    }.items():
        paths[name] = Path(shutil.copytree(orders, root / name))
        with (paths[name] / "config.yaml").open("a") as config:
            config.write(extra)
        model = paths[name] / "models/heavy.sql"
        model.write_text(model.read_text().replace("% 7", "% 11"))
    ProjectCopy(paths["statements"]).plan()
    ProjectCopy(paths["dev"]).plan("dev", "--start", "2026-01-01", "--end", "2026-01-01")
    paths[KINDS] = _planned_kinds(root / KINDS, restated=False)
    paths["restated"] = paths["restated early"] = _planned_kinds(root / "restated", restated=True)
    paths["without start"] = _planned_kinds(root / "without_start", restated=False, start=False)
    return paths


def _planned_kinds(path: Path, *, restated: bool, start: bool = True) -> Path:
    shutil.copytree(PROJECTS / KINDS, path)
    by_time, config = path / "models/by_time.sql", path / "config.yaml"
    restatement = "auto_restatement_cron '@weekly',\n    auto_restatement_intervals 4\n"
    text = by_time.read_text()
    assert restatement in text
    if not restated:
        text = text.replace(f",\n    {restatement}", "\n")
    if not start:
        text = text.replace("name marts.by_time,", "name marts.by_time,\n  start '2026-01-01',")
        config.write_text(config.read_text().replace("  start: 2026-01-01\n", ""))
    by_time.write_text(text)
    return plan_kinds(path)


@pytest.fixture(scope="module")
def results(
    planned: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Return what each case did, with the needed snapshots and with all of them."""
    root = tmp_path_factory.mktemp("cases")
    cases, copies = [], {}
    for number, (name, case) in enumerate(CASES.items()):
        for load_all in (False, True):
            copy = Path(shutil.copytree(planned[case.project], root / f"{number}_{load_all}"))
            copies[name, load_all] = copy
            at = RUN_TIMES.get(case.project, RUN_AT)
            arguments = ["--select", *case.select, "--execution-time", at, *case.arguments]
            events = ["--events", str(copy / "events.jsonl")]
            cases.append(
                {
                    "directory": str(copy),
                    "arguments": [*arguments, *events],
                    "load_all": load_all,
                }
            )
    path = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "integration.runner.run_cases"],
        input=json.dumps(cases),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE * 4,
    )
    assert done.returncode == 0, done.stderr
    found = iter(json.loads(done.stdout))
    return {
        name: (
            {**next(found), **_traces(copies[name, False])},
            {**next(found), **_traces(copies[name, True])},
        )
        for name in CASES
    }


_VARYING = {"duration", "data_version", "next_due", "recorded_at"}


def _traces(path: Path) -> dict[str, Any]:
    """Return the state, the tables, and the events that a run left."""
    (database,) = path.glob("*.duckdb")
    with duckdb.connect(str(database)) as connection:  # a start of DuckDB takes its time

        def sql(query: str) -> list[Any]:
            rows: list[Any] = connection.execute(query).fetchall()
            return rows

        tables = sql(
            "SELECT schema_name, table_name FROM duckdb_tables()"
            " WHERE STARTS_WITH(schema_name, 'sqlmesh__') ORDER BY ALL"
        )
        return {
            "intervals": sql(
                "SELECT name, identifier, version, start_ts, end_ts, is_dev, is_removed,"
                " is_compacted, is_pending_restatement FROM sqlmesh._intervals ORDER BY ALL"
            ),
            "restatements": sql("SELECT * FROM sqlmesh._auto_restatements ORDER BY ALL"),
            "snapshots": sql(
                "SELECT name, identifier, version, unpaused_ts FROM sqlmesh._snapshots ORDER BY ALL"
            ),
            "views": sql("SELECT schema_name, view_name, sql FROM duckdb_views() ORDER BY ALL"),
            "rows": {
                f"{schema}.{table}": sql(f'SELECT * FROM {schema}."{table}" ORDER BY ALL')
                for schema, table in tables
            },
            "events": _events(path / "events.jsonl"),
        }


def _events(path: Path) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        {key: value for key, value in event.items() if key not in _VARYING}
        for event in events
        if event["type"] != "log"
    ]


def test_limited_runs_equal_runs_of_all_snapshots(
    results: dict[str, tuple[dict[str, Any], dict[str, Any]]],
) -> None:
    """One test: its workers share no results, and the runs take a minute."""
    for name, (limited, full) in results.items():
        assert (limited["code"], full["code"]) == (0, 0), (name, limited["output"])
        for key in ("events", "intervals", "restatements", "snapshots", "views", "rows"):
            assert limited[key] == full[key], (name, key)
        expected = CASES[name].loads == NEEDED
        assert (limited["is_limited"], full["is_limited"]) == (expected, False), name
        evaluated = [event for event in limited["events"] if event["type"] == "model_materialized"]
        assert evaluated or name == "restatement not due", (name, limited["events"])
