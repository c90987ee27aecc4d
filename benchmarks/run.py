"""Measure, side by side in one run: what Dagster and the runner add to plain SQLMesh.

    python benchmarks/run.py [--models 100] [--repeat 3] [--definitions-models 1000]

Run it in Dagster's environment; SQLMesh's is taken from SQLMESH_RUNNER. Each measurement is one process with all that it starts, on a copy
of one planned DuckDB database; CPU seconds are user and system together. Medians are shown, as ratios to the first line of their table.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from generate_project import CRONS, Shape, generate_project

RUNNER = Path(os.environ.get("SQLMESH_RUNNER") or Path(__file__).parents[1] / ".venv-runner/bin/sqlmesh-runner")
SQLMESH = RUNNER.with_name("sqlmesh")
DAGSTER = Path(sys.executable).with_name("dagster")
MANIFEST = Path(".sqlmesh-pipes", "manifest.json")

DEFINITIONS = """\
import dagster as dg
from dagster_sqlmesh_pipes import SQLMeshResource, sqlmesh_assets_factory

resource = SQLMeshResource(project_dir={project!r})
defs = dg.Definitions(assets=sqlmesh_assets_factory(sqlmesh_resource=resource))
"""
LOAD = "import definitions; definitions.defs.get_repository_def()"


@dataclass(frozen=True)
class Cost:
    """What a process and all that it started took."""

    wall: float  # seconds
    cpu: float  # seconds
    memory: float  # MB, of the largest process


def measure(command: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str]) -> Cost:
    """Run a command to its end.

    Raises:
        SystemExit: it failed; its last lines are shown.
    """
    with tempfile.TemporaryFile("w+") as output:
        began = time.perf_counter()
        process = subprocess.Popen([str(part) for part in command], cwd=cwd, env=env, stdout=output, stderr=output)
        _, status, used = os.wait4(process.pid, 0)  # of the process and of all that it waited for
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise SystemExit(f"{' '.join(map(str, command))} failed:\n{''.join(output.readlines()[-30:])}")
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


class Bench:
    """Projects, planned once, and the processes that are compared on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir()
        (self.home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self.env = {
            **inherited,
            "DAGSTER_HOME": str(self.home),
            "SQLMESH_RUNNER": str(RUNNER),
            "SQLMESH__DISABLE_ANONYMIZED_ANALYTICS": "true",
        }

    def generate(self, name: str, models: int) -> Path:
        """Write a project of daily models, so that midnight is the only time at which something becomes due, and its manifest."""
        start = (datetime.now(UTC) - timedelta(days=3)).date()
        project = generate_project(self.folder / name, Shape(models=models, start=start.isoformat()))
        for path in project.glob("models/**/*.sql"):
            text = path.read_text()
            for cron in CRONS:
                text = text.replace(f"cron '{cron}'", "cron '@daily'")
            path.write_text(text)
        self.run(RUNNER, "manifest", "-o", MANIFEST, cwd=project)
        return project

    def plan(self, project: Path) -> None:
        """Plan as of the day before yesterday: all models are due."""
        at = (datetime.now(UTC) - timedelta(days=2)).date()
        self.run(SQLMESH, "plan", "--auto-apply", "--no-prompts", "--skip-tests", "--execution-time", f"{at} 00:00:00", cwd=project)

    def run(self, *command: str | Path, cwd: Path) -> Cost:
        return measure(command, cwd=cwd, env=self.env)

    def on_copy(self, planned: Path, command: Callable[[Path], Sequence[str | Path]]) -> Cost:
        """Run a command on a copy of a project, at a path of the same length each time."""
        copy = self.folder / "copy" / planned.name
        shutil.rmtree(copy.parent, ignore_errors=True)
        shutil.copytree(planned, copy)
        return self.run(*command(copy), cwd=copy)


def plain(_project: Path) -> Sequence[str | Path]:
    return [SQLMESH, "run"]


def runner(_project: Path) -> Sequence[str | Path]:
    return [RUNNER, "run"]


def dagster(project: Path) -> Sequence[str | Path]:
    return [DAGSTER, "job", "execute", "-f", _definitions(project), "-j", "__ASSET_JOB"]


def load(project: Path) -> Sequence[str | Path]:
    _definitions(project)
    return [sys.executable, "-c", LOAD]


def nothing(_project: Path) -> Sequence[str | Path]:
    return [sys.executable, "-c", "import dagster"]


def _definitions(project: Path) -> Path:
    path = project / "definitions.py"
    path.write_text(DEFINITIONS.format(project=str(project)))
    return path


def compare(bench: Bench, title: str, project: Path, commands: Mapping[str, Callable[[Path], Sequence[str | Path]]], repeat: int) -> None:
    """Measure commands in turn, so that a busy spell of the machine hits all of them, and print their medians."""
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for _ in range(repeat):
        for name, command in commands.items():
            costs[name].append(bench.on_copy(project, command))
    print(f"\n| {title} | CPU s | ratio | wall s | MB |\n|---|---|---|---|---|")
    base = statistics.median(cost.cpu for cost in next(iter(costs.values())))
    for name, each in costs.items():
        cpu = statistics.median(cost.cpu for cost in each)
        wall = statistics.median(cost.wall for cost in each)
        memory = max(cost.memory for cost in each)
        print(f"| {name} | {cpu:.1f} | {cpu / base:.2f} | {wall:.1f} | {memory:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=100, help="in the project that is run (default: 100)")
    parser.add_argument("--repeat", type=int, default=3, help="measurements of each (default: 3)")
    parser.add_argument("--definitions-models", type=int, default=1000, help="in the project whose definitions are loaded (default: 1000)")
    options = parser.parse_args()
    runs = {"sqlmesh run": plain, "sqlmesh-runner run": runner, "dagster job execute": dagster}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        due = bench.generate("due", options.models)
        bench.plan(due)
        compare(bench, f"{options.models} models, all due", due, runs, options.repeat)
        bench.run(SQLMESH, "run", cwd=due)
        compare(bench, f"{options.models} models, nothing due", due, runs, options.repeat)
        large = bench.generate("large", options.definitions_models)
        loads = {"import dagster": nothing, f"definitions of {options.definitions_models} models": load}
        compare(bench, "loading definitions", large, loads, options.repeat)


if __name__ == "__main__":
    main()
