"""What runs a SQLMesh project from Dagster: where it is, how its runner is started, and with which options."""

import datetime
import re
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster_pipes import PipesContextData
from pydantic import Field, field_validator, model_validator

from dagster_sqlmesh_pipes._exclusive import exclusive, exclusive_key
from dagster_sqlmesh_pipes._mapping import ProjectMapping
from dagster_sqlmesh_pipes._report import PROTOCOL_VERSION, RunReport
from dagster_sqlmesh_pipes._step import step_of
from dagster_sqlmesh_pipes._stream import Result, stream
from dagster_sqlmesh_pipes._tags import ENVIRONMENT_TAG, TICK_TAG
from dagster_sqlmesh_pipes.errors import ConfigurationError, RunFailedError
from dagster_sqlmesh_pipes.launchers.base import EXCLUSIVE_LABEL, Launcher, LaunchRequest
from dagster_sqlmesh_pipes.launchers.subprocess import SubprocessLauncher
from dagster_sqlmesh_pipes.project import SQLMeshProject
from dagster_sqlmesh_pipes.translator import SQLMeshTranslator

__all__ = ["SQLMeshResource", "SQLMeshRunConfig"]

_LISTED = 20  # names in one message
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


_OPTIONS = set(SQLMeshRunConfig.model_fields)


class SQLMeshResource(dg.ConfigurableResource):  # type: ignore[type-arg]  # the value that user code gets is the resource itself
    """Run a SQLMesh project: one `sqlmesh-runner` process or container per Dagster run.

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
        description="Runs at work on the project at a time. SQLMesh has no run lock: above 1, runs that meet on a model double its rows.",
    )
    lock_key: str | None = Field(
        default=None,
        description="What runs on one SQLMesh state share, and no others: in place of the project folder's name and the gateway.",
    )
    wait_for_others: bool = Field(
        default=True, description="Whether a run that finds others at work on the project waits for them, or fails."
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

    def exclusive_key(self) -> str:
        """Name what a run has to itself: `lock_key`, or the project and gateway."""
        return exclusive_key(self.project, lock_key=_resolved(self.lock_key))

    def environment_key(self, environment: str | None = None) -> str:
        """Name what a run works on: what it has to itself, and the environment, the resource's own or another one."""
        return f"{self.exclusive_key()}/{environment or self.project.environment}"

    def run(self, context: dg.AssetExecutionContext, config: SQLMeshRunConfig | None = None) -> Iterator[Result]:
        """Run what the step selected, and yield every result while the runner runs.

        Selected assets are run by `sqlmesh-runner run`; checks selected without their assets only by `sqlmesh-runner audit`. Where Dagster
        splits the assets into several steps, the config given to one of them holds for all. Results of another environment are observations.

        However the step ends, its runner is stopped and waited for, and what it reported is stored.

        Raises:
            ConcurrentRunError: another run is at work on the project, and the resource does not wait for others.
            LaunchError: the runner could not be started.
            RunFailedError: models or audits failed, or the run broke off. What was reported has been yielded.
            ConfigurationError: the run's config asks for what this resource does not allow, or the assets are not those of this resource.
        """
        options = SQLMeshRunConfig() if config is None else _config_of_run(context, config)
        return step_of(context).hold(context, self._run(context, options))

    def _run(self, context: dg.AssetExecutionContext, config: SQLMeshRunConfig) -> Generator[Result, None, None]:
        mapping, project = self.mapping(), self.project
        other = config.environment if config.environment != project.environment else None
        options, commands = self._options(config, other), list(_selected(mapping, context))
        key = self.exclusive_key()
        tags = {ENVIRONMENT_TAG: self.environment_key(other)}
        failure: RunFailedError | None = None
        with exclusive(context, key, tags=tags, limit=self.concurrency_limit, on_conflict="wait" if self.wait_for_others else "fail"):
            for command, extras in commands:
                own = self._run_options(config) if command == "run" else []
                request = LaunchRequest(
                    arguments=[command, *options, *own],
                    context=_pipes_context(context, extras),
                    labels=self._labels(context, key),
                    is_over=lambda run_id: (run := context.instance.get_run_by_id(run_id)) is not None and run.is_finished,
                )
                report = RunReport(mapping.manifest, context.log)
                try:
                    yield from stream(context, launcher=self.launcher, request=request, report=report, environment=other)
                except RunFailedError as exc:
                    failure = failure or exc
        if failure is not None:
            raise failure

    def _options(self, config: SQLMeshRunConfig, other: str | None) -> list[str]:
        allowed = [self.project.environment, *map(_resolved, self.allowed_environments)]
        if other is not None and other not in allowed:
            msg = f"This deployment does not run the environment {other!r}, only {', '.join(allowed)}. SQLMeshResource(allowed_environments=…) says which."
            raise ConfigurationError(msg)
        times = {"--start": config.start, "--end": config.end, "--execution-time": config.execution_time}
        return [*self.project.runner_arguments(other), *(part for flag, value in times.items() if value for part in (flag, value))]

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
    wanted = context.selected_asset_check_keys
    _check_known(mapping, {*context.selected_asset_keys, *wanted})
    selected = {mapping.fqns[key] for key in context.selected_asset_keys}
    checks = {
        fqn: {audit_id: key.name for audit_id, (key, _) in of_model.items() if key in wanted} for fqn, of_model in mapping.checks.items()
    }
    standalone = {
        fqn: [{"asset_key": key.asset_key.to_escaped_user_string(), "check_name": key.name} for key in keys if key in wanted]
        for fqn, (_, keys) in mapping.standalone_checks.items()
    }
    standalone = {fqn: targets for fqn, targets in standalone.items() if targets}
    everything = selected == mapping.materialized
    # Nobody named a model, in this step or in the run's others: one that is not planned yet must not keep the others from running.
    run_has = {mapping.fqns.get(key) for key in context.job_def.asset_layer.executable_asset_keys}
    lenient = mapping.materialized <= run_has or TICK_TAG in context.run.tags
    if selected:
        yield "run", _extras(mapping, selected, checks, standalone, runs=True, everything=everything, lenient=lenient)
        standalone = {}
    alone = {fqn for fqn, names in checks.items() if names and fqn not in selected}
    if alone or standalone:
        yield "audit", _extras(mapping, alone, checks, standalone, runs=False, everything=False, lenient=lenient)


def _check_known(mapping: ProjectMapping, selected: Collection[dg.AssetKey | dg.AssetCheckKey]) -> None:
    checks = {key for of_model in mapping.checks.values() for key, _ in of_model.values()}
    checks |= {key for _, keys in mapping.standalone_checks.values() for key in keys}
    known = {*checks, *(mapping.asset_keys[fqn] for fqn in mapping.materialized)}
    unknown = sorted(key.to_user_string() for key in selected if key not in known)
    if unknown:
        msg = (
            f"The SQLMeshResource knows no model or audit for {', '.join(unknown[:_LISTED])}{' …' if len(unknown) > _LISTED else ''}. Give it the "
            "manifest and the translator that the assets were made with. Keys are the translator's to make, prefixes too: they can't be changed "
            "on the assets. If the manifest is new, reload the code location."
        )
        raise ConfigurationError(msg)


def _config_of_run(context: dg.AssetExecutionContext, config: SQLMeshRunConfig) -> SQLMeshRunConfig:
    """Give the options of the whole run: Dagster splits the assets into several steps where an asset of somebody else lies between two models."""
    step = context.op_execution_context.get_step_execution_context()
    given = {}
    for node in context.job_def.nodes:
        of_node = step.resolved_run_config.ops[node.name].config
        if node.definition.name == step.op_def.name and isinstance(of_node, Mapping):
            given[node.name] = _changed(SQLMeshRunConfig(**{name: value for name, value in of_node.items() if name in _OPTIONS}))
    given = {name: options for name, options in sorted(given.items()) if options}
    first, *others = given.values() or [{}]
    if any(options != first for options in others):
        msg = f"The run's config gives {' and '.join(given)} different options. They are steps of one SQLMesh run: give one of them options, or all the same."
        raise ConfigurationError(msg)
    return SQLMeshRunConfig(**{**first, **_changed(config)})


def _changed(config: SQLMeshRunConfig) -> dict[str, Any]:
    return config.model_dump(include=_OPTIONS, exclude_defaults=True)


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
                "asset_key": next(key.asset_key.to_escaped_user_string() for key, _ in of_external.values()),
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
    """Give an `EnvVar`'s value: definitions are made from settings before Dagster resolves them.

    Raises:
        ConfigurationError: the variable is not set.
    """
    if not isinstance(value, dg.EnvVar):
        return value
    found = value.get_value()
    if found is None:
        msg = f"The environment variable {value.env_var_name} is not set, and a setting of SQLMeshResource is to be taken from it. Set it wherever definitions are loaded."
        raise ConfigurationError(msg)
    return found


def _parsed(value: str | None) -> datetime.datetime | None:
    try:
        moment = datetime.datetime.fromisoformat(value) if value else None
    except ValueError:
        return None
    return moment.replace(tzinfo=datetime.UTC) if moment and moment.tzinfo is None else moment
