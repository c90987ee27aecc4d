"""Measure the other two integrations of SQLMesh beside this one.

    make bench-peers [ARGS="--models 10 100 --repeat 1 --timeout 900"]

Each peer gets an environment of its own in .venv-peers, with the same versions of Dagster, SQLMesh
and DuckDB as here. One generated project is planned once; every measurement gets a copy of it and
its DuckDB database. Each peer runs everything that is due by its documented way: its definitions,
and a job of all assets. That it leaves the same intervals and rows as plain `sqlmesh run` is
asserted before a time is printed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from measure import Bench, Command, Equal, compare, recorded, reported
from run import (
    DEFINITIONS,
    RUNNER,
    SCHEDULED,
    generate,
    new_bench,
    plan,
    scheduled_job,
    sqlmesh_run,
    versions,
)
from storage import dagster_home

ENVIRONMENTS = Path(__file__).parents[1] / ".venv-peers"
PEERS = {"dg-sqlmesh": "1.10.1", "dagster-sqlmesh": "0.22.0"}

# dg-sqlmesh refuses to run with another coordinator.
QUEUED = """\
run_coordinator:
  module: dagster._core.run_coordinator.queued_run_coordinator
  class: QueuedRunCoordinator
"""

DG_SQLMESH = """\
from dg_sqlmesh import sqlmesh_definitions_factory

defs = sqlmesh_definitions_factory(project_dir={project!r}, gateway="local")
"""

# A step per model, each in a process that opens the database: DuckDB lets in one at a time.
ONE_STEP_AT_A_TIME = "execution: {config: {multiprocess: {max_concurrent: 1}}}\n"

DAGSTER_SQLMESH = """\
import dagster as dg
from dagster_sqlmesh import SQLMeshContextConfig, SQLMeshResource, sqlmesh_assets

config = SQLMeshContextConfig(path={project!r}, gateway="local")


@sqlmesh_assets(environment="prod", config=config)
def project(context: dg.AssetExecutionContext, sqlmesh: SQLMeshResource):
    yield from sqlmesh.run(context, config=config, environment="prod")


defs = dg.Definitions(
    assets=[project],
    resources={{"sqlmesh": SQLMeshResource()}},
    jobs=[dg.define_asset_job("everything")],
)
"""


def make_environments() -> None:
    """Install each peer, if it isn't yet, beside what this project's own environments have."""
    uv = os.environ.get("UV", "uv")
    here = _installed(sys.executable, "dagster", "sqlalchemy")
    runners = _installed(RUNNER.with_name("python"), "sqlmesh", "duckdb")
    for name, version in PEERS.items():
        environment = ENVIRONMENTS / name
        interpreter = f"{sys.version_info.major}.{sys.version_info.minor}"
        options = ["--quiet", "--allow-existing", "--python", interpreter]
        subprocess.run([uv, "venv", *options, environment], check=True)
        options = ["--quiet", "--python", environment / "bin" / "python"]
        packages = [f"{name}=={version}", *here, *runners]
        subprocess.run([uv, "pip", "install", *options, *packages], check=True)


def _installed(python: str | Path, *names: str) -> list[str]:
    ask = "import sys; from importlib.metadata import version as v\n"
    ask += "for name in sys.argv[1:]: print(f'{name}=={v(name)}')"
    asked = subprocess.run([python, "-c", ask, *names], stdout=subprocess.PIPE, check=True)
    return asked.stdout.decode().split()


def dg_sqlmesh(project: Path) -> list[str | Path]:
    (project / "run.yaml").write_text(ONE_STEP_AT_A_TIME)
    command = _job("dg-sqlmesh", project, DG_SQLMESH, "sqlmesh_job")
    return [*command, "-c", project / "run.yaml"]


def dagster_sqlmesh(project: Path) -> list[str | Path]:
    return _job("dagster-sqlmesh", project, DAGSTER_SQLMESH, "everything")


def _job(peer: str, project: Path, text: str, job: str) -> list[str | Path]:
    path = project / "definitions.py"
    path.write_text(text.format(project=str(project)))
    dagster = ENVIRONMENTS / peer / "bin" / "dagster"
    return [dagster, "job", "execute", "-f", path, "-j", job]


def loading(python: str | Path, text: str) -> Command:
    def command(project: Path) -> list[str | Path]:
        (project / "definitions.py").write_text(text.format(project=str(project)))
        return [python, "-c", "import definitions; definitions.defs.get_repository_def()"]

    return command


def runs(bench: Bench, project: Path, models: int, audits: int, repeat: int) -> None:
    """Compare whole runs, and print how many results each reported to Dagster."""
    jobs: dict[str, Command] = {
        SCHEDULED: scheduled_job,
        "dagster-sqlmesh": dagster_sqlmesh,
        "dg-sqlmesh, one step at a time": dg_sqlmesh,
    }
    commands = {"sqlmesh run": sqlmesh_run, **jobs}
    counts: dict[str, tuple[int, int]] = {}
    equal: list[Equal] = [(recorded, list(commands))]
    equal += [(_counting(bench, counts, name), [name]) for name in jobs]
    title = f"{models} models, {audits} audits each, all due"
    compare(bench, title, project, commands, repeat=repeat, equal=equal, may_fail=list(jobs)[1:])
    print("\n| reported to Dagster | materializations | check evaluations |\n|---|--:|--:|")
    for name, (materializations, checks) in counts.items():
        print(f"| {name} | {materializations} | {checks} |", flush=True)


def _counting(
    bench: Bench, counts: dict[str, tuple[int, int]], name: str
) -> Callable[[Path], object]:
    def count(_project: Path) -> object:
        found = reported(Path(bench.env["DAGSTER_HOME"]))
        checks = sum(number for what, number in found.items() if what.startswith("check "))
        counts[name] = (found.total() - checks, checks)
        return counts[name]

    return count


def definitions(bench: Bench, project: Path, models: int, repeat: int) -> None:
    """Compare what it costs to load definitions."""
    commands: dict[str, Command] = {
        "here": loading(sys.executable, DEFINITIONS),
        "dagster-sqlmesh": loading(ENVIRONMENTS / "dagster-sqlmesh/bin/python", DAGSTER_SQLMESH),
        "dg-sqlmesh": loading(ENVIRONMENTS / "dg-sqlmesh/bin/python", DG_SQLMESH),
    }
    compare(bench, f"definitions of {models} models", project, commands, repeat=repeat)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    parts = ["definitions", "runs"]
    add("--only", nargs="+", choices=parts, default=parts, help="the tables to measure")
    add("--models", type=int, nargs="+", default=[10, 100], help="sizes of the projects")
    add("--audits", type=int, default=2, help="audits of each model (default: 2; at most 11)")
    add("--repeat", type=int, default=1, help="measurements of each (default: 1)")
    add("--timeout", type=float, default=1800, help="seconds after which a run is given up")
    options = parser.parse_args()
    make_environments()
    peers = ", ".join(f"{name} {version}" for name, version in PEERS.items())
    print(versions(), peers, sep="\n", flush=True)
    with (
        tempfile.TemporaryDirectory() as name,
        dagster_home(Path(name, "home"), config=QUEUED) as home,
    ):
        bench = new_bench(Path(name), home, options.timeout)
        for models in options.models:
            # Without tags for Dagster's groups: dagster-sqlmesh refuses their colons.
            project = generate(
                bench, f"peers_{models}", models=models, audits=options.audits, groups=False
            )
            plan(bench, project)
            if "definitions" in options.only:
                definitions(bench, project, models, options.repeat)
            if "runs" in options.only:
                runs(bench, project, models, options.audits, options.repeat)


if __name__ == "__main__":
    main()
