"""Start runners in a cluster at once, each with a shop and an environment of its own.

    KUBECONFIG=… .venv/bin/python benchmarks/pods.py shop-runner:1 --runs 10

Every pod plans its copy of the project on DuckDB, in an environment of its own, and runs what is
due two days later. Printed are the seconds until the first message and the end, the pod's peak
memory, and whether the results are complete.
"""

import argparse
import json
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

from dagster_sqlmesh_pipes import KubernetesLauncher
from dagster_sqlmesh_pipes.launchers.base import LaunchRequest
from dagster_sqlmesh_pipes.launchers.labels import RUN_ID_LABEL

_SCRIPT = """
cp -r /project /tmp/shop && cd /tmp/shop && python prepare.py >&2
sqlmesh --log-file-dir /tmp/logs plan "$TARGET" --auto-apply --no-prompts --include-unmodified >&2
sqlmesh-runner "$@" --environment "$TARGET" --project-dir /tmp/shop
code=$?
cat /sys/fs/cgroup/memory.peak /sys/fs/cgroup/memory/memory.max_usage_in_bytes 2>/dev/null \
  | sed 's/^/peak memory: /' >&2
exit $code
"""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image")
    parser.add_argument("--runs", type=int, default=10)
    options = parser.parse_args()
    numbers = range(options.runs)
    with ThreadPoolExecutor(options.runs) as pool:
        for line in pool.map(lambda number: _run(options.image, number), numbers):
            print(line, flush=True)


def _run(image: str, number: int) -> str:
    environment = "prod" if number == 0 else f"dev_{number}"
    launcher = KubernetesLauncher(
        image=image,
        image_pull_policy="IfNotPresent",
        command=["sh", "-c", _SCRIPT, "sh"],
        env={"TARGET": environment},
        keep="always",
        resources={"requests": {"cpu": "50m"}, "limits": {"memory": "1Gi"}},
    )
    then = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    arguments = ["run", "--end", then, "--execution-time", then]
    extras = {"protocol_version": 1, "selection": "all", "models": {}, "standalone_audits": {}}
    context: Any = {
        "asset_keys": None,
        "run_id": environment,
        "job_name": None,
        "retry_number": 0,
        "extras": extras,
    }
    began = time.monotonic()
    labels = {RUN_ID_LABEL: environment}
    request = LaunchRequest(arguments=arguments, context=context, labels=labels)
    first, payloads = None, []
    with launcher.launch(request) as runner:
        started = time.monotonic() - began
        while (line := runner.read()) is not None:
            first = first or time.monotonic() - began
            payload = (json.loads(line)["params"] or {}).get("payload")
            payloads += [payload] if payload else []
        end = runner.wait()
    peak = _peak_memory(launcher, environment)
    finished = [payload for payload in payloads if payload["type"] == "run_finished"]
    ran = {payload["model"] for payload in payloads if payload["type"] == "batch_finished"}
    outcome = finished[0]["outcome"] if finished else f"broke off ({end})"
    complete = bool(finished) and set(finished[0]["materialized"]) <= ran
    seconds = f"started {started:.1f} s, first message {first or 0:.1f} s"
    total = time.monotonic() - began
    return (
        f"{environment}: {seconds}, end {total:.1f} s, {peak}, {outcome}, "
        f"{len(ran)} models, {'complete' if complete else 'INCOMPLETE'}"
    )


def _peak_memory(launcher: KubernetesLauncher, run_id: str) -> str:
    """Return the pod's peak memory, from the end of its log, and delete the pod."""
    (pod,) = launcher.list_runners({RUN_ID_LABEL: run_id})
    log = subprocess.run(
        ["kubectl", "logs", "--tail=3", pod.name], capture_output=True, text=True, check=True
    )
    launcher.remove_runner(pod)
    found = re.findall(r"peak memory: (\d+)", log.stdout)
    return f"{int(found[0]) / 2**20:.0f} MiB" if found else "?"


if __name__ == "__main__":
    main()
