"""A SQLMesh project's files as one JSON document: what an orchestrator shows and schedules."""

import gc
import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Final

from sqlglot.errors import SqlglotError
from sqlmesh import Context
from sqlmesh.core.constants import CACHE
from sqlmesh.core.environment import Environment, EnvironmentNamingInfo
from sqlmesh.core.model import Model
from sqlmesh.utils.errors import ConfigError

from sqlmesh_runner.manifest.lineage import LineageCache, trace_columns
from sqlmesh_runner.manifest.nodes import NodeWriter
from sqlmesh_runner.manifest.schema import (
    SCHEMA_VERSION,
    ColumnLineage,
    EnvironmentVariableEntry,
    Manifest,
)
from sqlmesh_runner.sqlmesh_api.configuration import load_configuration
from sqlmesh_runner.sqlmesh_api.gateways import ProjectContext
from sqlmesh_runner.variables.project import project_variables

__all__ = ["build_manifest", "dump", "load_files"]

_TOO_FINE_CRON: Final = re.compile(r"must run at a frequency of 5 minutes or slower")
_LINEAGE_FILE: Final = "column_lineage.json"


def build_manifest(
    *,
    paths: Sequence[Path],
    gateway: str | None = None,
    environment: str | None = None,
    config: str | None = None,
    dotenv: Path | None = None,
    column_lineage: bool = False,
) -> Manifest:
    """Return the manifest of the project in `paths`. Neither state nor warehouse is queried.

    The one exception is a connection without a catalog where the engine has catalogs: models'
    names begin with one, so SQLMesh queries the engine.

    Args:
        paths: the project's directories; the first one's gateway and connection are used, as in
            `sqlmesh -p A -p B`.
        gateway: None for the project's default.
        environment: the one that `relation` refers to; None for the project's default target
            environment.
        config: see `load_configuration`.
        dotenv: see `load_configuration`.
        column_lineage: whether to trace each column. The result is kept per data hash in
            `column_lineage.json` of SQLMesh's cache folder.

    Raises:
        ConfigError: SQLMesh refuses the project.
    """
    directories = [path.absolute() for path in paths]
    with _rare_collections():
        context = load_files(directories, gateway=gateway, config=config, dotenv=dotenv)
        try:
            return _describe(
                context, directories, environment=environment, column_lineage=column_lineage
            )
        finally:
            context.close()


def dump(manifest: Manifest) -> str:
    """Return a manifest as JSON: the same text for the same project."""
    return json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def load_files(
    directories: Sequence[Path],
    *,
    gateway: str | None,
    config: str | None = None,
    dotenv: Path | None = None,
) -> Context:
    """Load a project's models from its files alone.

    Raises:
        ConfigError: see `build_manifest`.
    """
    # Of a multi-project setup, SQLMesh would read the models of absent projects from the state.
    without_state = (
        {"load_state": False}
        if "load_state" in inspect.signature(Context.__init__).parameters
        else {}
    )
    context = ProjectContext(
        paths=[str(path) for path in directories],
        config=load_configuration(directories, config=config, dotenv=dotenv),
        gateway=gateway,
        load=False,
        **without_state,
    )
    if not without_state:  # SQLMesh 0.220 and older asks the state whenever a project has a name
        context._projects = set()  # noqa: SLF001
    try:
        context.load()
    except (ConfigError, SqlglotError) as exc:
        msg = _about_crons(context, exc) if _TOO_FINE_CRON.search(str(exc)) else str(exc)
        context.close()
        raise ConfigError(msg) from exc
    return context


def _about_crons(context: Context, error: Exception) -> str:
    """Return SQLMesh's error with the models that it does not name, and what to do."""
    culprits = [
        f"{model.name} ({model.cron})" for model in context.models.values() if _is_too_fine(model)
    ]
    return (
        f"{error}\nModels with such a cron: {', '.join(culprits) or 'not known'}. SQLMesh "
        "schedules nothing more often than every five minutes: give the model a cron of "
        "`*/5 * * * *` or slower. To run it at will while testing, set `ignore_cron` "
        "(`sqlmesh-runner run --ignore-cron`)."
    )


def _is_too_fine(model: Model) -> bool:
    try:
        model.interval_unit  # noqa: B018 - SQLMesh works it out, and checks the cron, when it is asked for
    except ConfigError:
        return True
    return False


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Let the garbage collector run less often while a project's syntax trees are built.

    For 1,000 models that saves a third of the time, at the same peak of memory.
    """
    thresholds = gc.get_threshold()
    gc.set_threshold(100_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


def _describe(
    context: Context, directories: Sequence[Path], *, environment: str | None, column_lineage: bool
) -> Manifest:
    naming = _naming(context, environment or context.config.default_target_environment)
    writer = NodeWriter(directories=directories, naming=naming)
    lineages = _lineages(context) if column_lineage else {}
    manifest: Manifest = {
        "schema_version": SCHEMA_VERSION,
        "generator": {
            "name": "sqlmesh-runner",
            "version": version("sqlmesh-runner"),
            "sqlmesh_version": version("sqlmesh"),
        },
        "project": {
            "gateway": context.selected_gateway or None,
            "environment": naming.name,
            "default_catalog": context.default_catalog,
            "dialect": context.default_dialect or None,
            "state_engine": _state_engine(context),
        },
        "models": [
            writer.model(context.models[fqn], lineages.get(fqn)) for fqn in sorted(context.models)
        ],
        "standalone_audits": [
            writer.standalone_audit(audit)
            for audit in sorted(context.standalone_audits.values(), key=lambda each: each.fqn)
        ],
        "environment_variables": _environment_variables(context, directories),
    }
    return manifest


def _state_engine(context: Context) -> str | None:
    # As SQLMesh's schedulers choose it (`create_state_sync`).
    config = context.config
    connection = config.get_state_connection(context.gateway) or config.get_connection(
        context.gateway
    )
    return getattr(connection, "type_", None)


def _environment_variables(
    context: Context, directories: Sequence[Path]
) -> list[EnvironmentVariableEntry]:
    gateways = {model.gateway for model in context.models.values() if model.gateway}
    variables = project_variables(
        directories, gateway=context.selected_gateway, also=" ".join(sorted(gateways))
    )
    return [
        {
            "name": variable.name,
            "required": variable.required,
            "path": variable.path,
            "project_dir_index": variable.project_dir_index,
        }
        for variable in variables
    ]


def _naming(context: Context, environment: str) -> EnvironmentNamingInfo:
    # As PlanBuilder does it for a new environment.
    return EnvironmentNamingInfo.from_environment_catalog_mapping(
        context.config.environment_catalog_mapping,
        name=Environment.sanitize_name(environment),
        suffix_target=context.config.environment_suffix_target,
        normalize_name=True,
    )


def _lineages(context: Context) -> Mapping[str, ColumnLineage]:
    cache = LineageCache(_cache_folder(context) / _LINEAGE_FILE)
    lineages = {
        fqn: cache.get(
            model, lambda model: trace_columns(model, default_catalog=context.default_catalog)
        )
        for fqn, model in context.models.items()
        if model.is_sql
    }
    cache.save()
    return lineages


def _cache_folder(context: Context) -> Path:
    # `Context.cache_dir` came with the setting `cache_dir`; before, the place was fixed.
    return Path(getattr(context, "cache_dir", None) or context.path / CACHE)
