"""`make demo`: plan the shop as of yesterday, run it through Dagster, show Dagster's event log.

Runs in Dagster's environment; SQLMesh is in the one that SQLMESH_RUNNER points into.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import dagster as dg

HERE = Path(__file__).parent
SHOP = HERE / "shop"
DAGSTER = Path(sys.executable).parent
RUNNER = Path(os.environ["SQLMESH_RUNNER"]).parent
MANIFEST = SHOP / ".sqlmesh-pipes" / "manifest.json"


def main() -> None:
    home = Path(os.environ["DAGSTER_HOME"])
    step("Write the raw tables", DAGSTER / "python", "prepare.py")
    # As of yesterday, so that the run has a day to catch up with. Earlier plans stay as they are.
    step(
        "Plan the environment prod",
        RUNNER / "sqlmesh",
        "plan",
        "--auto-apply",
        "--no-prompts",
        "--execution-time",
        "1 day ago",
    )
    step(
        "Make the manifest",
        RUNNER / "sqlmesh-runner",
        "manifest",
        "--column-lineage",
        "-o",
        MANIFEST,
    )
    step(
        "Run everything through Dagster",
        DAGSTER / "dagster",
        "job",
        "execute",
        "-f",
        "definitions.py",
        "-j",
        "__ASSET_JOB",
    )
    show(home)


def step(title: str, *command: str | Path) -> None:
    """Run a command in the shop's folder; show its output only if it fails."""
    arguments = [str(part) for part in command]
    print(
        f"→ {title}: {shlex.join([Path(arguments[0]).name, *map(_short, arguments[1:])])}",
        flush=True,
    )
    done = subprocess.run(
        arguments,
        cwd=SHOP,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(
            f"{done.stdout}\n{title} failed (exit code {done.returncode}). Its output is above."
        )


def show(home: Path) -> None:
    """Print the materializations and checks of the last run, from Dagster's event log."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        (record,) = instance.get_run_records(limit=1)
        run, logs = record.dagster_run, instance.all_logs(record.dagster_run.run_id)
    started = record.start_time or 0.0
    rows = [("after", "asset", "what happened", ""), *_rows(logs, started)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    print(f"\nRun {run.run_id}: {run.status.value}\n")
    for row in rows:
        print(
            "  "
            + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    counted = [event for event in logs if event.asset_materialization is not None]
    print(
        f"\n{len(counted)} assets were materialized, each stored during the run. See them in "
        "the UI: make ui, then http://localhost:3000"
    )


def _rows(logs: Sequence[dg.EventLogEntry], started: float) -> Iterator[tuple[str, str, str, str]]:
    for entry in logs:
        event = entry.dagster_event
        after = f"{entry.timestamp - started:.1f} s"
        if entry.asset_materialization is not None:
            found = entry.asset_materialization
            yield after, found.asset_key.to_user_string(), "materialized", _span(found)
        elif event is not None and event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            verdict = "passed" if check.passed else f"FAILED ({check.severity.value})"
            yield after, check.asset_key.to_user_string(), f"  check {check.check_name}", verdict


def _span(materialization: dg.AssetMaterialization) -> str:
    seconds = materialization.metadata.get("sqlmesh/duration")
    batches = materialization.metadata.get("sqlmesh/batches")
    if seconds is None or batches is None:
        return ""
    return f"{batches.value} batch{'' if batches.value == 1 else 'es'}, {seconds.value:.1f} s"


def _short(argument: str) -> str:
    return argument.removeprefix(f"{SHOP}/")


if __name__ == "__main__":
    main()
