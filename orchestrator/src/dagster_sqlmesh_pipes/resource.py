"""What runs a SQLMesh project: the project, the launcher and the options of its runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import PrivateAttr

from dagster_sqlmesh_pipes.contract import list_names
from dagster_sqlmesh_pipes.errors import ConfigurationError
from dagster_sqlmesh_pipes.launchers.base import Launcher
from dagster_sqlmesh_pipes.launchers.subprocess import SubprocessLauncher
from dagster_sqlmesh_pipes.mapping import ProjectMapping
from dagster_sqlmesh_pipes.options import (
    ProjectOptions,
    ResourceOptions,
    SpecOptions,
    as_folders,
    spec_options,
)
from dagster_sqlmesh_pipes.project import SQLMeshProject
from dagster_sqlmesh_pipes.run.config import SQLMeshRunConfig, config_of_run
from dagster_sqlmesh_pipes.run.guard import runner_guard_of
from dagster_sqlmesh_pipes.run.lock import effective_lock_key, environment_key
from dagster_sqlmesh_pipes.run.request import StepSettings
from dagster_sqlmesh_pipes.run.results import RunResult
from dagster_sqlmesh_pipes.run.step import run_step
from dagster_sqlmesh_pipes.run.stream import RunStream
from dagster_sqlmesh_pipes.translator import SQLMeshTranslator

__all__ = ["SQLMeshResource"]


class _Resource(dg.ConfigurableResource):  # type: ignore[type-arg]  # user code gets the resource itself
    def __init__(self, **options: Any) -> None:
        # Dagster derives the config schema's values from the arguments as they were passed.
        given = {name: _config_value(value) for name, value in options.items()}
        if "project_dir" in given:
            given["project_dir"] = as_folders(given["project_dir"])
        if isinstance(given.get("allowed_environments"), str):
            given["allowed_environments"] = [given["allowed_environments"]]
        super().__init__(**given)


class SQLMeshResource(ProjectOptions, ResourceOptions, _Resource):
    """Run a SQLMesh project: one `sqlmesh-runner` process or container per Dagster run.

    `EnvVar`s work for strings; they are read where definitions are loaded.
    """

    launcher: dg.ResourceDependency[Launcher] = SubprocessLauncher()  # type: ignore[assignment]  # Dagster takes the value itself
    translator: dg.ResourceDependency[SQLMeshTranslator] = SQLMeshTranslator()  # type: ignore[assignment]
    # Not cached properties: Dagster copies resources with all that is in their `__dict__`.
    _project: SQLMeshProject | None = PrivateAttr(default=None)
    _mapping: ProjectMapping | None = PrivateAttr(default=None)

    @property
    def project(self) -> SQLMeshProject:
        """The project that this resource runs; one object for all uses."""
        if self._project is None:
            self._project = self._open_project()
        return self._project

    def _open_project(self) -> SQLMeshProject:
        return SQLMeshProject(
            [_resolved(folder) for folder in as_folders(self.project_dir) or ()],
            manifest_path=_resolved(self.manifest_path),
            gateway=_resolved(self.gateway),
            environment=_resolved(self.environment),
            config_name=_resolved(self.config_name),
            dotenv=_resolved(self.dotenv),
            working_directory=_resolved(self.working_directory),
            column_lineage=self.column_lineage,
            keep_last_manifest=self.keep_last_manifest,
            launcher=self.launcher,
        )

    def mapping(self, options: SpecOptions | None = None) -> ProjectMapping:
        """Return the project's models as assets, from the manifest; made once.

        Args:
            options: of the assets that are made with it; else those it was made with before.

        Raises:
            ManifestError: there is no manifest to read.
            TranslationError: models and asset keys do not fit together.
            ConfigurationError: an owner that Dagster does not accept.
        """
        known = self._mapping
        if known is None or (options is not None and spec_options(options) != known.options):
            known = ProjectMapping(self.project, self.translator, options)
            self._mapping = known
        return known

    def effective_lock_key(self) -> str:
        """Return the key of the runs' lock: `lock_key`, or the project and gateway."""
        return effective_lock_key(self.project, lock_key=_resolved(self.lock_key))

    def environment_key(self, environment: str | None = None) -> str:
        """Return the name of what a run works on: its lock's key, and the environment."""
        return environment_key(self.effective_lock_key(), environment or self.project.environment)

    def run(
        self, context: dg.AssetExecutionContext, config: SQLMeshRunConfig | None = None
    ) -> RunStream:
        """Run what the step selected, and yield every result while the runner runs.

        The stream can be yielded as it is, or item by item with each one's model.

        Selected assets are run by `sqlmesh-runner run`; checks selected without their assets only
        by `sqlmesh-runner audit`. Where Dagster splits the assets into several steps, the config
        of one of them holds for all. Results of another environment are observations.

        However the step ends, its runner is stopped and waited for, and what it reported is stored.

        Raises:
            ConcurrentRunError: another run still held the project's lock after `lock_timeout`.
            LaunchError: the runner could not be started.
            RunFailedError: models or audits failed, or the run broke off. What was reported has
                been yielded.
            ConfigurationError: the run's config has an environment that is not allowed, or the
                assets are of another project or environment.
        """
        run_config = SQLMeshRunConfig() if config is None else config_of_run(context, config)
        guard = runner_guard_of(context)
        mapping = guard.mapping
        self._require_project_of(mapping)

        def start(options: ResourceOptions) -> Iterator[RunResult]:
            settings = self._step_settings(mapping, options)
            return guard.guard(context, run_step(context, settings, run_config))

        options = {name: _resolved(getattr(self, name)) for name in ResourceOptions.model_fields}
        models = {key: mapping.models[fqn] for key, fqn in mapping.fqns.items()}
        return RunStream(start, options=ResourceOptions(**options), models=models)

    def _require_project_of(self, mapping: ProjectMapping) -> None:
        """Check that this resource runs the project and environment that assets were made from.

        Raises:
            ConfigurationError: it does not.
        """
        if mapping.environment != self.project.environment:
            msg = (
                f"The assets are of the environment {mapping.environment}, and the SQLMeshResource "
                f"of {self.project.environment}. Give the project and the resource the same. "
                "A run's config may name another of allowed_environments."
            )
            raise ConfigurationError(msg)
        unknown = sorted(mapping.models.keys() - self.project.manifest().models.keys())
        if unknown:
            msg = (
                f"The SQLMeshResource's manifest has no {list_names(unknown)}. Give it the project "
                "that the assets were made from. If the manifest is new, reload the code location."
            )
            raise ConfigurationError(msg)

    def _step_settings(self, mapping: ProjectMapping, options: ResourceOptions) -> StepSettings:
        return StepSettings(
            project=self.project,
            mapping=mapping,
            launcher=self.launcher,
            lock_key=self.effective_lock_key(),
            options=options,
        )


def _config_value(value: Any) -> Any:
    """Return a value as Dagster's config has it: no paths, no tuples."""
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _resolved(value: Any) -> Any:
    """Return a setting with the values of its `EnvVar`s.

    Definitions are made from settings before Dagster resolves those.

    Raises:
        ConfigurationError: a variable is not set.
    """
    if isinstance(value, list):
        return [_resolved(each) for each in value]
    if not isinstance(value, dg.EnvVar):
        return value
    found = value.get_value()
    if found is None:
        msg = (
            f"The environment variable {value.env_var_name} is not set, and a setting of "
            "SQLMeshResource names it. Set it wherever definitions are loaded."
        )
        raise ConfigurationError(msg)
    return found
