"""How long a result takes from the runner's write to Dagster's event log, by launcher.

A stand-in for the runner reports 40 materializations, 0.2 seconds apart, each with the time at
which it was written; the event log has the time at which it was stored.

    python benchmarks/latency.py [docker]

Run it in Dagster's environment.
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path

import dagster as dg

from dagster_sqlmesh_pipes import (
    DockerLauncher,
    SQLMeshResource,
    SubprocessLauncher,
    sqlmesh_assets_factory,
)
from dagster_sqlmesh_pipes.launchers.base import Launcher

ASSETS = 40

RUNNER = """
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
finished = {"type": "run_finished", "outcome": "success"}
write(ASSETS + 1, "report_custom_message", {"payload": finished})
write(ASSETS + 2, "closed", {})
""".replace("ASSETS", str(ASSETS))


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory, "runner")
        script.write_text(f"#!{sys.executable}\n{RUNNER}")
        script.chmod(0o755)
        measure("subprocess", SubprocessLauncher(executable=str(script)), Path(directory))
        if "docker" in sys.argv:
            image = "python:3.11-slim-bookworm"
            measure(
                "docker",
                DockerLauncher(image=image, entrypoint=["python3", "-c", RUNNER]),
                Path(directory),
            )


def measure(name: str, launcher: Launcher, directory: Path) -> None:
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
        result = dg.materialize(assets, instance=instance)
        entries = [
            entry
            for entry in instance.all_logs(result.run_id)
            if entry.asset_materialization is not None
        ]
    late = sorted(
        entry.timestamp - float(str(entry.asset_materialization.metadata["written"].value))
        for entry in entries
        if entry.asset_materialization
    )
    quantiles = statistics.quantiles(late, n=20)
    shown = {"median": statistics.median(late), "95 %": quantiles[-1], "worst": late[-1]}
    print(f"{name:12}", *(f"{what} {seconds * 1000:4.0f} ms " for what, seconds in shown.items()))


if __name__ == "__main__":
    main()
