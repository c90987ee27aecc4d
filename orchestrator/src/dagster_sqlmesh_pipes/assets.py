"""A project's models as Dagster assets, its audits as checks, and the one step that runs them."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from dagster_sqlmesh_pipes._mapping import ProjectMapping
from dagster_sqlmesh_pipes._step import RESOURCES, requires_step
from dagster_sqlmesh_pipes._stream import Result
from dagster_sqlmesh_pipes.errors import ConfigurationError
from dagster_sqlmesh_pipes.manifest import Audit, Model, StandaloneAudit
from dagster_sqlmesh_pipes.project import SQLMeshProject
from dagster_sqlmesh_pipes.resource import SQLMeshResource, SQLMeshRunConfig
from dagster_sqlmesh_pipes.translator import SQLMeshTranslator, code_reference, is_legal_owner, metadata_keys

__all__ = ["sqlmesh_assets", "sqlmesh_assets_factory"]

Compute = Callable[..., Iterator[Result]]
"""A function that runs SQLMesh, and yields results and what else it has to tell."""


def sqlmesh_assets(
    *,
    project: SQLMeshProject,
    translator: SQLMeshTranslator | None = None,
    name: str | None = None,
    group_name: str | None = None,
    owners: Sequence[str] = (),
    op_tags: Mapping[str, Any] | None = None,
    retry_policy: dg.RetryPolicy | None = None,
    pool: str | None = None,
    hooks: frozenset[dg.HookDefinition] | None = None,
    freshness_policy: Callable[[Model], dg.FreshnessPolicy | None] | None = None,
) -> Callable[[Compute], dg.AssetsDefinition]:
    """Decorate a function that runs a project's models: it becomes one multi-asset that can be subset.

    Its body is usually `yield from sqlmesh.run(context)`. EMBEDDED models are not in it, because nothing is run for them:
    `sqlmesh_assets_factory` gives their specs too.

    Args:
        project: where the project and its manifest are.
        translator: how models become assets. The resource that runs them must have the same.
        name: the op's name; default `sqlmesh_<environment>`.
        group_name: the group of models whose tags don't name one; default: the model's schema.
        owners: owners of every asset, besides the model's own.
        op_tags: tags of the op, for executors and launchers.
        retry_policy: what to do when the step fails. A retry runs SQLMesh again, which goes on where it stopped.
        pool: the concurrency pool of the op.
        hooks: success and failure hooks of the op.
        freshness_policy: derive an asset's freshness policy from its model.

    Raises:
        ManifestError: there is no manifest to read.
        TranslationError: models and asset keys do not fit together.
    """
    mapping = ProjectMapping(project.manifest(), translator or SQLMeshTranslator())
    specs = _Specs(mapping, project, group_name=group_name, owners=owners, freshness_policy=freshness_policy)
    return specs.multi_asset(name=name, op_tags=op_tags, retry_policy=retry_policy, pool=pool, hooks=hooks)


def sqlmesh_assets_factory(
    *,
    sqlmesh_resource: SQLMeshResource,
    name: str | None = None,
    group_name: str | None = None,
    op_tags: Mapping[str, Any] | None = None,
    owners: Sequence[str] | None = None,
    retry_policy: dg.RetryPolicy | None = None,
    pool: str | None = None,
    hooks: frozenset[dg.HookDefinition] | None = None,
    freshness_policy: Callable[[Model], dg.FreshnessPolicy | None] | None = None,
) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Make the assets of the resource's project: one multi-asset for what SQLMesh runs, and a spec per EMBEDDED model.

    The resource is bound to the assets: it need not be among the resources of the `Definitions`. Arguments as in `sqlmesh_assets`.

    Raises:
        ManifestError: there is no manifest to read.
        TranslationError: models and asset keys do not fit together.
        ConfigurationError: an owner that Dagster does not accept.
    """
    specs = _Specs(
        sqlmesh_resource.mapping(), sqlmesh_resource.project, group_name=group_name, owners=owners or (), freshness_policy=freshness_policy
    )

    @specs.multi_asset(name=name, op_tags=op_tags, retry_policy=retry_policy, pool=pool, hooks=hooks)
    def run_models(context: dg.AssetExecutionContext, config: SQLMeshRunConfig) -> Iterator[Result]:
        yield from sqlmesh_resource.run(context, config)

    return [run_models, *specs.of_models(materialized=False)]


class _Specs:
    """Make asset and check specs from models and audits."""

    def __init__(
        self,
        mapping: ProjectMapping,
        project: SQLMeshProject,
        *,
        group_name: str | None,
        owners: Sequence[str],
        freshness_policy: Callable[[Model], dg.FreshnessPolicy | None] | None,
    ) -> None:
        refused = [owner for owner in owners if not is_legal_owner(owner)]
        if refused:
            msg = f"Dagster does not accept {refused} as owners: use email addresses or team:name."
            raise ConfigurationError(msg)
        self._mapping = mapping
        self._translator = mapping.translator
        self._project_dirs = project.project_dirs
        self._environment = project.environment
        self._group_name = group_name
        self._owners = owners
        self._freshness_policy = freshness_policy or (lambda _model: None)

    def multi_asset(self, *, name: str | None, **op: Any) -> Callable[[Compute], dg.AssetsDefinition]:
        """Make the decorator of the one step that runs all materialized models, any subset of them included; `op` are its op's settings."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.BetaWarning)  # resource_defs are in beta (1.13); the user can't change that
            decorate = dg.multi_asset(
                name=name or f"sqlmesh_{self._translator.normalize_segment(self._environment)}",
                specs=self.of_models(materialized=True),
                check_specs=self.checks(),
                can_subset=True,
                resource_defs=RESOURCES,
                **op,
            )
        return lambda compute: decorate(requires_step(compute))

    def of_models(self, *, materialized: bool) -> list[dg.AssetSpec]:
        """Make the specs of the models that a run executes, or of those that are only shown."""
        return [self.of(model) for model in self._mapping.models.values() if model.materialized == materialized]

    def of(self, model: Model) -> dg.AssetSpec:
        """Make a model's asset spec. Runnable ones are skippable: SQLMesh decides what has something to do."""
        manifest, translator = self._mapping.manifest, self._translator
        return dg.AssetSpec(
            key=self._mapping.asset_keys[model.fqn],
            deps=self._mapping.deps[model.fqn],
            description=translator.get_description(manifest, model),
            metadata={
                "sqlmesh/model": model.fqn,
                **translator.get_metadata(model, metadata_keys(model)),
                **translator.get_table_metadata(model),
                **translator.get_column_lineage(manifest, model),
                **code_reference(model, self._project_dirs),
            },
            skippable=model.materialized,
            group_name=translator.get_group_name_with_fallback(manifest, model, self._group_name),
            code_version=model.data_hash,
            owners=list(dict.fromkeys([*translator.get_owners(manifest, model), *self._owners])),
            tags=translator.get_tags(manifest, model),
            kinds={kind for kind in ("sqlmesh", model.dialect or manifest.dialect) if kind},
            freshness_policy=self._freshness_policy(model) if model.materialized else None,
        )

    def checks(self) -> list[dg.AssetCheckSpec]:
        """Make the specs of all checks. None is `blocking`: what stops what is for SQLMesh to decide, and it has when Dagster hears of it."""
        found: list[tuple[dg.AssetCheckKey, Audit | StandaloneAudit]] = []
        for checks in self._mapping.checks.values():
            found.extend(checks.values())
        for audit, keys in self._mapping.standalone_checks.values():
            found.extend((key, audit) for key in keys)
        return [
            dg.AssetCheckSpec(
                name=key.name,
                asset=key.asset_key,
                description=self._translator.get_check_description(audit),
                metadata=self._translator.get_check_metadata(audit),
            )
            for key, audit in found
        ]
