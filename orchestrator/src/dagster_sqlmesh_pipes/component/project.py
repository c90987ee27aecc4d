"""The component of a SQLMesh project: YAML and a manifest become definitions."""

import datetime
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import dagster as dg
from dagster.components import DefsStateConfig, DefsStateConfigArgs, ResolvedDefsStateConfig
from dagster.components.resolved.core_models import OpSpec
from dagster.components.utils.translation import TranslationFn
from pydantic import BaseModel, ConfigDict, Field

from dagster_sqlmesh_pipes.component.launcher import LAUNCHER_MODEL, resolve_launcher
from dagster_sqlmesh_pipes.component.scaffolder import SQLMeshProjectScaffolder
from dagster_sqlmesh_pipes.component.schema import precise_model
from dagster_sqlmesh_pipes.component.templates import describe_fields, resolve_written
from dagster_sqlmesh_pipes.component.translation import Translation
from dagster_sqlmesh_pipes.definitions import DefinitionsOptions, build_definitions, make_resource
from dagster_sqlmesh_pipes.errors import ConfigurationError, ManifestError
from dagster_sqlmesh_pipes.launchers.base import Launcher
from dagster_sqlmesh_pipes.launchers.subprocess import SubprocessLauncher
from dagster_sqlmesh_pipes.manifest import Audit, Manifest, Model, StandaloneAudit
from dagster_sqlmesh_pipes.options import (
    FreshnessPolicyFunction,
    LocationOptions,
    OwnershipOptions,
    ResourceOptions,
    SelectionOptions,
    SensorOptions,
    SourceOptions,
    TickOptions,
    as_folders,
    option_values,
)
from dagster_sqlmesh_pipes.project import SQLMeshProject
from dagster_sqlmesh_pipes.resource import SQLMeshResource
from dagster_sqlmesh_pipes.run.config import SQLMeshRunConfig
from dagster_sqlmesh_pipes.schedule import freshness_from_cron
from dagster_sqlmesh_pipes.translator import MappedExternalsTranslator, SQLMeshTranslator

__all__ = ["SQLMeshProjectComponent"]


def _resolve_folders(context: dg.ResolutionContext, value: Any) -> list[str] | None:
    folders = as_folders(resolve_written(context, "project_dir", value))
    return None if folders is None else [_resolve_folder(context, each) for each in folders]


def _resolve_folder(context: dg.ResolutionContext, folder: str) -> str:
    if Path(folder).is_absolute():
        return folder  # also one that only the runner's image has
    resolved = context.resolve_source_relative_path(folder)
    if not resolved.is_dir():
        msg = (
            f"project_dir: there is no folder {resolved}. Relative paths begin at the YAML file's "
            "folder; write the absolute path of a folder in the runner's image."
        )
        raise ConfigurationError(msg)
    return str(resolved)


class RetryPolicyModel(dg.Model):
    """A retry policy, as `dagster.RetryPolicy` has it."""

    max_retries: int = Field(default=1, description="How often the step is run again.")
    delay: float | None = Field(default=None, description="Seconds between two attempts.")
    backoff: dg.Backoff | None = Field(default=None, description="How the delay grows.")
    jitter: dg.Jitter | None = Field(default=None, description="How the delay varies.")


class FreshnessModel(dg.Model):
    """Freshness policies derived from the models' crons."""

    grace_minutes: float = Field(
        default=60, description="How late a model may be after its cron has ticked."
    )


class _SharedOptions(
    SensorOptions,
    TickOptions,
    SelectionOptions,
    OwnershipOptions,
    ResourceOptions,
    SourceOptions,
):
    """The options that mean in YAML what they mean in Python."""


@dg.scaffold_with(SQLMeshProjectScaffolder)
class SQLMeshProjectComponent(
    LocationOptions,
    _SharedOptions,
    dg.StateBackedComponent,
    dg.Resolvable,
):
    """The models of a SQLMesh project as assets, with their checks, a job and a schedule.

    SQLMesh itself runs elsewhere: in the environment, image or pod of the launcher. The project's
    manifest is the component's state: `dg utils refresh-defs-state` makes it, and `dg dev` when the
    project's files change.

    Subclass it to override `get_asset_spec`, `get_asset_check_spec` and `execute`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    project_dir: Annotated[
        list[str] | None,
        dg.Resolver(
            _resolve_folders, model_field_type=str | list[str], inject_before_resolve=False
        ),
    ] = Field(
        default=None,
        description=f"{SourceOptions.model_fields['project_dir'].description} Relative paths begin "
        "at the YAML file's folder.",
        examples=["../../warehouse", "/sqlmesh/project"],
    )
    launcher: Annotated[
        Launcher,
        dg.Resolver(resolve_launcher, model_field_type=LAUNCHER_MODEL),
    ] = Field(
        default_factory=SubprocessLauncher,
        description="How runners are started: a `type` (subprocess, docker, kubernetes) and that "
        "launcher's options. Default: as a subprocess.",
        examples=[{"type": "docker", "image": "warehouse-runner:latest"}],
    )
    translation: Annotated[TranslationFn[Model] | None, Translation] = Field(
        default=None,
        description="Attributes of every model's asset, as templates of `node` (the model, with "
        "SQLMesh's attribute names) and `spec` (the asset as it is without them).",
        examples=[{"key": "warehouse/{{ node.schema_name }}/{{ node.view_name }}"}],
    )
    op: OpSpec | None = Field(
        default=None,
        description="The op that runs the models: its name, tags and pool.",
        examples=[{"name": "warehouse", "tags": {"team": "data"}, "pool": "warehouse"}],
    )
    retry_policy: RetryPolicyModel | None = Field(
        default=None,
        description="What to do when the step fails. A retry goes on where SQLMesh stopped.",
        examples=[{"max_retries": 2, "delay": 60}],
    )
    freshness: FreshnessModel | None = Field(
        default=None,
        description="Freshness policies derived from the models' crons.",
        examples=[{"grace_minutes": 120}],
    )
    defs_state: ResolvedDefsStateConfig = Field(
        default_factory=DefsStateConfigArgs.local_filesystem,
        description="Where the manifest is kept: in the image (LOCAL_FILESYSTEM), or in the "
        "instance's storage (VERSIONED_STATE_STORAGE), where a new one needs no new image.",
        examples=[{"management_type": "LOCAL_FILESYSTEM"}],
    )

    @classmethod
    def model(cls) -> type[BaseModel]:
        """Return the model of the YAML, by which `dg check yaml` and definitions are checked."""
        return precise_model(super().model())

    def get_asset_spec(
        self,
        context: Manifest,  # noqa: ARG002 - part of the interface
        model: Model,
        base: dg.AssetSpec,
    ) -> dg.AssetSpec:
        """Return a model's asset spec: `base` with the attributes of `translation`.

        Override it to change any of it, the key included.
        """
        return self.translation(base, model) if self.translation else base

    def get_asset_check_spec(
        self,
        context: Manifest,  # noqa: ARG002 - part of the interface
        audit: Audit | StandaloneAudit,  # noqa: ARG002
        base: dg.AssetCheckSpec,
    ) -> dg.AssetCheckSpec:
        """Return an audit's check spec: `base`, or another of the same name and asset."""
        return base

    def execute(
        self,
        context: dg.AssetExecutionContext,
        sqlmesh: SQLMeshResource,
        config: SQLMeshRunConfig,
    ) -> Iterator[Any]:
        """Run the selected models, and yield their results."""
        yield from sqlmesh.run(context, config)

    @property
    def defs_state_config(self) -> DefsStateConfig:
        """Where and under which key the manifest is kept."""
        folder = Path((self.project_dir or ["sqlmesh"])[0]).name
        parts = (folder, self.gateway, self.environment)
        key = f"{type(self).__name__}[{'/'.join(part for part in parts if part)}]"
        return DefsStateConfig.from_args(self.defs_state, default_key=key)

    def write_state_to_path(self, state_path: Path) -> None:
        """Make the manifest. In development it is kept beside the project while nothing changes.

        Raises:
            LaunchError: the runner could not be started, or the project is not valid.
        """
        state_path.parent.mkdir(parents=True, exist_ok=True)
        if not any(Path(folder).is_dir() for folder in self.project_dir or ()):
            self._project(state_path).prepare()
            return
        project = self._project(None)
        # `dagster dev` and `dg` call this each time they load definitions.
        if os.environ.get("DAGSTER_IS_DEV_CLI"):
            project.prepare_if_stale()
        else:
            project.prepare()
        shutil.copyfile(project.manifest_path, state_path)

    def build_defs_from_state(
        self,
        context: dg.ComponentLoadContext,  # noqa: ARG002 - part of the interface
        state_path: Path | None,
    ) -> dg.Definitions:
        """Return the definitions.

        Raises:
            ManifestError: there is no manifest, or it is of another environment.
            TranslationError: models and asset keys do not fit together.
            ConfigurationError: an option can't work.
        """
        if state_path is None:
            raise ManifestError(self._no_manifest())
        options = self._options(state_path)
        resource = make_resource(options)
        manifest = resource.project.manifest()  # held from here on: the path may be temporary
        if manifest.environment != self.environment:
            msg = (
                f"The manifest under the key {self.defs_state_config.key} is of the environment "
                f"{manifest.environment}, not {self.environment}. {_REFRESH}"
            )
            raise ManifestError(msg)
        return build_definitions(resource, options, self.execute)

    def _options(self, manifest_path: Path) -> DefinitionsOptions:
        op = self.op or OpSpec()
        retry = self.retry_policy
        return DefinitionsOptions(
            **option_values(self, _SharedOptions),
            manifest_path=manifest_path,
            schedule_name=self.schedule_name,
            launcher=self.launcher,
            translator=_ComponentTranslator.of(self),
            name=op.name,
            op_tags=op.tags,
            pool=op.pool,
            retry_policy=dg.RetryPolicy(**retry.model_dump()) if retry else None,
            freshness_policy=_freshness_policy(self.freshness) if self.freshness else None,
        )

    def _project(self, manifest_path: Path | None) -> SQLMeshProject:
        return SQLMeshProject(
            manifest_path=manifest_path,
            launcher=self.launcher,
            **option_values(self, SourceOptions),
        )

    def _no_manifest(self) -> str:
        key = self.defs_state_config.key
        where = self.defs_state_config.management_type.value
        return (
            f"There is no SQLMesh manifest under the key {key} ({where}). {_REFRESH} "
            "`dg launch` does not see versioned state; code servers and their runs do."
        )


describe_fields(SQLMeshProjectComponent)

_REFRESH = (
    "Make it with `dg utils refresh-defs-state`: for LOCAL_FILESYSTEM where the image is built."
)


class _ComponentTranslator(SQLMeshTranslator):
    """The default translator, with the component's specs."""

    component: SQLMeshProjectComponent

    @classmethod
    def of(cls, component: SQLMeshProjectComponent) -> SQLMeshTranslator:
        template = component.external_asset_mapping
        translator = cls() if template is None else _MappedComponentTranslator(template)
        translator.component = component
        return translator

    def get_asset_spec(self, context: Manifest, model: Model, base: dg.AssetSpec) -> dg.AssetSpec:
        return self.component.get_asset_spec(context, model, base)

    def get_asset_check_spec(
        self, context: Manifest, audit: Audit | StandaloneAudit, base: dg.AssetCheckSpec
    ) -> dg.AssetCheckSpec:
        return self.component.get_asset_check_spec(context, audit, base)


class _MappedComponentTranslator(_ComponentTranslator, MappedExternalsTranslator):
    """The same, with a template for the keys of external tables."""


def _freshness_policy(freshness: FreshnessModel) -> FreshnessPolicyFunction:
    grace = datetime.timedelta(minutes=freshness.grace_minutes)
    return lambda model: freshness_from_cron(model, grace=grace)
