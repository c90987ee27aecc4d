"""The request to a runner: its arguments, Pipes context and labels, from what the step selected."""

import os
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster_pipes import PipesContextData

from dagster_sqlmesh_pipes.contract import PROTOCOL_VERSION, TICK_TAG, list_names
from dagster_sqlmesh_pipes.errors import ConfigurationError
from dagster_sqlmesh_pipes.launchers.base import Invocation, Launcher, LaunchRequest
from dagster_sqlmesh_pipes.launchers.labels import (
    CODE_LOCATION_LABEL,
    JOB_LABEL,
    LOCK_LABEL,
    RUN_ID_LABEL,
    STEP_LABEL,
)
from dagster_sqlmesh_pipes.manifest import Manifest
from dagster_sqlmesh_pipes.mapping import ProjectMapping
from dagster_sqlmesh_pipes.options import (
    LaunchpadOptions,
    ResourceOptions,
    RunOptions,
    option_values,
    runner_arguments,
)
from dagster_sqlmesh_pipes.project import SQLMeshProject
from dagster_sqlmesh_pipes.run.config import SQLMeshRunConfig

__all__ = ["StepSettings", "describe_start", "launch_requests"]

AssetOrCheckKey = dg.AssetKey | dg.AssetCheckKey

_SELECTED_IN_SHELL = 20  # models named in a command that people read; more are left out


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """A resource's settings, as a step needs them: resolved, and with the project's mapping."""

    project: SQLMeshProject
    mapping: ProjectMapping
    launcher: Launcher
    lock_key: str
    options: ResourceOptions

    def other_environment(self, config: SQLMeshRunConfig) -> str | None:
        """Return the environment that a run's config asks for; None for the project's own.

        Raises:
            ConfigurationError: it is not allowed.
        """
        own, asked = self.project.environment, config.environment
        allowed = [own, *self.options.allowed_environments]
        if asked is not None and asked not in allowed:
            msg = (
                f"The environment {asked!r} is not allowed here, only {', '.join(allowed)}. "
                "Add it to SQLMeshResource(allowed_environments=…)."
            )
            raise ConfigurationError(msg)
        return None if asked == own else asked


def launch_requests(
    context: dg.AssetExecutionContext, settings: StepSettings, config: SQLMeshRunConfig
) -> Iterator[LaunchRequest]:
    """Return the requests for what the step selected: `run` for assets, `audit` for checks alone.

    Raises:
        ConfigurationError: the environment is not allowed, or the assets are of another project.
    """
    mapping = settings.mapping
    _check_known(mapping, {*context.selected_asset_keys, *context.selected_asset_check_keys})
    adopts = settings.options.adopt and settings.other_environment(config) is None
    selection = _Selection(mapping, context, adopts=adopts)
    if config.restate:
        _check_restatement(context, settings)
    seeds = [] if config.restate else selection.unaudited_seeds()
    if seeds:
        context.log.info(
            f"The checks of {list_names(seeds)} are not run: SQLMesh audits a SEED when it loads "
            "it, in `sqlmesh plan`. Select the checks without their assets to run them."
        )
    for command, extras in selection.restatement() if config.restate else selection.commands():
        yield LaunchRequest(
            arguments=[command, *_arguments(settings, config, command)],
            context=_pipes_context(context, extras),
            labels=_labels(context, settings),
            run_tags=context.run.tags,
            op_tags=context.op_execution_context.op.tags,
        )


def describe_start(invocation: Invocation, request: LaunchRequest, manifest: Manifest) -> str:
    """Return what was started, and the commands that repeat it in a shell."""
    shell = invocation.debug_command
    lines = [f"A shell like the runner's: {shell}"] if shell else []
    command = shlex.join([*invocation.command, *_shell_arguments(request, manifest)])
    repeat = f"To repeat this in {'it' if shell else 'a shell'}: {command}"
    return "\n".join([f"Started {invocation.name}.", *lines, repeat])


def _shell_arguments(request: LaunchRequest, manifest: Manifest) -> list[str]:
    """Return the arguments with the selection, which is in the Pipes context otherwise."""
    extras = request.context["extras"] or {}
    fqns = extras["models"] if extras.get("selection") == "models" else []
    if len(fqns) > _SELECTED_IN_SHELL:
        return list(request.arguments)
    names = [manifest.models[fqn].name for fqn in fqns]
    return [*request.arguments, *(["--select", *names] if names else [])]


class _StepOptions(ResourceOptions, LaunchpadOptions):
    """The resource's options and the run's."""


def _arguments(settings: StepSettings, config: SQLMeshRunConfig, command: str) -> list[str]:
    of_resource = option_values(settings.options, ResourceOptions)
    of_run = option_values(config, LaunchpadOptions)
    either = {name: of_resource[name] or of_run[name] for name in RunOptions.model_fields}
    options = _StepOptions(**{**of_resource, **of_run, **either})
    environment = settings.other_environment(config)
    return [
        *settings.project.runner_arguments(environment),
        *runner_arguments(options, command),
        *(["--no-lock"] if options.concurrency_limit > 1 else []),
    ]


def _labels(context: dg.AssetExecutionContext, settings: StepSettings) -> Mapping[str, str]:
    origin = context.run.remote_job_origin
    location = origin.repository_origin.code_location_origin.location_name if origin else None
    labels = {
        RUN_ID_LABEL: context.run.run_id,
        JOB_LABEL: context.run.job_name,
        STEP_LABEL: context.op_execution_context.get_step_execution_context().step.key,
        CODE_LOCATION_LABEL: location,
        LOCK_LABEL: settings.lock_key if settings.options.concurrency_limit == 1 else None,
    }
    return {name: value for name, value in labels.items() if value}


def _check_restatement(context: dg.AssetExecutionContext, settings: StepSettings) -> None:
    if not settings.options.allow_restate:
        msg = (
            "This deployment does not restate models. Set SQLMeshResource(allow_restate=True), and "
            "give the runner the project's files as they were planned."
        )
        raise ConfigurationError(msg)
    if not context.selected_asset_keys:
        msg = "Checks alone can't be restated: select the assets of the models to restate."
        raise ConfigurationError(msg)


def _check_known(mapping: ProjectMapping, selected: Collection[AssetOrCheckKey]) -> None:
    checks = {key for of_model in mapping.checks.values() for key, _ in of_model.values()}
    checks |= {key for _, keys in mapping.standalone_checks.values() for key in keys}
    known = {*checks, *(mapping.asset_keys[fqn] for fqn in mapping.materialized)}
    unknown = sorted(key.to_user_string() for key in selected if key not in known)
    if unknown:
        msg = (
            f"There is no model or audit for {list_names(unknown)}. Only the translator sets asset "
            "keys, prefixes too: they can't be changed on the assets."
        )
        raise ConfigurationError(msg)


class _Selection:
    """The models and audits that a step selected, as Pipes extras.

    See docs/reference/messages.md.
    """

    def __init__(
        self, mapping: ProjectMapping, context: dg.AssetExecutionContext, *, adopts: bool
    ) -> None:
        self._adopts = adopts
        wanted = context.selected_asset_check_keys
        self._mapping = mapping
        self._models = {mapping.fqns[key] for key in context.selected_asset_keys}
        # SQLMesh audits each model that it runs. A step that selected no check at all, as the
        # schedule's, reports them all.
        reported_with = self._models if not wanted else set()
        self._checks = {
            fqn: {
                audit_id: key.name
                for audit_id, (key, _) in of_model.items()
                if fqn in reported_with or key in wanted
            }
            for fqn, of_model in mapping.checks.items()
        }
        assets = context.selected_asset_keys if not wanted else set()
        self._standalone = _standalone_targets(mapping, wanted, assets)
        self._skip_unplanned = _selected_everything(context)

    def commands(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Return the runner's commands for this selection, each with its extras."""
        audited_alone = {
            fqn for fqn, names in self._checks.items() if names and fqn not in self._models
        }
        if self._models:
            yield "run", self._extras(self._models, self._standalone, runs=True)
        standalone = {} if self._models else self._standalone
        if audited_alone or standalone:
            yield "audit", self._extras(audited_alone, standalone, runs=False)

    def unaudited_seeds(self) -> list[str]:
        """Return the selected SEED models with selected checks, which a run does not audit."""
        models = self._mapping.manifest.models
        return sorted(
            fqn for fqn in self._models if models[fqn].kind.name == "SEED" and self._checks.get(fqn)
        )

    def restatement(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Return the command that restates the selected models, with what is downstream of them.

        The models downstream are named as well, so that their results are reported.
        """
        models = self._mapping.restated_with(self._models)
        checks = self._mapping.checks
        named = {fqn: {each: key.name for each, (key, _) in checks[fqn].items()} for fqn in models}
        extras = self._extras(models, {}, runs=True)
        entries = {fqn: {**entry, "checks": named[fqn]} for fqn, entry in extras["models"].items()}
        yield (
            "restate",
            {**extras, "selection": "models", "models": entries, "externals": {}, "adopt": False},
        )

    def _extras(
        self,
        models: Collection[str],
        standalone: Mapping[str, Sequence[Mapping[str, str]]],
        *,
        runs: bool,
    ) -> Mapping[str, Any]:
        everything = runs and models == self._mapping.materialized
        return {
            "protocol_version": PROTOCOL_VERSION,
            "selection": "all" if everything else "models",
            "models": {
                fqn: {
                    "asset_key": self._mapping.asset_keys[fqn].to_escaped_user_string(),
                    "checks": self._checks.get(fqn, {}),
                }
                for fqn in sorted(models)
            },
            "standalone_audits": standalone,
            "externals": _externals(self._mapping, models) if runs else {},
            "unplanned": "skip" if self._skip_unplanned else "error",
            "adopt": self._adopts and runs,
            "environment_variables": _environment_variables(self._mapping),
        }


def _environment_variables(mapping: ProjectMapping) -> Mapping[str, Mapping[str, Any]]:
    return {
        variable.name: {
            "required": variable.required,
            "path": variable.path,
            "set_in_orchestrator": variable.name in os.environ,
        }
        for variable in mapping.manifest.environment_variables
    }


def _selected_everything(context: dg.AssetExecutionContext) -> bool:
    """Return whether nobody named a model: the run has all assets that were defined together.

    One that is not planned yet must not keep the others from running. Dagster may have split the
    assets into several steps, so the run's assets count, not the step's.
    """
    defined = {*context.assets_def.node_keys_by_output_name.values()}
    run_has = context.job_def.asset_layer.executable_asset_keys
    return defined.issubset(run_has) or TICK_TAG in context.run.tags


def _standalone_targets(
    mapping: ProjectMapping,
    wanted: Collection[dg.AssetCheckKey],
    assets: Collection[dg.AssetKey],
) -> Mapping[str, Sequence[Mapping[str, str]]]:
    """Return the checks to report a standalone audit's result to, by its FQN.

    Those that are wanted, and those on assets that are run.
    """
    targets = {
        fqn: [
            {"asset_key": key.asset_key.to_escaped_user_string(), "check_name": key.name}
            for key in keys
            if key in wanted or key.asset_key in assets
        ]
        for fqn, (_, keys) in mapping.standalone_checks.items()
    }
    return {fqn: of_audit for fqn, of_audit in targets.items() if of_audit}


def _externals(mapping: ProjectMapping, models: Collection[str]) -> Mapping[str, Any]:
    externals = {}
    for fqn, checks in mapping.external_checks(models).items():
        first, _ = next(iter(checks.values()))
        externals[fqn] = {
            "asset_key": first.asset_key.to_escaped_user_string(),
            "checks": {audit_id: key.name for audit_id, (key, _) in checks.items()},
        }
    return externals


def _pipes_context(
    context: dg.AssetExecutionContext, extras: Mapping[str, Any]
) -> PipesContextData:
    # Not Pipes' own builder: it queries the instance for the provenance of each selected asset.
    targets = [target for targets in extras["standalone_audits"].values() for target in targets]
    named = [*extras["models"].values(), *extras["externals"].values(), *targets]
    return PipesContextData(
        asset_keys=sorted({each["asset_key"] for each in named}),
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
