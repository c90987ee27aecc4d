"""DuckDB databases in files: where their relative paths start, and whether they exist."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlmesh.core.config import Config, ConnectionConfig

from sqlmesh_runner.errors import NotPlannedError, UnreachableError
from sqlmesh_runner.options import ProjectOptions

__all__ = ["DuckDBFiles", "files_of"]

_LEVELS_ABOVE = 2  # of a project's folder, in which a missing file is looked for


class DuckDBFiles:
    """The files of the connections in use, as they look from the current directory."""

    def __init__(self, config: Config, options: ProjectOptions) -> None:
        warehouse = config.get_connection(options.gateway)
        self._warehouse = files_of(warehouse)
        self._state = files_of(config.get_state_connection(options.gateway) or warehouse)
        self._environment = options.environment or config.default_target_environment
        self._directories = options.project_dir
        self._started_in = Path.cwd()
        self.working_directory = options.working_directory or self._likely_directory()
        """Where relative paths start.

        SQLMesh takes the directory that it is started in, which for `sqlmesh plan` is the project's
        or, with `sqlmesh -p warehouse plan`, one above it. A runner is started by Dagster, from
        anywhere. So without a setting it is the project's folder, unless the files are only in the
        current directory.
        """

    def _likely_directory(self) -> Path:
        relative = [file for file in (*self._state, *self._warehouse) if not file.is_absolute()]
        for directory in (self._directories[0], self._started_in):
            if any((directory / file).exists() for file in relative):
                return directory
        return self._directories[0]

    def require(self) -> None:
        """Check that the files exist: connecting would create them.

        Raises:
            NotPlannedError: the state's does not exist.
            UnreachableError: the warehouse's does not exist.
        """
        for file in self._missing(self._state):
            msg = f"The state database {self._absolute(file)} does not exist"
            raise NotPlannedError(f"{msg}. {self._remedy(file)}")
        for file in self._missing(self._warehouse):
            msg = f"The warehouse {self._absolute(file)} does not exist, though there is state"
            raise UnreachableError(f"{msg}. {self._remedy(file)}")

    def _missing(self, files: list[Path]) -> list[Path]:
        return [file for file in files if not self._absolute(file).exists()]

    def _absolute(self, file: Path) -> Path:
        return self.working_directory / file

    def _remedy(self, file: Path) -> str:
        plan = f"run `sqlmesh plan {self._environment}`"
        if file.is_absolute():
            return f"If nothing was ever planned, {plan}."
        setting = "--working-directory (`working_directory` in Dagster)"
        elsewhere = dict.fromkeys(self._near())
        found = next((each for each in elsewhere if (each / file).exists()), None)
        if found:
            return (
                f"`{file}` starts from {self.working_directory}. There is one in {found}: if "
                f"SQLMesh planned from there, set {setting} to {found}."
            )
        return (
            f"`{file}` starts from {self.working_directory}, and there is none in "
            f"{', '.join(map(str, elsewhere))} either. If nothing was ever planned, {plan}. "
            f"If SQLMesh planned from another directory, set {setting} to it."
        )

    def _near(self) -> Iterator[Path]:
        yield self._started_in
        for directory in self._directories:
            yield directory
            yield from directory.parents[:_LEVELS_ABOVE]


def files_of(connection: ConnectionConfig) -> list[Path]:
    """Return a DuckDB connection's files. What is in memory, or at `md:` or `s3://`, is none."""
    if connection.type_ != "duckdb":
        return []
    catalogs: Mapping[str, Any] = getattr(connection, "catalogs", None) or {}
    attached = [
        each if isinstance(each, str) else each.path
        for each in catalogs.values()
        if getattr(each, "type", "duckdb") == "duckdb"
    ]
    texts = [getattr(connection, "database", None), *attached]
    return [Path(text) for text in texts if text and ":" not in str(text)]
