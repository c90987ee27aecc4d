"""Audits alone: how far they look, and what they say where something is not there."""

import subprocess
import sys
from pathlib import Path

from integration.runner.harness import (
    ORDERS,
    PLANNED_AT,
    TOTALS,
    ProjectCopy,
    asset_key,
    extras,
    sqlmesh,
)

_HOLDER = (
    "import duckdb, sys; connection = duckdb.connect(sys.argv[1]); "
    "print('open', flush=True); sys.stdin.read()"
)


def test_nothing_is_said_of_times_of_which_nothing_is_recorded(orders: ProjectCopy) -> None:
    run = orders.command("audit", "--start", "2030-01-01", extras=extras([ORDERS, TOTALS]))

    assert (run.code, run.end["outcome"], run.checks) == (0, "nothing_to_do", {})
    (said,) = [log["message"] for log in run.params("log") if "Not audited" in log["message"]]
    assert ORDERS in said
    assert TOTALS in said


def test_no_audit_looks_further_than_what_is_recorded(orders: ProjectCopy) -> None:
    run = orders.command(
        "audit", "--start", "1900-01-01", "--end", "2030-01-01", extras=extras([ORDERS])
    )

    check = run.checks[asset_key(ORDERS), "not_null"]
    assert (check["audit_interval_start"], check["audit_interval_end"]) == (
        1767225600.0,
        1767312000.0,
    ), "the one day that was planned"


def test_unreachable_gateway_leaves_others_audited(
    tmp_path: Path,
) -> None:
    (tmp_path / "p" / "models").mkdir(parents=True)
    project = ProjectCopy(tmp_path / "p", "one.duckdb")
    (project.path / "config.yaml").write_text(
        "gateways:\n"
        "  first: {connection: {type: duckdb, database: one.duckdb}}\n"
        "  second: {connection: {type: duckdb, database: two.duckdb}}\n"
        "default_gateway: first\n"
        "gateway_managed_virtual_layer: true\n"
        "model_defaults: {dialect: duckdb, start: 2026-01-01, cron: '@daily'}\n"
    )
    for name, gateway in (("a", "second"), ("b", "first"), ("c", "second")):
        audits = "audits (not_null(columns := (id)))"
        definition = f"MODEL (name x.{name}, kind FULL, gateway {gateway}, {audits})"
        (project.path / "models" / f"{name}.sql").write_text(f"{definition}; SELECT 1 AS id")
    sqlmesh(project.path, "plan", "--auto-apply", "--no-prompts", "--execution-time", PLANNED_AT)
    asked = extras(['"two"."x"."a"', '"one"."x"."b"', '"two"."x"."c"'])
    for model in asked["models"].values():
        model["checks"] = {"not_null:549ef709": "not_null"}

    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, "two.duckdb"],
        cwd=project.path,
        stdin=-1,
        stdout=-1,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        run = project.command("audit", extras=asked)

    assert (run.code, run.end["outcome"], run.end["failed"]) == (4, "error", [])
    assert "Connecting to gateway second failed" in run.end["error"]
    assert run.end["error"].count("Another process has the DuckDB file open") == 1
    assert set(run.checks) == {("one/x/b", "not_null")}
