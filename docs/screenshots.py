"""Take the documentation's screenshots of the example, in Dagster's environment.

It works on a copy of the shop: a plan and "Materialize all", which finds nothing due, then a day's
work, then a run of the schedule over an order that an audit refuses. It needs Chromium, by its name
or $CHROMIUM, and $SQLMESH_RUNNER.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import duckdb

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
BIN = Path(sys.executable).parent
RUNNER_BIN = Path(os.environ["SQLMESH_RUNNER"]).parent
ASSET = "shop/marts/daily_revenue"
FAILED = "shop/staging/order_lines"
GRAPH = f"/assets/{ASSET}?view=lineage&lineageScope=upstream&lineageDepth=5"
NOW = datetime.now(UTC)
PLANNED_AT, WORKED_AT = NOW - timedelta(hours=25), NOW - timedelta(hours=1)
ORDER_TOO_LARGE = """
    UPDATE raw.events SET stage = 'order', quantity = 40
    WHERE event_id = (SELECT MAX(event_id) FROM raw.events WHERE occurred_at < ?)
"""
FAILING_RUN = """
from datetime import UTC, datetime

import dagster as dg
from definitions import defs

(schedule,) = (each for each in defs.schedules if each.name == "sqlmesh_adaptive_schedule")
job = defs.resolve_job_def(schedule.job_name)
with dg.DagsterInstance.get() as instance:
    context = dg.build_schedule_context(instance, datetime.now(UTC))
    (request,) = schedule.evaluate_tick(context).run_requests
    due = job.get_subset(asset_selection={*request.asset_selection}, asset_check_selection=set())
    due.execute_in_process(instance=instance, tags=request.tags, raise_on_error=False)
"""
SIZES = {"asset-graph": (2300, 1040), "asset": (1400, 1100), "failed-model": (1400, 1000)}


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        shop = Path(folder) / "shop"
        made = shutil.ignore_patterns("*.db*", ".cache", "logs", ".sqlmesh-pipes", "reports")
        shutil.copytree(ROOT / "examples" / "shop", shop, ignore=made)
        home = Path(folder) / "home"
        home.mkdir()
        shutil.copy(ROOT / "examples" / "dagster.yaml", home)
        os.environ["DAGSTER_HOME"] = str(home)
        plan(shop)
        materialize_all(shop, PLANNED_AT)
        take_all(shop, {"asset-graph": GRAPH})
        materialize_all(shop, WORKED_AT)
        take_all(shop, succeeded_pages())
        fail(shop)
        take_all(shop, {"failed-model": f"/assets/{FAILED}?view=events"})


def plan(shop: Path) -> None:
    run(shop, BIN / "python", "prepare.py")
    options = ("--auto-apply", "--no-prompts", "--execution-time", f"{PLANNED_AT:%Y-%m-%d %H:%M}")
    run(shop, RUNNER_BIN / "sqlmesh", "plan", *options)
    manifest = shop / ".sqlmesh-pipes" / "manifest.json"
    run(shop, RUNNER_BIN / "sqlmesh-runner", "manifest", "--column-lineage", "-o", manifest)


def materialize_all(shop: Path, at: datetime) -> None:
    config = {"ops": {"sqlmesh_prod": {"config": {"execution_time": f"{at:%Y-%m-%d %H:%M}"}}}}
    options = ("--select", "*", "--config-json", json.dumps(config))
    run(shop, BIN / "dagster", "asset", "materialize", "-f", "definitions.py", *options)


def fail(shop: Path) -> None:
    hour = NOW.replace(tzinfo=None, minute=0, second=0, microsecond=0)
    with closing(duckdb.connect(str(shop / "shop.db"))) as connection:
        connection.execute(ORDER_TOO_LARGE, [hour])
    run(shop, BIN / "python", "-c", FAILING_RUN)


def run(shop: Path, *command: str | Path) -> None:
    print("→", *command[:2])
    subprocess.run([str(part) for part in command], cwd=shop, check=True, capture_output=True)


def succeeded_pages() -> dict[str, str]:
    """Return the pages to take of what a run did, by the image's name."""
    with dg.DagsterInstance.get() as instance:
        (record,) = instance.get_run_records(limit=1)
    return {
        "asset": f"/assets/{ASSET}?view=overview",
        "asset-checks": f"/assets/{ASSET}?view=checks",
        "run": f"/runs/{record.dagster_run.run_id}",
    }


def take_all(shop: Path, pages: dict[str, str]) -> None:
    """Write the pictures of pages."""
    with webserver(shop) as address:
        for name, page in pages.items():
            take(f"{address}{page}", name)


@contextmanager
def webserver(shop: Path) -> Iterator[str]:
    """Serve the code location."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [BIN / "dagster-webserver", "-f", "definitions.py", "-p", str(port)],
        cwd=shop,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/server_info")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def wait_for(url: str) -> None:
    """Wait until a page answers.

    Raises:
        SystemExit: it did not within two minutes.
    """
    for _ in range(240):
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise SystemExit(f"{url} does not answer")


def take(url: str, name: str) -> None:
    """Write a page's picture."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or "google-chrome"
    width, height = SIZES.get(name, (1400, 900))
    with tempfile.TemporaryDirectory() as profile:
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--user-data-dir={profile}"]
        size = f"--window-size={width},{height}"
        output = f"--screenshot={IMAGES / name}.png"
        command = [chromium, *options, size, "--virtual-time-budget=60000", output, url]
        subprocess.run(command, check=True, capture_output=True, timeout=180)
    print(IMAGES / f"{name}.png")


if __name__ == "__main__":
    main()
