"""Measure, side by side in one run: what Dagster and the runner add to plain SQLMesh.

    python benchmarks/run.py [--only due …] [--models 100 500] [--audits 2] [--large 1000]
                             [--storage sqlite] [--repeat 3]

Run it in Dagster's environment; SQLMesh's is taken from SQLMESH_RUNNER. Each measurement is one
process with all that it starts, on a copy of one planned DuckDB database. CPU seconds are user
and system together; medians are shown. That all ways leave the same intervals and rows in
SQLMesh's database, and the same materializations and check evaluations in Dagster's, is asserted
before a time is printed.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

from generate_project import Shape, generate_project
from measure import Bench, Command, compare, recorded, reported
from storage import STORAGES, dagster_home

from dagster_sqlmesh_pipes.manifest import inputs_digest

RUNNER = Path(
    os.environ.get("SQLMESH_RUNNER")
    or Path(__file__).parents[1] / ".venv-runner/bin/sqlmesh-runner"
)
SQLMESH = RUNNER.with_name("sqlmesh")
DAGSTER = Path(sys.executable).with_name("dagster")
MANIFEST = Path(".sqlmesh-pipes", "manifest.json")

DEFINITIONS = """\
from dagster_sqlmesh_pipes import sqlmesh_definitions_factory

defs = sqlmesh_definitions_factory(project_dir={project!r})
"""

# The same assets and checks, which a plain Dagster asset reports: what Dagster itself costs.
PLAIN = """\
import dagster as dg
from dagster_sqlmesh_pipes import SQLMeshProject, SQLMeshTranslator
from dagster_sqlmesh_pipes.mapping import ProjectMapping

mapping = ProjectMapping(SQLMeshProject({project!r}), SQLMeshTranslator())
specs = [dg.AssetSpec(spec.key, deps=spec.deps, skippable=True)
         for spec in mapping.specs.values()]
checks = [key for of_model in mapping.checks.values() for key, _ in of_model.values()]


@dg.multi_asset(
    specs=specs,
    check_specs=[dg.AssetCheckSpec(key.name, asset=key.asset_key) for key in checks],
    can_subset=True,
)
def models(context):
    if {logs}:
        for spec in specs:
            context.log_event(dg.AssetMaterialization(spec.key, metadata={{"rows": 10}}))
        for key in checks:
            context.log_event(
                dg.AssetCheckEvaluation(key.asset_key, key.name, True, metadata={{"rows": 0}})
            )
    elif {reports}:
        for spec in specs:
            yield dg.MaterializeResult(spec.key, metadata={{"rows": 10}})
        for key in checks:
            yield dg.AssetCheckResult(
                passed=True, asset_key=key.asset_key, check_name=key.name, metadata={{"rows": 0}}
            )
    yield from ()


everything = dg.AssetSelection.assets(models)
defs = dg.Definitions(
    assets=[models],
    jobs=[
        dg.define_asset_job("everything", everything),
        dg.define_asset_job(
            "lean", everything.without_checks(), executor_def=dg.in_process_executor
        ),
    ],
)
"""

# A code server that has loaded its definitions stays: taking a process apart costs as much again.
LEAVE = "import os; os._exit(0)"

EMPTY = "Dagster run that reports nothing"
LEAN = "the same, lean: in process, no checks planned"
PLAIN_ASSET = "plain Dagster asset, same results"
LEAN_ASSET = "lean plain asset, same results logged"
SCHEDULED = "the schedule's job"
BASES = {
    "ratio": ["sqlmesh run", EMPTY],
    "ratio to lean": ["sqlmesh run", LEAN],
}


def new_bench(folder: Path, home: Path, timeout: float = 3600.0) -> Bench:
    """Return the environment that all processes get."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    ours = {
        "DAGSTER_HOME": str(home),
        "SQLMESH_RUNNER": str(RUNNER),
        "SQLMESH__DISABLE_ANONYMIZED_ANALYTICS": "true",
    }
    return Bench(folder, {**kept, **ours}, timeout)


def generate(bench: Bench, name: str, *, models: int, audits: int, groups: bool = True) -> Path:
    """Write a project of daily models, which only midnight makes due, and its manifest."""
    start = (datetime.now(UTC) - timedelta(days=3)).date()
    shape = Shape(
        models=models, audits=audits, start=start.isoformat(), crons=("@daily",), groups=groups
    )
    project = generate_project(bench.folder / name, shape)
    bench.run(RUNNER, "manifest", "-o", MANIFEST, cwd=project)
    return project


def plan(bench: Bench, project: Path) -> None:
    """Plan as of the day before yesterday: all models are due."""
    at = (datetime.now(UTC) - timedelta(days=2)).date()
    options = ["--auto-apply", "--no-prompts", "--skip-tests", "--execution-time", f"{at} 00:00:00"]
    bench.run(SQLMESH, "plan", *options, cwd=project)


def sqlmesh_run(_project: Path) -> list[str | Path]:
    return [SQLMESH, "run"]


def runner_run(_project: Path) -> list[str | Path]:
    return [RUNNER, "run"]


def scheduled_job(project: Path) -> list[str | Path]:
    return _job(project, DEFINITIONS, "sqlmesh_adaptive_schedule_job")


def all_assets(project: Path) -> list[str | Path]:
    return _job(project, DEFINITIONS, "__ASSET_JOB")


def empty_run(project: Path) -> list[str | Path]:
    return _job(project, PLAIN, "everything", reports=False, logs=False)


def lean_run(project: Path) -> list[str | Path]:
    return _job(project, PLAIN, "lean", reports=False, logs=False)


def lean_asset(project: Path) -> list[str | Path]:
    return _job(project, PLAIN, "lean", reports=True, logs=True)


def plain_asset(project: Path) -> list[str | Path]:
    return _job(project, PLAIN, "everything", reports=True, logs=False)


def _job(project: Path, text: str, job: str, **values: object) -> list[str | Path]:
    path = project / "definitions.py"
    path.write_text(text.format(project=str(project), **values))
    return [DAGSTER, "job", "execute", "-f", path, "-j", job]


def one_of_many(command: list[str | Path]) -> Command:
    """Run a single model of the last layer."""
    return lambda _project: [*command]


def load_definitions(project: Path) -> list[str | Path]:
    (project / "definitions.py").write_text(DEFINITIONS.format(project=str(project)))
    load = "import definitions; definitions.defs.get_repository_def()"
    return [sys.executable, "-c", f"{load}; {LEAVE}"]


def importing(module: str) -> Command:
    return lambda _project: [sys.executable, "-c", f"import {module}; {LEAVE}"]


def all_due(bench: Bench, models: int, audits: int, repeat: int) -> None:
    """Compare whole runs of a project all of whose models are due."""
    project = generate(bench, f"due_{models}", models=models, audits=audits)
    plan(bench, project)
    by_hand = "all assets, launched by hand"
    runs: dict[str, Command] = {
        "sqlmesh run": sqlmesh_run,
        EMPTY: empty_run,
        LEAN: lean_run,
        "sqlmesh-runner run": runner_run,
        SCHEDULED: scheduled_job,
        by_hand: all_assets,
        PLAIN_ASSET: plain_asset,
        LEAN_ASSET: lean_asset,
    }
    home = Path(bench.env["DAGSTER_HOME"])
    equal = [
        (recorded, ["sqlmesh run", "sqlmesh-runner run", SCHEDULED, by_hand]),
        (lambda _project: reported(home), [SCHEDULED, by_hand, PLAIN_ASSET, LEAN_ASSET]),
    ]
    title = f"{models} models, {audits} audits each, all due"
    compare(bench, title, project, runs, repeat=repeat, equal=equal, bases=BASES)


def nothing_due(bench: Bench, models: int, audits: int, repeat: int) -> None:
    """Compare whole runs of a project none of whose models is due."""
    project = generate(bench, f"idle_{models}", models=models, audits=audits)
    bench.run(SQLMESH, "plan", "--auto-apply", "--no-prompts", "--skip-tests", cwd=project)
    bench.run(SQLMESH, "run", cwd=project)
    runs: dict[str, Command] = {
        "sqlmesh run": sqlmesh_run,
        EMPTY: empty_run,
        LEAN: lean_run,
        "sqlmesh-runner run": runner_run,
        SCHEDULED: scheduled_job,
    }
    equal = [(recorded, ["sqlmesh run", "sqlmesh-runner run", SCHEDULED])]
    title = f"{models} models, nothing due"
    compare(bench, title, project, runs, repeat=repeat, equal=equal, bases=BASES)


def few_of_many(bench: Bench, models: int, repeat: int) -> None:
    """Compare runs of one due model."""
    name = f"layer_{(models - 1) // Shape(models=models).width}.model_0"  # of the last layer
    runs: dict[str, Command] = {
        "sqlmesh run": one_of_many(
            [SQLMESH, "run", "--select-model", name, "--no-auto-upstream", "--ignore-cron"]
        ),
        "sqlmesh-runner run": one_of_many([RUNNER, "run", "--select", name, "--ignore-cron"]),
    }
    project = generate(bench, f"few_{models}", models=models, audits=2)
    plan(bench, project)
    title = f"1 of {models} models due"
    compare(bench, title, project, runs, repeat=repeat, equal=[(recorded, list(runs))])


def definitions(bench: Bench, models: int, repeat: int) -> None:
    """Compare what it costs to load definitions with what importing Dagster costs."""
    project = generate(bench, f"large_{models}", models=models, audits=2)
    loads: dict[str, Command] = {
        "import dagster": importing("dagster"),
        "import dagster_sqlmesh_pipes": importing("dagster_sqlmesh_pipes"),
        f"definitions of {models} models": load_definitions,
    }
    compare(bench, "loading definitions", project, loads, repeat=repeat)
    files = sum(1 for _ in project.glob("models/**/*.sql"))
    times = sorted(_seconds_to_check(project) for _ in range(repeat))
    print(f"\nchecking {files} files for changes: {1000 * times[repeat // 2]:.0f} ms of CPU")


def _seconds_to_check(project: Path) -> float:
    began = time.process_time()
    inputs_digest([project], {}, None)
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    parts = ["due", "idle", "few", "definitions"]
    add("--only", nargs="+", choices=parts, default=parts, help="the tables to measure")
    add("--models", type=int, nargs="+", default=[100, 500], help="sizes for due and idle")
    add("--audits", type=int, default=2, help="audits of each model (default: 2; at most 11)")
    add("--large", type=int, nargs="+", default=[1000], help="sizes for few and definitions")
    add("--storage", choices=STORAGES, default="sqlite", help="Dagster's (default: sqlite)")
    add("--repeat", type=int, default=3, help="measurements of each (default: 3)")
    options = parser.parse_args()
    print(versions(), f"Dagster's storage: {options.storage}", sep="\n")
    with (
        tempfile.TemporaryDirectory() as name,
        dagster_home(Path(name, "home"), options.storage) as home,
    ):
        bench = new_bench(Path(name), home)
        for part, measure in {"due": all_due, "idle": nothing_due}.items():
            for models in options.models if part in options.only else ():
                measure(bench, models, options.audits, options.repeat)
        for part, measure_large in {"few": few_of_many, "definitions": definitions}.items():
            for models in options.large if part in options.only else ():
                measure_large(bench, models, options.repeat)


def versions() -> str:
    """Return what a table was measured with."""
    ask = "from importlib.metadata import version; print(version('sqlmesh'), version('duckdb'))"
    asked = subprocess.run(
        [RUNNER.with_name("python"), "-c", ask], capture_output=True, text=True, check=True
    )
    sqlmesh, duckdb = asked.stdout.split()
    return (
        f"Dagster {version('dagster')}, SQLMesh {sqlmesh}, DuckDB {duckdb}, "
        f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores, "
        f"{datetime.now(UTC).date()}"
    )


if __name__ == "__main__":
    main()
