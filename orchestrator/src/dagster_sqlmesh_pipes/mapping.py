"""Which model is which asset, and which audit which check: for definitions and for runs."""

from collections.abc import Iterable, Mapping
from functools import cached_property

import dagster as dg

from dagster_sqlmesh_pipes.allocation import garbage_collection_paused
from dagster_sqlmesh_pipes.errors import TranslationError
from dagster_sqlmesh_pipes.manifest import Audit, Model, StandaloneAudit
from dagster_sqlmesh_pipes.names import digest
from dagster_sqlmesh_pipes.options import SpecOptions, spec_options
from dagster_sqlmesh_pipes.project import SQLMeshProject
from dagster_sqlmesh_pipes.specs import SpecFactory, beta_warnings_ignored
from dagster_sqlmesh_pipes.translator import SQLMeshTranslator

__all__ = ["ProjectMapping"]

_Checks = Mapping[str, tuple[dg.AssetCheckKey, Audit | StandaloneAudit]]


class ProjectMapping:
    """A project's manifest, as a translator maps it to assets and checks.

    Raises:
        ManifestError: there is no manifest to read.
        TranslationError: two models have one asset key, or a key can't be used; names the FQNs.
        ConfigurationError: an owner that Dagster does not accept.
    """

    def __init__(
        self,
        project: SQLMeshProject,
        translator: SQLMeshTranslator,
        options: SpecOptions | None = None,
    ) -> None:
        self.manifest = project.manifest()
        self.environment = project.environment
        self.translator = translator
        self.options = spec_options(options)
        self._specs = SpecFactory(
            self.manifest, translator, project_dirs=project.project_dirs, options=self.options
        )
        self.models = {
            model.fqn: model
            for model in self.manifest.models.values()
            if model.enabled and not model.is_external
        }
        """Every model that is shown as an asset: what SQLMesh materializes, and EMBEDDED models."""
        self.specs = self._asset_specs()
        """The asset specs by FQN."""
        self.asset_keys = {fqn: spec.key for fqn, spec in self.specs.items()}
        self._check_keys_differ(self.asset_keys)

    @cached_property
    def fqns(self) -> Mapping[dg.AssetKey, str]:
        """The models' FQNs by asset key."""
        return {key: fqn for fqn, key in self.asset_keys.items()}

    @cached_property
    def materialized(self) -> frozenset[str]:
        """The FQNs of the models that a run executes."""
        return frozenset(fqn for fqn, model in self.models.items() if model.materialized)

    def restated_with(self, fqns: Iterable[str]) -> frozenset[str]:
        """Return the FQNs of models and of all models downstream that SQLMesh restates with them.

        A model with `disable_restatement` is not, nor is what is downstream of it.
        """
        reached = set(fqns)
        while True:
            more = {
                fqn
                for fqn, model in self.models.items()
                if fqn not in reached
                and not reached.isdisjoint(model.depends_on)
                and not getattr(model.kind, "disable_restatement", False)
            }
            if not more:
                return self.materialized & reached
            reached |= more

    @cached_property
    def external_keys(self) -> Mapping[str, dg.AssetKey]:
        """The asset keys of the tables that SQLMesh only reads, by FQN."""
        audited = (
            table
            for audit in self.manifest.standalone_audits
            for table in self.manifest.tables(audit.depends_on)
        )
        external = {*self._tables_read_by(self.models), *audited} - self.models.keys()
        return {fqn: self._specs.external_asset_key(fqn) for fqn in sorted(external)}

    @cached_property
    def checks(self) -> Mapping[str, _Checks]:
        """The checks of each materialized model's audits, by FQN and audit id.

        A second use of an audit on a model has a name of its own.
        """
        return {
            fqn: self._checks_of(self.models[fqn], self.asset_keys[fqn])
            for fqn in self.models
            if fqn in self.materialized
        }

    @cached_property
    def standalone_checks(
        self,
    ) -> Mapping[str, tuple[StandaloneAudit, tuple[dg.AssetCheckKey, ...]]]:
        """The checks of each standalone audit, by its FQN.

        It has one on each model that it reads, also through EMBEDDED ones.
        """
        taken = {key for checks in self.checks.values() for key, _ in checks.values()}
        found = {}
        for audit in self.manifest.standalone_audits:
            keys = []
            for fqn in self.manifest.tables(audit.depends_on):
                if fqn in self.materialized:
                    key = self._check_key(self.asset_keys[fqn], audit, taken)
                    taken.add(key)
                    keys.append(key)
            found[audit.fqn] = (audit, tuple(keys))
        return found

    def check_specs(self) -> list[dg.AssetCheckSpec]:
        """Return the specs of all checks."""
        of_models = [check for checks in self.checks.values() for check in checks.values()]
        standalone = [
            (key, audit) for audit, keys in self.standalone_checks.values() for key in keys
        ]
        return [self._specs.check(key, audit) for key, audit in [*of_models, *standalone]]

    def external_checks(self, fqns: Iterable[str]) -> Mapping[str, _Checks]:
        """Return the audits of the external tables that these models read, as in `checks`.

        They are not checks of the step, whose checks must be on its own assets. They are those of
        EXTERNAL models, which SQLMesh audits before it runs what reads them, and the standalone
        audits that read nothing but external tables, each on the first of them. If no model reads
        any of those, the audit goes with whatever is run.
        """
        read, read_by_any = self._tables_read_by(fqns), self._tables_read_by(self.materialized)
        found: dict[str, _Checks] = {}
        for fqn in read - self.models.keys():
            model = self.manifest.get_model(fqn)
            if model is not None and model.is_external and model.audits:
                found[fqn] = self._checks_of(model, self.external_keys[fqn])
        for audit in self.manifest.standalone_audits:
            tables = self.manifest.tables(audit.depends_on)
            if not tables or not self.materialized.isdisjoint(tables):
                continue  # in `standalone_checks`, or it reads nothing
            if not read.isdisjoint(tables) or read_by_any.isdisjoint(tables):
                key = self._check_key(self.external_keys[tables[0]], audit, ())
                found[audit.fqn] = {audit.id: (key, audit)}
        return dict(sorted(found.items()))

    def _asset_specs(self) -> dict[str, dg.AssetSpec]:
        with garbage_collection_paused(), beta_warnings_ignored():
            keys = {fqn: self._specs.asset_key(model) for fqn, model in self.models.items()}
            self._check_keys_differ(keys)
            specs = {fqn: self._specs.asset(model, keys[fqn]) for fqn, model in self.models.items()}
            renamed = {keys[fqn]: spec.key for fqn, spec in specs.items() if spec.key != keys[fqn]}
            if not renamed:
                return specs
            return {fqn: _with_renamed_deps(spec, renamed) for fqn, spec in specs.items()}

    def _tables_read_by(self, fqns: Iterable[str]) -> set[str]:
        read = {table for fqn in fqns for table in self.models[fqn].depends_on}
        return {*self.manifest.tables(read)}

    def _checks_of(self, model: Model, asset_key: dg.AssetKey) -> _Checks:
        checks: dict[str, tuple[dg.AssetCheckKey, Audit | StandaloneAudit]] = {}
        for audit in model.audits:
            if audit.id not in checks:  # the same audit with the same arguments, written twice
                taken = {key for key, _ in checks.values()}
                checks[audit.id] = (self._check_key(asset_key, audit, taken), audit)
        return checks

    def _check_key(
        self,
        asset_key: dg.AssetKey,
        audit: Audit | StandaloneAudit,
        taken: Iterable[dg.AssetCheckKey],
    ) -> dg.AssetCheckKey:
        get_name = self.translator.get_check_name
        key = dg.AssetCheckKey(asset_key, get_name(audit, taken=False))
        if key not in taken:
            return key
        name = get_name(audit, taken=True)
        key = dg.AssetCheckKey(asset_key, name)
        if key not in taken:
            return key
        # Audits whose names differ only in characters that are not legal, with the same arguments.
        use = audit.fqn if isinstance(audit, StandaloneAudit) else audit.id
        return dg.AssetCheckKey(asset_key, f"{name}_{digest(use)}")

    def _check_keys_differ(self, keys: Mapping[str, dg.AssetKey]) -> None:
        models_by_key: dict[dg.AssetKey, list[str]] = {}
        for fqn, key in keys.items():
            models_by_key.setdefault(key, []).append(fqn)
        for fqn, key in self.external_keys.items():
            if key in models_by_key or not self.translator.shares_external_keys:
                models_by_key.setdefault(key, []).append(fqn)
        clashes = [
            f"- {key.to_user_string()}: {', '.join(sorted(fqns))}"
            for key, fqns in models_by_key.items()
            if len(fqns) > 1
        ]
        if clashes:
            listed = "\n".join(clashes)
            msg = (
                f"{self.translator.label} gives several models one asset key. Each needs its own:"
                f"\n{listed}"
            )
            raise TranslationError(msg)


def _with_renamed_deps(
    spec: dg.AssetSpec, renamed: Mapping[dg.AssetKey, dg.AssetKey]
) -> dg.AssetSpec:
    deps = [
        dg.AssetDep(
            renamed.get(dep.asset_key, dep.asset_key), partition_mapping=dep.partition_mapping
        )
        for dep in spec.deps
    ]
    metadata = dict(spec.metadata)
    lineage = metadata.get("dagster/column_lineage")
    if isinstance(lineage, dg.TableColumnLineage):
        metadata["dagster/column_lineage"] = _with_renamed_keys(lineage, renamed)
    return spec.replace_attributes(deps=deps, metadata=metadata)


def _with_renamed_keys(
    lineage: dg.TableColumnLineage, renamed: Mapping[dg.AssetKey, dg.AssetKey]
) -> dg.TableColumnLineage:
    return dg.TableColumnLineage(
        {
            column: [
                dg.TableColumnDep(renamed.get(dep.asset_key, dep.asset_key), dep.column_name)
                for dep in deps
            ]
            for column, deps in lineage.deps_by_column.items()
        }
    )
