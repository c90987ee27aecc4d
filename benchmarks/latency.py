"""How long a result takes from the runner's write until it is stored in Dagster's event log.

    python benchmarks/latency.py [--only subprocess docker audits paced] [--models 114]
                                 [--audits 11] [--storage sqlite]

- subprocess, docker: a stand-in for the runner reports 40 materializations, 0.2 seconds apart.
- audits: the runner runs a generated project all of whose models are due, through the schedule's
  job; every materialization and check result counts, so most are written in the middle of others.
- paced: the same, with 20 ms before each result, as if the engine took longer.

The runner's side notes when each message was written, this side when Dagster's storage had taken
the event. Run it in Dagster's environment; SQLMesh's is taken from SQLMESH_RUNNER.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
from run import RUNNER, generate, new_bench, plan
from storage import STORAGES, dagster_home

from dagster_sqlmesh_pipes import (
    DockerLauncher,
    SQLMeshResource,
    SubprocessLauncher,
    sqlmesh_assets_factory,
    sqlmesh_definitions_factory,
)
from dagster_sqlmesh_pipes.launchers.base import Launcher

ASSETS = 40
PAUSE = 0.02  # seconds

STAND_IN = """
import base64, json, os, sys, time, zlib
target = json.loads(zlib.decompress(base64.b64decode(os.environ["DAGSTER_PIPES_MESSAGES"])))
out = open(target["path"], "a") if "path" in target else sys.stdout
def write(seq, method, params):
    message = {"__dagster_pipes_version": "0.1", "method": method, "params": params, "seq": seq}
    out.write(json.dumps(message) + "\\n")
    out.flush()
write(0, "opened", {"extras": {}})
for i in range(ASSETS):
    time.sleep(0.2)
    written = {"written": {"raw_value": time.time(), "type": "float"}}
    params = {"asset_key": f"w/s/m{i}", "metadata": written, "data_version": None}
    write(i + 1, "report_asset_materialization", params)
lists = dict.fromkeys(("failed", "skipped", "unknown_models"), [])
lists["materialized"] = [f'"w"."s"."m{i}"' for i in range(ASSETS)]
finished = {"type": "run_finished", "outcome": "success", "exit_code": 0, "duration": 8.0}
finished |= {**lists, "next_due": None, "error": None}
write(ASSETS + 1, "report_custom_message", {"payload": finished})
write(ASSETS + 2, "closed", {})
""".replace("ASSETS", str(ASSETS))


# The runner's own program, which notes when it has written what.
NOTING = """
import json, os, sys, time
from sqlmesh_runner import cli
from sqlmesh_runner.sinks import pipes

notes = open(os.environ["BENCH_NOTES"], "a", buffering=1)
write = pipes._NumberedChannel.write_message

def write_and_note(channel, message):
    if message["method"] not in ("report_asset_materialization", "report_asset_check"):
        return write(channel, message)
    time.sleep(float(os.environ["BENCH_PAUSE"]))
    params = message["params"]
    result = [params.get("asset_key"), params.get("check_name")]
    at = time.time()
    write(channel, message)
    notes.write(json.dumps([*result, at]) + "\\n")

pipes._NumberedChannel.write_message = write_and_note
sys.exit(cli.main())
"""

Result = tuple[str, str | None]
"""An asset's key, and a check's name."""


def stored_times(instance: dg.DagsterInstance) -> dict[Result, float]:
    """Note when the instance's storage has taken a result, from now on."""
    times: dict[Result, float] = {}
    storage = instance.event_log_storage
    store = storage.store_event

    def store_and_note(event: dg.EventLogEntry) -> None:
        store(event)
        if event.asset_materialization is not None:
            times[event.asset_materialization.asset_key.to_user_string(), None] = time.time()
        check = event.asset_check_evaluation
        if check is not None:
            times[check.asset_key.to_user_string(), check.check_name] = time.time()

    storage.store_event = store_and_note  # type: ignore[method-assign]
    return times


def in_audits(folder: Path, models: int, audits: int, pause: float, storage: str) -> None:
    """Measure every result of a run of the schedule's job, with the real runner."""
    folder.mkdir()
    with dagster_home(folder / "home", storage) as home:
        bench = new_bench(folder, home)
        project = generate(bench, "audited", models=models, audits=audits)
        plan(bench, project)
        os.environ.update(BENCH_NOTES=str(folder / "notes"), BENCH_PAUSE=str(pause))
        script = _script(folder / "sqlmesh-runner", RUNNER.with_name("python"), NOTING)
        defs = sqlmesh_definitions_factory(
            project_dir=str(project), launcher=SubprocessLauncher(executable=str(script))
        )
        job = defs.get_job_def("sqlmesh_adaptive_schedule_job")
        with dg.DagsterInstance.from_config(str(home)) as instance:
            stored = stored_times(instance)
            began = time.perf_counter()
            job.execute_in_process(instance=instance)
            wall = time.perf_counter() - began
    notes = [json.loads(line) for line in (folder / "notes").read_text().splitlines()]
    written = {(asset, check): at for asset, check, at in notes}
    _print(f"{folder.name}, {len(written)} in {wall:.0f} s", written, stored)


def _script(path: Path, interpreter: str | Path, text: str) -> Path:
    path.write_text(f"#!{interpreter}\n{text}")
    path.chmod(0o755)
    return path


def stand_in(name: str, launcher: Launcher, directory: Path) -> None:
    """Measure the results of the stand-in, as a launcher passes them on."""
    models = [
        {
            "fqn": f'"w"."s"."m{i}"',
            "name": f"s.m{i}",
            "view_name": f"m{i}",
            "catalog": "w",
            "schema_name": "s",
            "kind": {"name": "FULL"},
        }
        for i in range(ASSETS)
    ]
    manifest = directory / "manifest.json"
    manifest.write_text(
        json.dumps(
            {
                "schema_version": 1,
                "generator": {},
                "project": {},
                "models": models,
                "standalone_audits": [],
            }
        )
    )
    assets = sqlmesh_assets_factory(
        sqlmesh_resource=SQLMeshResource(manifest_path=str(manifest), launcher=launcher)
    )
    with tempfile.TemporaryDirectory() as home, dg.DagsterInstance.local_temp(home) as instance:
        stored = stored_times(instance)
        result = dg.materialize(assets, instance=instance)
        reported = (entry.asset_materialization for entry in instance.all_logs(result.run_id))
        written = {
            (event.asset_key.to_user_string(), None): float(str(event.metadata["written"].value))
            for event in reported
            if event is not None
        }
    _print(name, written, stored)


def _print(name: str, written: Mapping[Result, float], stored: Mapping[Result, float]) -> None:
    if written.keys() != stored.keys():
        raise SystemExit(f"{name}: what was written and what was stored differ")
    late = sorted(stored[result] - at for result, at in written.items())
    quantiles = statistics.quantiles(late, n=20)
    shown = {"median": statistics.median(late), "95 %": quantiles[-1], "worst": late[-1]}
    times = (f"{what} {seconds * 1000:4.0f} ms " for what, seconds in shown.items())
    print(f"{name:24}", *times, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    parts = ["subprocess", "docker", "audits", "paced"]
    default = [part for part in parts if part != "docker"]
    add("--only", nargs="+", choices=parts, default=default, help="what to time")
    add("--models", type=int, default=114, help="of the generated project (default: 114)")
    add("--audits", type=int, default=11, help="of each model (default: 11)")
    add("--storage", choices=STORAGES, default="sqlite", help="Dagster's, but for stand-ins")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "subprocess" in options.only:
            script = _script(folder / "runner", sys.executable, STAND_IN)
            stand_in("subprocess", SubprocessLauncher(executable=str(script)), folder)
        if "docker" in options.only:
            image = "python:3.11-slim-bookworm"
            launcher = DockerLauncher(image=image, entrypoint=["python3", "-c", STAND_IN])
            stand_in("docker", launcher, folder)
        for part, pause in {"audits": 0.0, "paced": PAUSE}.items():
            if part in options.only:
                models, audits = options.models, options.audits
                in_audits(folder / part, models, audits, pause, options.storage)


if __name__ == "__main__":
    main()
