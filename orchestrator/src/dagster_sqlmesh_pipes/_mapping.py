"""Which model is which asset, and which audit which check: worked out once, for the definitions and for every run."""

from collections.abc import Iterable, Mapping
from functools import cached_property

import dagster as dg

from dagster_sqlmesh_pipes.errors import TranslationError
from dagster_sqlmesh_pipes.manifest import Audit, Manifest, Model, StandaloneAudit
from dagster_sqlmesh_pipes.translator import SQLMeshTranslator, digest

__all__ = ["ProjectMapping"]


class ProjectMapping:
    """A manifest seen through a translator.

    Raises:
        TranslationError: two models have one asset key, or a key can't be used; names the FQNs.
    """

    def __init__(self, manifest: Manifest, translator: SQLMeshTranslator) -> None:
        self.manifest = manifest
        self.translator = translator
        self.models = {model.fqn: model for model in manifest.models.values() if model.enabled and not model.is_external}
        """Every model that is shown as an asset: what SQLMesh materializes, and EMBEDDED models."""
        self.asset_keys = {fqn: _usable(translator.get_asset_key(model), fqn) for fqn, model in self.models.items()}
        self.deps = {fqn: self._deps(model) for fqn, model in self.models.items()}
        self._validate()

    @cached_property
    def fqns(self) -> Mapping[dg.AssetKey, str]:
        """The models' FQNs by asset key."""
        return {key: fqn for fqn, key in self.asset_keys.items()}

    @cached_property
    def materialized(self) -> frozenset[str]:
        """The FQNs of the models that a run executes."""
        return frozenset(fqn for fqn, model in self.models.items() if model.materialized)

    @cached_property
    def external_keys(self) -> Mapping[str, dg.AssetKey]:
        """The asset keys of the tables that SQLMesh only reads, by FQN."""
        audited = (table for audit in self.manifest.standalone_audits for table in self.manifest.tables(audit.depends_on))
        external = {*self._tables_read_by(self.models), *audited} - self.models.keys()
        return {fqn: _usable(self.translator.get_external_asset_key(fqn), fqn) for fqn in sorted(external)}

    def external_checks(self, fqns: Iterable[str]) -> Mapping[str, Mapping[str, tuple[dg.AssetCheckKey, Audit | StandaloneAudit]]]:
        """Give the audits that belong to the external tables that these models read, also through EMBEDDED ones, as in `checks`.

        They are no checks of the step's, whose checks must be on its own assets. There are those of EXTERNAL models, which SQLMesh audits
        before it runs what reads them, and the standalone audits that read nothing but external tables, each on the first of them. Where no
        model at all reads those, the audit goes with whatever is run.
        """
        read, read_by_any = self._tables_read_by(fqns), self._tables_read_by(self.materialized)
        found: dict[str, Mapping[str, tuple[dg.AssetCheckKey, Audit | StandaloneAudit]]] = {}
        for fqn in read - self.models.keys():
            model = self.manifest.get_model(fqn)
            if model is not None and model.is_external and model.audits:
                found[fqn] = self._checks_of(model, self.external_keys[fqn])
        for audit in self.manifest.standalone_audits:
            tables = self.manifest.tables(audit.depends_on)
            if not tables or not self.materialized.isdisjoint(tables):
                continue  # in `standalone_checks`, or it reads nothing
            if not read.isdisjoint(tables) or read_by_any.isdisjoint(tables):
                found[audit.fqn] = {audit.id: (self._check_key(self.external_keys[tables[0]], audit, ()), audit)}
        return dict(sorted(found.items()))

    def _tables_read_by(self, fqns: Iterable[str]) -> set[str]:
        return {*self.manifest.tables(table for fqn in fqns for table in self.models[fqn].depends_on)}

    @cached_property
    def checks(self) -> Mapping[str, Mapping[str, tuple[dg.AssetCheckKey, Audit]]]:
        """The checks of each materialized model's audits, by FQN and audit id. A second use of an audit gets a name of its own."""
        return {fqn: self._checks_of(self.models[fqn], self.asset_keys[fqn]) for fqn in self.models if fqn in self.materialized}

    @cached_property
    def standalone_checks(self) -> Mapping[str, tuple[StandaloneAudit, tuple[dg.AssetCheckKey, ...]]]:
        """The checks of each standalone audit, by its FQN: one on each model that it reads, also through EMBEDDED ones."""
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

    def _checks_of(self, model: Model, asset_key: dg.AssetKey) -> Mapping[str, tuple[dg.AssetCheckKey, Audit]]:
        checks: dict[str, tuple[dg.AssetCheckKey, Audit]] = {}
        for audit in model.audits:
            if audit.id not in checks:  # the same audit with the same arguments, written twice
                taken = {key for key, _ in checks.values()}
                checks[audit.id] = (self._check_key(asset_key, audit, taken), audit)
        return checks

    def _check_key(self, asset_key: dg.AssetKey, audit: Audit | StandaloneAudit, taken: Iterable[dg.AssetCheckKey]) -> dg.AssetCheckKey:
        names = [self.translator.get_check_name(audit, taken=is_taken) for is_taken in (False, True)]
        # Audits whose names differ only in what is not legal, with the same arguments.
        names.append(f"{names[-1]}_{digest(audit.fqn if isinstance(audit, StandaloneAudit) else audit.id)}")
        keys = [dg.AssetCheckKey(asset_key, name) for name in names]
        return next((key for key in keys if key not in taken), keys[-1])

    def _deps(self, model: Model) -> list[dg.AssetKey]:
        keys = {_usable(key, model.fqn) for key in self.translator.get_model_deps_with_external(self.manifest, model)}
        return sorted(keys - {self.asset_keys[model.fqn]})  # a model that reads itself is no dependency to Dagster

    def _validate(self) -> None:
        owners: dict[dg.AssetKey, list[str]] = {}
        for fqn, key in self.asset_keys.items():
            owners.setdefault(key, []).append(fqn)
        for fqn, key in self.external_keys.items():
            if key in self.fqns or not self.translator.shares_external_keys:
                owners.setdefault(key, []).append(fqn)
        clashes = [f"{key.to_user_string()}: {', '.join(sorted(fqns))}" for key, fqns in owners.items() if len(fqns) > 1]
        if clashes:
            listed = "\n".join(f"- {clash}" for clash in clashes)
            msg = f"{self.translator.label} gives several models one asset key. Give each its own:\n{listed}"
            raise TranslationError(msg)


def _usable(key: object, fqn: str) -> dg.AssetKey:
    if not isinstance(key, dg.AssetKey) or not key.path or not all(key.path):
        shown = "/".join(key.path) if isinstance(key, dg.AssetKey) else repr(key)
        msg = f"The translator gives {fqn} the asset key {shown!r}, which can't be used: it takes a dagster.AssetKey without empty parts."
        raise TranslationError(msg)
    return key
