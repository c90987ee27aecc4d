"""Measure, side by side in one run: what Dagster and the runner add to plain SQLMesh.

    python benchmarks/run.py [--models 100 500] [--audits 2] [--repeat 3] [--only due …]

Run it in Dagster's environment; SQLMesh's is taken from SQLMESH_RUNNER. Each measurement is one
process with all that it starts, on a copy of one planned DuckDB database. CPU seconds are user
and system together; medians are shown. That all ways leave the same intervals and rows is
asserted before a time is printed.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

from generate_project import CRONS, Shape, generate_project
from measure import Bench, Command, compare

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
    if {reports}:
        for spec in specs:
            yield dg.MaterializeResult(spec.key, metadata={{"rows": 10}})
        for key in checks:
            yield dg.AssetCheckResult(
                passed=True, asset_key=key.asset_key, check_name=key.name, metadata={{"rows": 0}}
            )
    yield from ()


defs = dg.Definitions(
    assets=[models],
    jobs=[dg.define_asset_job("everything", dg.AssetSelection.assets(models))],
)
"""


def new_bench(folder: Path) -> Bench:
    """Make a Dagster home, and the environment that all processes get."""
    home = folder / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    ours = {
        "DAGSTER_HOME": str(home),
        "SQLMESH_RUNNER": str(RUNNER),
        "SQLMESH__DISABLE_ANONYMIZED_ANALYTICS": "true",
    }
    return Bench(folder, {**kept, **ours})


def generate(bench: Bench, name: str, *, models: int, audits: int) -> Path:
    """Write a project of daily models, which only midnight makes due, and its manifest."""
    start = (datetime.now(UTC) - timedelta(days=3)).date()
    shape = Shape(models=models, audits=audits, start=start.isoformat())
    project = generate_project(bench.folder / name, shape)
    for path in project.glob("models/**/*.sql"):
        text = path.read_text()
        for cron in CRONS:
            text = text.replace(f"cron '{cron}'", "cron '@daily'")
        path.write_text(text)
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
    return _job(project, PLAIN, "everything", reports=False)


def plain_asset(project: Path) -> list[str | Path]:
    return _job(project, PLAIN, "everything", reports=True)


def _job(project: Path, text: str, job: str, **values: object) -> list[str | Path]:
    path = project / "definitions.py"
    path.write_text(text.format(project=str(project), **values))
    return [DAGSTER, "job", "execute", "-f", path, "-j", job]


def one_of_many(command: list[str | Path]) -> Command:
    """Run a single model of the last layer."""
    return lambda _project: [*command]


def load_definitions(project: Path) -> list[str | Path]:
    (project / "definitions.py").write_text(DEFINITIONS.format(project=str(project)))
    return [sys.executable, "-c", "import definitions; definitions.defs.get_repository_def()"]


def importing(module: str) -> Command:
    return lambda _project: [sys.executable, "-c", f"import {module}"]


def all_due(bench: Bench, models: int, audits: int, repeat: int) -> None:
    """Compare whole runs of a project all of whose models are due, and then of nothing due."""
    project = generate(bench, f"due_{models}", models=models, audits=audits)
    plan(bench, project)
    base = ["sqlmesh run", "Dagster run that reports nothing"]
    runs: dict[str, Command] = {
        "sqlmesh run": sqlmesh_run,
        "Dagster run that reports nothing": empty_run,
        "sqlmesh-runner run": runner_run,
        "the schedule's job": scheduled_job,
        "all assets, launched by hand": all_assets,
        "plain Dagster asset, same results": plain_asset,
    }
    same = ["sqlmesh run", "sqlmesh-runner run", "the schedule's job"]
    title = f"{models} models, {audits} audits each, all due"
    compare(bench, title, project, runs, repeat=repeat, same=same, base=base)
    bench.run(SQLMESH, "run", cwd=project)
    title = f"{models} models, nothing due"
    compare(bench, title, project, dict(list(runs.items())[:4]), repeat=repeat, base=base)


def few_of_many(bench: Bench, models: int, repeat: int) -> None:
    """Compare runs of one due model in projects of growing size."""
    name = "layer_9.model_0"
    runs: dict[str, Command] = {
        "sqlmesh run": one_of_many(
            [SQLMESH, "run", "--select-model", name, "--no-auto-upstream", "--ignore-cron"]
        ),
        "sqlmesh-runner run": one_of_many([RUNNER, "run", "--select", name, "--ignore-cron"]),
    }
    for size in sorted({100, models}):
        project = generate(bench, f"few_{size}", models=size, audits=2)
        plan(bench, project)
        title = f"1 of {size} models due"
        compare(bench, title, project, runs, repeat=repeat, same=list(runs))


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
    add("--models", type=int, nargs="+", default=[100, 500], help="sizes of the projects run")
    add("--audits", type=int, default=2, help="audits of each model (default: 2; at most 11)")
    add("--large", type=int, default=1000, help="models of the large project (default: 1000)")
    add("--repeat", type=int, default=3, help="measurements of each (default: 3)")
    parts = ["due", "few", "definitions"]
    add("--only", nargs="+", choices=parts, default=parts, help="what to measure")
    options = parser.parse_args()
    print(
        f"Dagster {version('dagster')}, Python {platform.python_version()}, "
        f"{os.cpu_count()} cores, {datetime.now(UTC).date()}"
    )
    with tempfile.TemporaryDirectory() as folder:
        bench = new_bench(Path(folder))
        if "due" in options.only:
            for models in options.models:
                all_due(bench, models, options.audits, options.repeat)
        if "few" in options.only:
            few_of_many(bench, options.large, options.repeat)
        if "definitions" in options.only:
            definitions(bench, options.large, options.repeat)


if __name__ == "__main__":
    main()
