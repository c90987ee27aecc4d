"""Where a SQLMesh project is, and how its manifest comes to be and stays fresh."""

import functools
import hashlib
import logging
import multiprocessing
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from dagster_sqlmesh_pipes.errors import ManifestError
from dagster_sqlmesh_pipes.launchers.base import Launcher
from dagster_sqlmesh_pipes.launchers.subprocess import SubprocessLauncher
from dagster_sqlmesh_pipes.manifest import Manifest, load_manifest

__all__ = ["SQLMeshProject"]

_logger = logging.getLogger(__name__)

_SUFFIXES = {".sql", ".py", ".yaml", ".yml", ".csv", ".toml", ".env"}
_IGNORED_DIRECTORIES = {"__pycache__", "logs", "node_modules", "target"}


@dataclass(frozen=True, init=False)
class SQLMeshProject:
    """A SQLMesh project: its folders as the runner sees them, and its manifest's file as this process sees it.

    Args:
        project_dir: the project's folder, or folders of a multi-project setup; None where the runner knows it by itself (an image
            with the project baked in).
        manifest_path: the manifest's file. Default: `manifest.json` in the folder `.sqlmesh-pipes` of the (first) project folder.
        gateway: SQLMesh's gateway; None for the project's default.
        environment: the SQLMesh environment whose views the assets stand for.
        column_lineage: whether manifests made by this process have column lineage.
        launcher: what makes the manifest. Default: a subprocess.

    Raises:
        ManifestError: neither `project_dir` nor `manifest_path` is given.
    """

    project_dirs: tuple[str, ...]
    manifest_path: Path
    gateway: str | None
    environment: str
    column_lineage: bool
    launcher: Launcher

    def __init__(
        self,
        project_dir: str | Path | Sequence[str | Path] | None = None,
        *,
        manifest_path: str | Path | None = None,
        gateway: str | None = None,
        environment: str = "prod",
        column_lineage: bool = True,
        launcher: Launcher | None = None,
    ) -> None:
        folders = _absolute_where_local([project_dir] if isinstance(project_dir, str | Path) else project_dir or ())
        if manifest_path is None:
            if not folders:
                msg = "SQLMeshProject needs project_dir, or manifest_path where the project is not on this machine."
                raise ManifestError(msg)
            manifest_path = Path(folders[0], ".sqlmesh-pipes", "manifest.json")
        settings = {
            "project_dirs": folders,
            "manifest_path": Path(manifest_path).absolute(),
            "gateway": gateway,
            "environment": environment,
            "column_lineage": column_lineage,
            "launcher": launcher or SubprocessLauncher(),
        }
        for name, value in settings.items():
            object.__setattr__(self, name, value)  # the class is frozen

    @property
    def local_dirs(self) -> list[Path]:
        """Give those of the project's folders that are on this machine; freshness is told by their files."""
        return [Path(folder) for folder in self.project_dirs if Path(folder).is_dir()]

    def runner_arguments(self, environment: str | None = None) -> list[str]:
        """Give the runner's arguments that name this project, gateway and environment, or another environment."""
        folders = [part for folder in self.project_dirs for part in ("--project-dir", folder)]
        gateway = ["--gateway", self.gateway] if self.gateway else []
        return [*folders, *gateway, "--environment", environment or self.environment]

    def manifest(self) -> Manifest:
        """Read the manifest.

        Raises:
            ManifestError: it is missing or can't be read.
        """
        return load_manifest(self.manifest_path)

    def prepare(self) -> Path:
        """Make the manifest, by running `sqlmesh-runner manifest`, and return its path.

        Raises:
            LaunchError: the runner could not be started, or the project is not valid; has what the runner said.
        """
        lineage = ["--column-lineage"] if self.column_lineage else []
        inputs = self._inputs()
        content = self.launcher.run_to_end(["manifest", *self.runner_arguments(), *lineage])
        self.manifest_path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.manifest_path.with_name(f".{self.manifest_path.name}.{os.getpid()}")
        unfinished.write_text(content, encoding="utf-8")
        unfinished.replace(self.manifest_path)  # readers see the old one or the new one, whole
        self._inputs_path.write_text(inputs, encoding="utf-8")
        return self.manifest_path

    def prepare_if_dev(self) -> None:
        """Make the manifest in the code server of `dagster dev`, if it is stale; do nothing anywhere else.

        Raises:
            LaunchError: see `prepare`.
        """
        if _is_dev_code_server() and self.is_stale():
            _logger.info("Making the SQLMesh manifest %s.", self.manifest_path)
            self.prepare()

    def is_stale(self) -> bool:
        """Tell whether the manifest can't be read, or is not made from the project's files, these settings and by this version."""
        try:
            self.manifest()
            return self._inputs_path.read_text(encoding="utf-8") != self._inputs()
        except (ManifestError, OSError):
            return True

    @property
    def _inputs_path(self) -> Path:
        return self.manifest_path.with_suffix(".inputs")

    def _inputs(self) -> str:
        """Digest what a manifest is made from: names, sizes and times of the project's files, the settings, and this package's version."""
        files = sorted((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in _project_files(self.local_dirs))
        inputs = [version("dagster-sqlmesh-pipes"), self.runner_arguments(), self.column_lineage, files]
        return hashlib.sha256(repr(inputs).encode()).hexdigest()


def _absolute_where_local(folders: Iterable[str | Path]) -> tuple[str, ...]:
    # A folder that is not here is the runner's (in an image): its path is passed on as it is.
    paths = [Path(folder).expanduser() for folder in folders]
    return tuple(str(path.absolute() if path.is_dir() else path) for path in paths)


def _project_files(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        for parent, directories, names in os.walk(folder):
            directories[:] = [d for d in directories if d not in _IGNORED_DIRECTORIES and not d.startswith(".")]
            yield from (Path(parent, name) for name in names if Path(name).suffix in _SUFFIXES or name == ".env")


@functools.cache
def _is_dev_code_server() -> bool:
    # `dagster dev` sets DAGSTER_IS_DEV_CLI for all its descendants. Run workers and steps are spawned by multiprocessing, or are
    # `dagster api execute_run` / `execute_step`: they take the manifest as it is.
    if not os.environ.get("DAGSTER_IS_DEV_CLI") or multiprocessing.parent_process() is not None:
        return False
    return not any(argument.startswith("execute_") for argument in sys.argv)
