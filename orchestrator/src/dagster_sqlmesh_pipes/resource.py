"""What runs a SQLMesh project from Dagster: where it is, how its runner is started, and with which options."""

import datetime
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster_pipes import PipesContextData
from pydantic import Field, field_validator, model_validator

from dagster_sqlmesh_pipes._exclusive import environment_key, exclusive
from dagster_sqlmesh_pipes._mapping import ProjectMapping
from dagster_sqlmesh_pipes._report import PROTOCOL_VERSION, RunReport
from dagster_sqlmesh_pipes._stream import Result, stream
from dagster_sqlmesh_pipes._tags import TICK_TAG
from dagster_sqlmesh_pipes.errors import ConfigurationError
from dagster_sqlmesh_pipes.launchers.base import EXCLUSIVE_LABEL, Launcher, LaunchRequest
from dagster_sqlmesh_pipes.launchers.subprocess import SubprocessLauncher
from dagster_sqlmesh_pipes.project import SQLMeshProject
from dagster_sqlmesh_pipes.translator import SQLMeshTranslator

__all__ = ["SQLMeshResource", "SQLMeshRunConfig"]

_RELATIVE_TIME = re.compile(r"now|today|yesterday|tomorrow|(\d+|an?) (minute|hour|day|week|month|year)s? ago", re.IGNORECASE)


class SQLMeshRunConfig(dg.Config):
    """What may be set for a single run, in the launchpad or a schedule's run config."""

    ignore_cron: bool = Field(
        default=False, description="Run what has missing intervals even where the model's cron has not come round since the last run."
    )
    start: str | None = Field(default=None, description="Look at intervals from here on: a date, a time in UTC, or '1 week ago'.")
    end: str | None = Field(default=None, description="Look at intervals up to here.")
    execution_time: str | None = Field(default=None, description="The time that SQLMesh takes for now.")
    environment: str | None = Field(
        default=None, description="Another SQLMesh environment to run, out of those that the resource's allowed_environments names."
    )
    skip_janitor: bool = Field(default=False, description="Leave the cleaning of expired environments and snapshots to another run.")

    @field_validator("start", "end", "execution_time")
    @classmethod
    def _is_time(cls, value: str | None) -> str | None:
        if value is not None and _parsed(value) is None and not _RELATIVE_TIME.fullmatch(value.strip()):
            msg = f"{value!r} is no time: use a date (2026-01-31), a time (2026-01-31T12:00:00) or a phrase like '1 week ago'."
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _start_is_before_end(self) -> "SQLMeshRunConfig":
        start, end = _parsed(self.start), _parsed(self.end)
        if start and end and start > end:
            msg = f"start ({self.start}) is after end ({self.end})."
            raise ValueError(msg)
        return self


class SQLMeshResource(dg.ConfigurableResource):  # type: ignore[type-arg]  # the value that user code gets is the resource itself
    """Run a SQLMesh project: one `sqlmesh-runner` process, container or pod per Dagster run.

    `project_dir`, `gateway`, `environment` and `manifest_path` are as in `SQLMeshProject`; `EnvVar`s work.
    """

    project_dir: str | None = Field(default=None, description="The project's folder, as the runner sees it.")
    more_project_dirs: list[str] = Field(default=[], description="The other folders of a multi-project setup.")
    gateway: str | None = Field(default=None, description="SQLMesh's gateway; default: the project's.")
    environment: str = Field(default="prod", description="The SQLMesh environment to run.")
    manifest_path: str | None = Field(default=None, description="The manifest's file, as this process sees it.")
    allowed_environments: list[str] = Field(default=[], description="Other environments that a run's config may name.")
    concurrency_limit: int = Field(
        default=1,
        ge=1,
        description="Runs at work on the environment at a time. SQLMesh has no run lock: above 1, runs that meet on a model double its rows.",
    )
    lock_key: str | None = Field(
        default=None,
        description="What runs on one environment share, and no others: in place of the project folder's name and the gateway.",
    )
    wait_for_others: bool = Field(
        default=True, description="Whether a run that finds others at work on the environment waits for them, or fails."
    )
    ignore_cron: bool = Field(default=False, description="Always run what has missing intervals, whatever the crons.")
    skip_janitor: bool = Field(default=False, description="Never clean up in a run.")
    fetch_row_counts: bool = Field(default=False, description="Count the rows of each materialized table (one query a model).")
    column_lineage: bool = Field(default=True, description="Whether a manifest made in development has column lineage.")
    launcher: dg.ResourceDependency[Launcher] = SubprocessLauncher()  # type: ignore[assignment]  # Dagster takes the value itself
    translator: dg.ResourceDependency[SQLMeshTranslator] = SQLMeshTranslator()  # type: ignore[assignment]

    @property
    def project(self) -> SQLMeshProject:
        """The project that this resource runs."""
        return SQLMeshProject(
            [_resolved(folder) for folder in (self.project_dir, *self.more_project_dirs) if folder],
            manifest_path=_resolved(self.manifest_path),
            gateway=_resolved(self.gateway),
            environment=_resolved(self.environment),
            column_lineage=self.column_lineage,
            launcher=self.launcher,
        )

    def mapping(self) -> ProjectMapping:
        """Give the project's models as assets, from the manifest.

        Raises:
            ManifestError: there is no manifest to read.
            TranslationError: models and asset keys do not fit together.
        """
        return ProjectMapping(self.project.manifest(), self.translator)

    def exclusive_key(self, environment: str | None = None) -> str:
        """Name what a run on the environment, or on another one, has to itself: `lock_key` or the project and gateway, and the environment."""
        return environment_key(self.project, environment, lock_key=_resolved(self.lock_key))

    def run(self, context: dg.AssetExecutionContext, config: SQLMeshRunConfig | None = None) -> Iterator[Result]:
        """Run what the step selected, and yield every result while the runner runs.

        Selected assets are run by `sqlmesh-runner run`; checks selected without their assets only by `sqlmesh-runner audit`.

        Raises:
            ConcurrentRunError: another run is at work on the environment, and the resource does not wait for others.
            LaunchError: the runner could not be started.
            RunFailedError: models or audits failed, or the run broke off. What was reported has been yielded.
            ConfigurationError: the run's config asks for what this resource does not allow.
        """
        config = config or SQLMeshRunConfig()
        mapping = self.mapping()
        options = self._options(config)
        key = self.exclusive_key(config.environment)
        with exclusive(context, key, limit=self.concurrency_limit, on_conflict="wait" if self.wait_for_others else "fail"):
            for command, extras in _selected(mapping, context):
                own = self._run_options(config) if command == "run" else []
                request = LaunchRequest(
                    arguments=[command, *options, *own], context=_pipes_context(context, extras), labels=self._labels(context, key)
                )
                yield from stream(context, launcher=self.launcher, request=request, report=RunReport(mapping.manifest, context.log))

    def _options(self, config: SQLMeshRunConfig) -> list[str]:
        project = self.project
        arguments = project.runner_arguments
        if config.environment is not None and config.environment != project.environment:
            if config.environment not in self.allowed_environments:
                allowed = ", ".join([project.environment, *self.allowed_environments])
                msg = f"This deployment does not run the environment {config.environment!r}, only {allowed}. SQLMeshResource(allowed_environments=…) says which."
                raise ConfigurationError(msg)
            arguments[-1] = config.environment
        times = {"--start": config.start, "--end": config.end, "--execution-time": config.execution_time}
        return [*arguments, *(part for flag, value in times.items() if value for part in (flag, value))]

    def _run_options(self, config: SQLMeshRunConfig) -> list[str]:
        flags = {
            "--ignore-cron": self.ignore_cron or config.ignore_cron,
            "--skip-janitor": self.skip_janitor or config.skip_janitor,
            "--row-counts": self.fetch_row_counts,
        }
        return [flag for flag, wanted in flags.items() if wanted]

    def _labels(self, context: dg.AssetExecutionContext, key: str) -> Mapping[str, str]:
        origin = context.run.remote_job_origin
        location = origin.repository_origin.code_location_origin.location_name if origin else None
        labels = {
            "dagster/run_id": context.run.run_id,
            "dagster/job": context.run.job_name,
            "dagster/step_key": context.op_execution_context.get_step_execution_context().step.key,
            "dagster/code_location": location,
            EXCLUSIVE_LABEL: key if self.concurrency_limit == 1 else None,
        }
        return {name: value for name, value in labels.items() if value}


def _selected(mapping: ProjectMapping, context: dg.AssetExecutionContext) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Give the commands that the step's selection takes, each with its Pipes extras."""
    selected = {mapping.fqns[key] for key in context.selected_asset_keys if key in mapping.fqns} & mapping.materialized
    wanted = context.selected_asset_check_keys
    checks = {
        fqn: {audit_id: key.name for audit_id, (key, _) in of_model.items() if key in wanted} for fqn, of_model in mapping.checks.items()
    }
    standalone = {
        fqn: [{"asset_key": key.asset_key.to_escaped_user_string(), "check_name": key.name} for key in keys if key in wanted]
        for fqn, (_, keys) in mapping.standalone_checks.items()
    }
    standalone = {fqn: targets for fqn, targets in standalone.items() if targets}
    everything = selected == mapping.materialized
    # Nobody named a model: one that is not planned yet must not keep the others from running.
    lenient = everything or TICK_TAG in context.run.tags
    if selected:
        yield "run", _extras(mapping, selected, checks, standalone, runs=True, everything=everything, lenient=lenient)
        standalone = {}
    alone = {fqn for fqn, names in checks.items() if names and fqn not in selected}
    if alone or standalone:
        yield "audit", _extras(mapping, alone, checks, standalone, runs=False, everything=False, lenient=lenient)


def _extras(
    mapping: ProjectMapping,
    fqns: set[str],
    checks: Mapping[str, Mapping[str, str]],
    standalone: Mapping[str, Sequence[Mapping[str, str]]],
    *,
    runs: bool,
    everything: bool,
    lenient: bool,
) -> Mapping[str, Any]:
    return {
        "protocol_version": PROTOCOL_VERSION,
        "selection": "all" if everything else "models",
        "models": {
            fqn: {"asset_key": mapping.asset_keys[fqn].to_escaped_user_string(), "checks": checks.get(fqn, {})} for fqn in sorted(fqns)
        },
        "standalone_audits": standalone,
        "externals": {
            fqn: {
                "asset_key": mapping.external_keys[fqn].to_escaped_user_string(),
                "checks": {audit_id: key.name for audit_id, (key, _) in of_external.items()},
            }
            for fqn, of_external in (mapping.external_checks(fqns) if runs else {}).items()
        },
        "unplanned": "skip" if lenient else "error",
    }


def _pipes_context(context: dg.AssetExecutionContext, extras: Mapping[str, Any]) -> PipesContextData:
    # Not Pipes' own builder: it asks the instance for the provenance of every selected asset, one query each.
    keys = {model["asset_key"] for model in extras["models"].values()}
    keys |= {external["asset_key"] for external in extras["externals"].values()}
    keys |= {target["asset_key"] for targets in extras["standalone_audits"].values() for target in targets}
    return PipesContextData(
        asset_keys=sorted(keys),
        code_version_by_asset_key=None,
        provenance_by_asset_key=None,
        partition_key=None,
        partition_key_range=None,
        partition_time_window=None,
        run_id=context.run.run_id,
        job_name=context.run.job_name,
        retry_number=context.op_execution_context.retry_number,
        extras=extras,
    )


def _resolved(value: Any) -> Any:
    """Give an `EnvVar`'s value: definitions are made from settings before Dagster resolves them."""
    return value.get_value() if isinstance(value, dg.EnvVar) else value


def _parsed(value: str | None) -> datetime.datetime | None:
    try:
        moment = datetime.datetime.fromisoformat(value) if value else None
    except ValueError:
        return None
    return moment.replace(tzinfo=datetime.UTC) if moment and moment.tzinfo is None else moment
