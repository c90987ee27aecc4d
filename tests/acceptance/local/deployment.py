"""A code location on this machine, as a user would have it.

It has a planned project, definitions and a DAGSTER_HOME with SQLite.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Any

import dagster as dg
from dagster_home import make_home
from patience import PATIENCE
from preloaded import RUNNER_MODULES, PreloadedProcess, Preloader, preloader

ROOT = Path(__file__).parents[3]
PROJECTS = ROOT / "tests" / "projects"
RUNNER_BIN = ROOT / ".venv-runner" / "bin"
RUNNER = RUNNER_BIN / "sqlmesh-runner"
DAGSTER_BIN = Path(sys.executable).parent
DAGSTER_MODULES = (
    "dagster._cli",
    "dagster._core.executor.in_process",
    "dagster._core.instance.factory",
    "dagster._core.instance.runs.run_domain",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.storage.root",
    "dagster._core.storage.sqlite_storage",
    "dagster._core.workspace.autodiscovery",
    "dagster_dg_cli.cli",
    "dagster_sqlmesh_pipes",
    "upath.implementations.local",
)
"""What the programs of Dagster's environment import, some of it once they are at work."""

DEFINITIONS = """\
import dagster as dg
from dagster_sqlmesh_pipes import SQLMeshResource, SubprocessLauncher, sqlmesh_assets_factory

options = {{"project_dir": {project!r}, **{resource!r}}}
resource = SQLMeshResource(launcher=SubprocessLauncher({launcher}), **options)
defs = dg.Definitions(assets=sqlmesh_assets_factory(sqlmesh_resource=resource, **{assets!r}))
"""

IN_PROCESS: Mapping[str, Any] = {"execution": {"config": {"in_process": {}}}}


@dataclass(frozen=True)
class Run:
    """What Dagster's event log says of a run."""

    status: str
    logs: Sequence[dg.EventLogEntry]
    output: str

    @property
    def success(self) -> bool:
        return self.status == "SUCCESS"

    @property
    def materialized(self) -> dict[str, dg.AssetMaterialization]:
        """The materializations of what the run did, by the asset key's last part."""
        return self._materializations(adopted=False)

    @property
    def adopted(self) -> dict[str, dg.AssetMaterialization]:
        """The materializations of what SQLMesh recorded before, by the key's last part."""
        return self._materializations(adopted=True)

    def _materializations(self, *, adopted: bool) -> dict[str, dg.AssetMaterialization]:
        found: dict[str, dg.AssetMaterialization] = {}
        for entry in self.logs:
            made = entry.asset_materialization
            if made is not None and ("sqlmesh/recorded_by" in made.metadata) == adopted:
                name = made.asset_key.path[-1]
                assert name not in found, f"{name} was materialized twice"
                found[name] = made
        return found

    @property
    def checks(self) -> dict[tuple[str, str], dg.AssetCheckEvaluation]:
        """Return the check evaluations by the last part of the asset key and the check name."""
        found: dict[tuple[str, str], dg.AssetCheckEvaluation] = {}
        for entry in self.logs:
            event = entry.dagster_event
            if event is not None and event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                evaluation = event.asset_check_evaluation_data
                key = (evaluation.asset_key.path[-1], evaluation.check_name)
                assert key not in found, f"{key} was evaluated twice"
                found[key] = evaluation
        return found

    @property
    def verdicts(self) -> dict[tuple[str, str], tuple[bool, str]]:
        """Whether each check passed, and its severity."""
        return {
            key: (evaluation.passed, evaluation.severity.value)
            for key, evaluation in self.checks.items()
        }

    @property
    def error(self) -> str:
        """What the step's failure says."""
        for entry in self.logs:
            event = entry.dagster_event
            if event is not None and event.is_step_failure:
                data = event.step_failure_data
                described = data.user_failure_data.description if data.user_failure_data else None
                return described or (data.error.to_string() if data.error else "")
        return ""

    @property
    def messages(self) -> str:
        """The run's log, a line an entry."""
        return "\n".join(entry.user_message for entry in self.logs)

    def stored_at(self, *names: str) -> list[float]:
        """Return the timestamps of the materializations and check evaluations of assets."""
        times = []
        for entry in self.logs:
            event = entry.dagster_event
            if event is None:
                continue
            materialization = entry.asset_materialization
            if materialization is not None and materialization.asset_key.path[-1] in names:
                times.append(entry.timestamp)
            if (
                event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION
                and event.asset_check_evaluation_data.asset_key.path[-1] in names
            ):
                times.append(entry.timestamp)
        return times


@dataclass
class Deployment:
    """One code location and its instance."""

    root: Path
    project: Path
    env: dict[str, str] = field(default_factory=dict)
    resource: dict[str, Any] = field(default_factory=dict)
    assets: dict[str, Any] = field(default_factory=dict)
    launcher: str = ""
    runner: Path = RUNNER

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def definitions(self) -> Path:
        return self.root / "definitions.py"

    def write(self, *, launcher: str | None = None, **resource: Any) -> None:
        """Write the definitions, and make the manifest from the project's files."""
        self.resource.update(resource)
        if launcher is not None:
            self.launcher = launcher
        self.write_definitions(
            DEFINITIONS.format(
                project=str(self.project),
                launcher=self.launcher,
                resource=self.resource,
                assets=self.assets,
            )
        )
        self.make_manifest()

    def write_definitions(self, text: str) -> None:
        self.make_home()
        self.definitions.write_text(textwrap.dedent(text))

    def make_home(self) -> None:
        """Make the DAGSTER_HOME of an instance that has no run yet, if there is none."""
        if not self.home.exists():
            make_home(self.home)

    def make_manifest(self) -> None:
        path = self.project / ".sqlmesh-pipes" / "manifest.json"
        path.parent.mkdir(exist_ok=True)
        self.sqlmesh_runner("manifest", "--project-dir", str(self.project), "-o", str(path))

    def sqlmesh(self, *arguments: str) -> str:
        """Run SQLMesh's own CLI in the project."""
        return self._run_beside("sqlmesh", *arguments)

    def sqlmesh_runner(self, *arguments: str) -> str:
        return self._run_beside("sqlmesh-runner", *arguments)

    def _run_beside(self, *program: str) -> str:
        """Run a program of the runner's environment in the project, without Dagster."""
        done = _runner_preloader().run(
            program, cwd=self.project, env=self.environ(), timeout=PATIENCE
        )
        assert done.returncode == 0, f"{' '.join(program)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def environ(self) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("DAGSTER", "SQLMESH", "PYTHONDONT"))
        }
        return {
            **inherited,
            "DAGSTER_HOME": str(self.home),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            "SQLMESH_RUNNER": str(self.runner),
            "SQLMESH__DISABLE_ANONYMIZED_ANALYTICS": "true",
            **self.env,
        }

    def execute(self, *, job: str = "__ASSET_JOB", config: Mapping[str, Any] | None = None) -> Run:
        """Run a job with `dagster job execute`, and its steps in the same process."""
        command = ["job", "execute", "-f", str(self.definitions), "-j", job]
        return self._dagster([*command, *self._config_file({**IN_PROCESS, **_op_config(config)})])

    @contextmanager
    def executing(
        self, *, config: Mapping[str, Any] | None = None
    ) -> Iterator[tuple[PreloadedProcess, Path]]:
        """Run everything in the background, each step in a process of its own, as by default.

        Yields the process and its output's file.
        """
        output = self.root / "execute.log"
        with output.open("w") as log:
            command = [
                "job",
                "execute",
                "-f",
                str(self.definitions),
                "-j",
                "__ASSET_JOB",
                *self._config_file(_op_config(config)),
            ]
            process = self.start(*command, log=log)
        try:
            yield process, output
        finally:
            kill_group(process)

    def materialize(self, select: str, *, config: Mapping[str, Any] | None = None) -> Run:
        """Materialize a selection of assets with `dagster asset materialize`."""
        command = ["asset", "materialize", "-f", str(self.definitions), "--select", select]
        run_config = {**IN_PROCESS, **_op_config(config)}
        return self._dagster([*command, "--config-json", json.dumps(run_config)])

    def start(self, *arguments: str, log: IO[str]) -> PreloadedProcess:
        """Start a command of `dagster` in the background, in a process group of its own."""
        program = ["dagster", *arguments]
        options: dict[str, Any] = {"cwd": self.root, "env": self.environ()}
        process = _dagster_preloader().popen(
            program, stdout=log, stderr=log, start_new_session=True, **options
        )
        process.stdin.close()
        return process

    def popen(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Start one of Dagster's programs in this deployment, in a process group of its own."""
        program = [str(DAGSTER_BIN / command[0]), *command[1:]]
        return subprocess.Popen(
            program, env=self.environ(), cwd=self.root, text=True, start_new_session=True, **options
        )

    def instance(self) -> AbstractContextManager[dg.DagsterInstance]:
        """Return the instance, which stays open: it is asked again and again."""
        settings = self.home / "dagster.yaml"
        return nullcontext(
            _open_instance(self.home, settings.read_text() if settings.exists() else "")
        )

    def log_has(self, run_id: str, text: str) -> bool:
        """Return whether a run's log has an entry with `text` in it."""
        with self.instance() as instance:
            return any(text in entry.user_message for entry in instance.all_logs(run_id))

    def status(self, run_id: str) -> dg.DagsterRunStatus:
        with self.instance() as instance:
            run = instance.get_run_by_id(run_id)
            assert run is not None
            return run.status

    def last_run(self, output: str = "") -> Run:
        with self.instance() as instance:
            (record,) = instance.get_run_records(limit=1)
            return Run(
                record.dagster_run.status.value,
                instance.all_logs(record.dagster_run.run_id),
                output,
            )

    def _dagster(self, arguments: Sequence[str]) -> Run:
        done = self.dagster(*arguments)
        return self.last_run(done.stdout + done.stderr)

    def dagster(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of `dagster` to its end."""
        return run_dagster_program("dagster", *arguments, cwd=self.root, env=self.environ())

    def _config_file(self, config: Mapping[str, Any]) -> list[str]:
        """Write a run's config, and return the option that names it."""
        path = self.root / "run_config.yaml"
        path.write_text(json.dumps(config))  # JSON is YAML
        return ["-c", str(path)]


def run_dagster_program(
    *program: str, cwd: Path, env: Mapping[str, str]
) -> "subprocess.CompletedProcess[str]":
    """Run a program of Dagster's environment to its end."""
    return _dagster_preloader().run(program, cwd=cwd, env=env, timeout=PATIENCE)


def copy_of(planned: Path, to: Path) -> Path:
    """Copy a planned project; its database has no absolute paths."""
    return Path(shutil.copytree(planned, to))


def processes_with(text: str) -> Iterator[int]:
    """Yield the living processes whose command line has `text` in it."""
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and int(path.name) != os.getpid():
            try:
                command = (
                    (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
                state = (path / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if text in command and state != "Z":
                yield int(path.name)


def kill_group(process: subprocess.Popen[str] | PreloadedProcess) -> None:
    """Kill a process that has a group of its own with all that it started in it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def preloaded_runner() -> Path:
    """Return a `sqlmesh-runner` that has imported SQLMesh when Dagster starts it.

    Its process id, its parent and its command line are not those of the program.
    """
    return _runner_preloader().executable("sqlmesh-runner")


def _runner_preloader() -> Preloader:
    return preloader((str(RUNNER_BIN / "python"),), RUNNER_MODULES)


def _dagster_preloader() -> Preloader:
    return preloader((sys.executable,), DAGSTER_MODULES)


@cache
def _open_instance(home: Path, settings: str) -> dg.DagsterInstance:
    """Open an instance, which takes 0.05 s of CPU. It holds no connection between two questions."""
    return dg.DagsterInstance.from_config(str(home))


def _op_config(config: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"ops": {"sqlmesh_prod": {"config": dict(config)}}} if config else {}
