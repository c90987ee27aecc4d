"""A project's models as Dagster assets, its audits as checks, and the one step that runs them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import dagster as dg
from pydantic import Field

from dagster_sqlmesh_pipes.allocation import garbage_collection_paused
from dagster_sqlmesh_pipes.errors import ConfigurationError
from dagster_sqlmesh_pipes.manifest import select_models
from dagster_sqlmesh_pipes.mapping import ProjectMapping
from dagster_sqlmesh_pipes.options import (
    AssetsOptions,
    OpOptions,
    SelectionOptions,
    as_names,
    option_values,
)
from dagster_sqlmesh_pipes.project import SQLMeshProject
from dagster_sqlmesh_pipes.resource import SQLMeshResource
from dagster_sqlmesh_pipes.run.config import SQLMeshRunConfig
from dagster_sqlmesh_pipes.run.guard import RESOURCES, requires_runner_guard
from dagster_sqlmesh_pipes.run.results import Result
from dagster_sqlmesh_pipes.signatures import keyword_arguments
from dagster_sqlmesh_pipes.specs import beta_warnings_ignored
from dagster_sqlmesh_pipes.translator import SQLMeshTranslator

__all__ = [
    "Assets",
    "Execute",
    "executable_keys",
    "make_assets",
    "sqlmesh_assets",
    "sqlmesh_assets_factory",
]

Assets = Sequence[dg.AssetsDefinition | dg.AssetSpec]
"""What `sqlmesh_assets_factory` returns."""

Execute = Callable[[dg.AssetExecutionContext, SQLMeshResource, SQLMeshRunConfig], Iterator[Any]]
"""Runs a resource in a step, and yields its results and others."""

Compute = Callable[..., Iterator[Result]]
"""A function that runs SQLMesh, and yields its results and others."""


class _DecoratorArguments(AssetsOptions):
    project: SQLMeshProject = Field(description="Where the project and its manifest are.")
    translator: SQLMeshTranslator | None = Field(
        default=None,
        description="How models become assets. A schedule or sensor that is made from the resource "
        "needs it there as well.",
    )


class _FactoryArguments(AssetsOptions):
    sqlmesh_resource: SQLMeshResource = Field(description="What runs the models.")


@keyword_arguments(_DecoratorArguments)
def sqlmesh_assets(
    arguments: _DecoratorArguments,
) -> Callable[[Compute], dg.AssetsDefinition]:
    """Make one multi-asset, which can be subset, of a function that runs a project's models.

    Its body is usually `yield from sqlmesh.run(context)`. EMBEDDED models are not among the assets,
    because nothing is run for them: `sqlmesh_assets_factory` returns their specs too.

    Raises:
        ManifestError: there is no manifest to read.
        TranslationError: models and asset keys do not fit together.
        ConfigurationError: an owner that Dagster does not accept, or a selection of no model.
    """
    translator = arguments.translator or SQLMeshTranslator()
    mapping = ProjectMapping(arguments.project, translator, arguments)
    return _multi_asset(mapping, _selected(mapping, arguments), arguments)


@keyword_arguments(_FactoryArguments)
def sqlmesh_assets_factory(
    arguments: _FactoryArguments,
) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Make the assets of a resource's project.

    That is one multi-asset for what SQLMesh runs, and a spec for each EMBEDDED model. The resource
    is bound to the assets: it need not be among the resources of the `Definitions`.

    Raises:
        ManifestError: there is no manifest to read.
        TranslationError: models and asset keys do not fit together.
        ConfigurationError: an owner that Dagster does not accept, or a selection of no model.
    """
    return make_assets(arguments.sqlmesh_resource, arguments)


def make_assets(
    resource: SQLMeshResource, options: AssetsOptions, execute: Execute | None = None
) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Return the assets of a resource's project, as `sqlmesh_assets_factory` does.

    Args:
        resource: runs the models.
        options: of the specs and the op.
        execute: runs the resource in the step. Default: its `run`.
    """
    mapping = resource.mapping(options)
    selected = _selected(mapping, options)

    @_multi_asset(mapping, selected, options)
    def run_models(context: dg.AssetExecutionContext, config: SQLMeshRunConfig) -> Iterator[Any]:
        if execute is None:
            yield from resource.run(context, config)
        else:
            yield from execute(context, resource, config)

    shown = [mapping.specs[fqn] for fqn in selected if fqn not in mapping.materialized]
    return [run_models, *shown]


def _selected(mapping: ProjectMapping, options: SelectionOptions) -> list[str]:
    """Return the FQNs of the selected models that are assets, in the manifest's order."""
    select, exclude = as_names(options.select), as_names(options.exclude)
    selected = select_models(mapping.manifest, select, exclude)
    if (select or exclude) and mapping.materialized.isdisjoint(selected):
        msg = (
            f"select={select} and exclude={exclude} leave no model that a run could materialize: "
            "EXTERNAL and EMBEDDED models are only shown."
        )
        raise ConfigurationError(msg)
    return [fqn for fqn in mapping.specs if fqn in selected]


def _multi_asset(
    mapping: ProjectMapping, selected: Sequence[str], options: AssetsOptions
) -> Callable[[Compute], dg.AssetsDefinition]:
    """Return the decorator of the one step that runs the selected models, or any subset."""
    environment = mapping.translator.normalize_segment(mapping.environment)
    specs = [mapping.specs[fqn] for fqn in selected if fqn in mapping.materialized]
    keys = {spec.key for spec in specs}

    def decorate(compute: Compute) -> dg.AssetsDefinition:
        with beta_warnings_ignored(), garbage_collection_paused():  # resource_defs are in beta
            return dg.multi_asset(
                name=options.name or f"sqlmesh_{environment}",
                specs=specs,
                check_specs=[spec for spec in mapping.check_specs() if spec.asset_key in keys],
                allow_arbitrary_check_specs=True,  # no search for each, as in dagster-dbt
                can_subset=True,
                resource_defs=RESOURCES,
                **option_values(options, OpOptions),
            )(requires_runner_guard(compute, mapping))

    return decorate


def executable_keys(assets: Assets) -> set[dg.AssetKey]:
    """Return the keys of the assets that a step materializes."""
    return {key for made in assets if isinstance(made, dg.AssetsDefinition) for key in made.keys}
