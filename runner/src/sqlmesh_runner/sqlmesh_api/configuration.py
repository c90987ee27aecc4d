"""A project's configuration, read as SQLMesh's command line reads it."""

import inspect
from collections.abc import Sequence
from pathlib import Path

from sqlmesh import Context
from sqlmesh.core.config import Config, load_configs
from sqlmesh.utils.errors import ConfigError

from sqlmesh_runner.errors import ConfigurationError, describe
from sqlmesh_runner.sqlmesh_api.connections import deferred_connection_errors

__all__ = ["load_configuration"]


def load_configuration(
    directories: Sequence[Path], *, config: str | None = None, dotenv: Path | None = None
) -> dict[Path, Config]:
    """Return the configuration of each project. What is wrong with a connection shows on its use.

    Args:
        directories: the projects' folders.
        config: a Python configuration's variable; None for `config`.
        dotenv: a file of environment variables, in place of the `.env` in each folder.

    Raises:
        ConfigurationError: there is no such file, or this SQLMesh has no `--dotenv`.
        ConfigError: what SQLMesh has against the configuration.
    """
    options = {}
    if dotenv is not None:
        if not dotenv.is_file():
            msg = f"There is no file {dotenv}. Give --dotenv, or SQLMESH_DOTENV_PATH, one."
            raise ConfigurationError(msg)
        if "dotenv_path" not in inspect.signature(load_configs).parameters:
            msg = "This SQLMesh has no --dotenv. Upgrade it, or put the variables into `.env`."
            raise ConfigurationError(msg)
        options["dotenv_path"] = dotenv
    paths = [str(directory) for directory in directories]
    with deferred_connection_errors() as unusable:
        try:
            configurations: dict[Path, Config] = load_configs(
                config, Context.CONFIG_TYPE, paths, **options
            )
        except ConfigError as exc:  # SQLMesh would have said first what is wrong with a connection
            reasons = [connection.reason for connection in unusable]
            raise ConfigError(" ".join([*reasons, describe(exc)])) from exc
    return configurations
