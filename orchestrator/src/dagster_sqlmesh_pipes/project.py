"""A SQLMesh project: where it is, and how its manifest is made and kept up to date."""

import fcntl
import functools
import logging
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import dagster as dg

from dagster_sqlmesh_pipes.errors import LaunchError, ManifestError
from dagster_sqlmesh_pipes.launchers.base import Launcher
from dagster_sqlmesh_pipes.launchers.subprocess import SubprocessLauncher
from dagster_sqlmesh_pipes.manifest import Manifest, inputs_digest, load_manifest
from dagster_sqlmesh_pipes.options import ProjectOptions, as_folders, runner_arguments

__all__ = ["SQLMeshProject"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, init=False)
class SQLMeshProject:
    """A SQLMesh project: its folders as the runner sees them, its manifest as this process does.

    Args:
        project_dir: the project's folder, or the folders of a multi-project setup; None where the
            runner has its own: an image with the project in it.
        manifest_path: the manifest's file. Default: `manifest.json` in the folder `.sqlmesh-pipes`
            of the (first) project folder.
        gateway: SQLMesh's gateway. Default: the project's.
        environment: the SQLMesh environment whose views the assets are.
        config_name: the variable of `config.py` that is the configuration (`sqlmesh --config`).
        dotenv: a file of environment variables, in place of the project's `.env`.
        working_directory: where relative paths of the configuration start. Default: the project,
            or the runner's current directory if the file is only there.
        column_lineage: whether a manifest made in development has column lineage.
        keep_last_manifest: whether, in development, a project that can't be loaded keeps its last
            manifest, with a warning. Else it is an error.
        launcher: what makes the manifest. Default: a subprocess.

    Raises:
        ManifestError: neither `project_dir` nor `manifest_path` is given.
    """

    project_dirs: tuple[str, ...]
    manifest_path: Path
    gateway: str | None
    environment: str
    config_name: str | None
    dotenv: str | None
    working_directory: str | None
    column_lineage: bool
    keep_last_manifest: bool
    launcher: Launcher
    _held: list[Manifest] = field(compare=False, repr=False)

    def __init__(
        self,
        project_dir: str | Path | Sequence[str | Path] | None = None,
        *,
        manifest_path: str | Path | None = None,
        gateway: str | None = None,
        environment: str = "prod",
        config_name: str | None = None,
        dotenv: str | Path | None = None,
        working_directory: str | Path | None = None,
        column_lineage: bool = True,
        keep_last_manifest: bool = True,
        launcher: Launcher | None = None,
    ) -> None:
        folders = tuple(_absolute_if_local(folder) for folder in as_folders(project_dir) or ())
        if manifest_path is None:
            if not folders:
                msg = (
                    "SQLMeshProject needs project_dir, or manifest_path where the project is not "
                    "on this machine."
                )
                raise ManifestError(msg)
            manifest_path = Path(folders[0], ".sqlmesh-pipes", "manifest.json")
        settings = {
            "project_dirs": folders,
            "manifest_path": Path(manifest_path).absolute(),
            "gateway": gateway,
            "environment": environment,
            "config_name": config_name,
            "dotenv": _absolute_if_local(str(dotenv)) if dotenv else None,
            "working_directory": (
                _absolute_if_local(str(working_directory)) if working_directory else None
            ),
            "column_lineage": column_lineage,
            "keep_last_manifest": keep_last_manifest,
            "launcher": launcher or SubprocessLauncher(),
            "_held": [],
        }
        for name, value in settings.items():
            object.__setattr__(self, name, value)  # the class is frozen

    @property
    def local_dirs(self) -> list[Path]:
        """The project folders that are on this machine; their files decide on freshness."""
        return [Path(folder) for folder in self.project_dirs if Path(folder).is_dir()]

    def runner_arguments(self, environment: str | None = None) -> list[str]:
        """Return the runner's arguments for this project, gateway and environment.

        Args:
            environment: another environment than the project's.
        """
        options = ProjectOptions(
            project_dir=self.project_dirs,
            gateway=self.gateway,
            environment=environment or self.environment,
            config_name=self.config_name,
            dotenv=self.dotenv,
            working_directory=self.working_directory,
        )
        return runner_arguments(options)

    def manifest(self) -> Manifest:
        """Return the manifest. It is read once: what has been mapped stays as it is.

        Raises:
            ManifestError: it is missing or can't be read.
        """
        if not self._held:
            self._held.append(load_manifest(self.manifest_path))
        return self._held[0]

    def prepare(self) -> Path:
        """Make the manifest with `sqlmesh-runner manifest`, and return its path.

        Raises:
            LaunchError: the runner could not be started, or the project is not valid; has the
                runner's last log lines.
        """
        with self._locked():
            self._prepare()
        return self.manifest_path

    def prepare_if_dev(self) -> None:
        """Make the manifest in the code server of `dagster dev` if it is stale; else do nothing.

        Raises:
            LaunchError: see `prepare_if_stale`.
        """
        if _is_dev_code_server():
            self.prepare_if_stale()

    def prepare_if_stale(self) -> None:
        """Make the manifest if it is stale. Of several processes, one does it and the others wait.

        Raises:
            LaunchError: it could not be made, and there is no manifest that can be read, or
                `keep_last_manifest` is not set.
        """
        if not self.is_stale():
            return
        with self._locked():
            if self.is_stale():  # another process may just have made it
                _logger.info("Making the SQLMesh manifest %s.", self.manifest_path)
                self._prepare_or_keep()

    def is_stale(self) -> bool:
        """Return whether the manifest can't be read, or its inputs have changed.

        Its inputs are the project's files, those that SQLMesh reads besides, the variables that the
        project reads, these settings and this package's version.
        """
        try:
            load_manifest(self.manifest_path)
            return self._inputs_path.read_text(encoding="utf-8") != self._inputs()
        except (ManifestError, OSError):
            return True

    def _prepare(self) -> None:
        lineage = ["--column-lineage"] if self.column_lineage else []
        files = self._files_digest()
        content = self.launcher.run_to_end(["manifest", *self.runner_arguments(), *lineage])
        unfinished = self.manifest_path.with_name(f".{self.manifest_path.name}.{os.getpid()}")
        unfinished.write_text(content, encoding="utf-8")
        unfinished.replace(self.manifest_path)  # readers see the old one or the new one, whole
        # Files that changed meanwhile count as changed.
        inputs = self._inputs() if files == self._files_digest() else "changed meanwhile"
        self._inputs_path.write_text(inputs, encoding="utf-8")
        self._held.clear()

    def _prepare_or_keep(self) -> None:
        try:
            self._prepare()
        except LaunchError as exc:
            try:
                load_manifest(self.manifest_path)
            except ManifestError:
                raise exc from None
            if not self.keep_last_manifest:
                raise
            dg.get_dagster_logger().warning(
                "The SQLMesh project can't be loaded. Definitions are those of its last manifest, "
                "%s, until it can.\n%s",
                self.manifest_path,
                exc,
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.manifest_path.parent.mkdir(parents=True, exist_ok=True)
        with self.manifest_path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # released with the file, however the process ends
            yield

    @property
    def _inputs_path(self) -> Path:
        return self.manifest_path.with_suffix(".inputs")

    @property
    def _other_files(self) -> list[Path]:
        """What SQLMesh reads outside of the project: another `.env`, the user's configuration."""
        dotenv = self.dotenv or os.environ.get("SQLMESH_DOTENV_PATH")
        configuration = Path(os.environ.get("SQLMESH_HOME") or Path.home() / ".sqlmesh")
        return [
            *([Path(dotenv)] if dotenv else []),
            configuration / "config.yaml",
            configuration / "config.yml",
        ]

    def _files_digest(self) -> str:
        return inputs_digest(self.local_dirs, {}, None, files=self._other_files)

    def _inputs(self) -> str:
        read = load_manifest(self.manifest_path).environment_variables
        variables = {variable.name: os.environ.get(variable.name) for variable in read}
        settings = (
            version("dagster-sqlmesh-pipes"),
            self.runner_arguments(),
            self.column_lineage,
        )
        return inputs_digest(self.local_dirs, variables, settings, files=self._other_files)


def _absolute_if_local(text: str) -> str:
    # What is not here is the runner's (in an image): its path is passed on as it is.
    path = Path(text).expanduser()
    return str(path.absolute() if path.exists() else path)


@functools.cache
def _is_dev_code_server() -> bool:
    # `dagster dev` sets DAGSTER_IS_DEV_CLI for all its descendants. Run workers and steps are
    # spawned by multiprocessing, or are `dagster api execute_run` / `execute_step`: they use the
    # manifest as it is.
    if not os.environ.get("DAGSTER_IS_DEV_CLI") or multiprocessing.parent_process() is not None:
        return False
    return not any(argument.startswith("execute_") for argument in sys.argv)
