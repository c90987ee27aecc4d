"""Models as asset specs and audits as check specs, as the translator and the options shape them."""

import os.path
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

import dagster as dg

from dagster_sqlmesh_pipes.contract import MODEL_KEY
from dagster_sqlmesh_pipes.errors import ConfigurationError, TranslationError
from dagster_sqlmesh_pipes.manifest import Audit, Manifest, Model, StandaloneAudit
from dagster_sqlmesh_pipes.names import is_legal_owner
from dagster_sqlmesh_pipes.options import SpecOptions
from dagster_sqlmesh_pipes.translator import SQLMeshTranslator

__all__ = ["SpecFactory", "beta_warnings_ignored", "usable_key"]

_METADATA_KEYS = (
    "cron", "cron_tz", "tags", "kind", "dialect", "query", "partitioned_by", "clustered_by",
    "grains", "gateway", "owner", "start", "signals",
)  # fmt: skip


class SpecFactory:
    """Make the specs of one project's assets and checks.

    Raises:
        ConfigurationError: an owner that Dagster does not accept.
    """

    def __init__(
        self,
        manifest: Manifest,
        translator: SQLMeshTranslator,
        *,
        project_dirs: Sequence[str] = (),
        options: SpecOptions | None = None,
    ) -> None:
        self._manifest = manifest
        self._translator = translator
        self._project_dirs = project_dirs
        self._options = options or SpecOptions()
        refused = [owner for owner in self._options.owners or () if not is_legal_owner(owner)]
        if refused:
            teams = [f"team:{owner}" for owner in refused]
            msg = (
                f"Dagster does not accept {refused} as owners, only email addresses and team names "
                f"such as {teams}."
            )
            raise ConfigurationError(msg)

    def asset_key(self, model: Model) -> dg.AssetKey:
        """Return a model's asset key, as `get_asset_key` has it.

        Raises:
            TranslationError: it can't be used.
        """
        return usable_key(self._translator.get_asset_key(model), model.fqn)

    def external_asset_key(self, fqn: str) -> dg.AssetKey:
        """Return the key of a table that SQLMesh only reads.

        Raises:
            TranslationError: it can't be used.
        """
        return usable_key(self._translator.get_external_asset_key(fqn), fqn)

    def asset(self, model: Model, key: dg.AssetKey) -> dg.AssetSpec:
        """Return a model's asset spec. Its key may be another than `key`, which `asset_key` gave.

        Raises:
            TranslationError: the spec's key or one of its dependencies can't be used.
        """
        base = self._base(model, key)
        spec = self._translator.get_asset_spec(self._manifest, model, base)
        usable_key(spec.key, model.fqn)
        return spec

    def check(self, key: dg.AssetCheckKey, audit: Audit | StandaloneAudit) -> dg.AssetCheckSpec:
        """Return the spec of an audit's check.

        It is not `blocking`: SQLMesh has decided what a failure stops when Dagster learns of it.

        Raises:
            TranslationError: the translator's spec is of another check.
        """
        base = dg.AssetCheckSpec(
            name=key.name,
            asset=key.asset_key,
            description=self._translator.get_check_description(audit),
            metadata=self._translator.get_check_metadata(audit),
        )
        spec = self._translator.get_asset_check_spec(self._manifest, audit, base)
        if spec.key != key:
            msg = (
                f"{self._translator.label}.get_asset_check_spec returns the check "
                f"{spec.key.to_user_string()} for {key.to_user_string()}: it can't change the name "
                "or the asset. Override get_check_name or get_asset_key instead."
            )
            raise TranslationError(msg)
        return spec

    def _base(self, model: Model, key: dg.AssetKey) -> dg.AssetSpec:
        # Runnable ones are skippable: SQLMesh decides which of them have something to do.
        manifest, translator, options = self._manifest, self._translator, self._options
        owners = [*translator.get_owners(manifest, model), *(options.owners or ())]
        freshness = options.freshness_policy if model.materialized else None
        return dg.AssetSpec(
            key=key,
            deps=self._deps(model, key),
            description=translator.get_description(manifest, model),
            metadata=self._metadata(model),
            skippable=model.materialized,
            group_name=translator.get_group_name_with_fallback(manifest, model, options.group_name),
            code_version=model.data_hash,
            owners=list(dict.fromkeys(owners)),
            tags=translator.get_tags(manifest, model),
            kinds={kind for kind in ("sqlmesh", model.dialect or manifest.dialect) if kind},
            freshness_policy=freshness(model) if freshness else None,
        )

    def _deps(self, model: Model, key: dg.AssetKey) -> list[dg.AssetKey]:
        found = self._translator.get_model_deps_with_external(self._manifest, model)
        keys = {usable_key(each, model.fqn) for each in found}
        return sorted(keys - {key})  # a model that reads itself has no dependency in Dagster

    def _metadata(self, model: Model) -> Mapping[str, Any]:
        translator = self._translator
        return {
            MODEL_KEY: model.fqn,
            **translator.get_metadata(model, _metadata_keys(model)),
            **translator.get_table_metadata(model),
            **translator.get_column_lineage(self._manifest, model),
            **_code_reference(model, self._project_dirs),
        }


def usable_key(key: object, fqn: str) -> dg.AssetKey:
    """Return an asset key that a translator made.

    Raises:
        TranslationError: it is not an asset key, or has an empty part; names the model or table.
    """
    if isinstance(key, dg.AssetKey) and key.path and all(key.path):
        return key
    shown = "/".join(key.path) if isinstance(key, dg.AssetKey) else repr(key)
    msg = (
        f"The translator returns the asset key {shown!r} for {fqn}, which can't be used: return a "
        "dagster.AssetKey without empty parts."
    )
    raise TranslationError(msg)


@contextmanager
def beta_warnings_ignored() -> Iterator[None]:
    """Ignore warnings of Dagster's beta parts that this package uses; no user can avoid them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        yield


def _metadata_keys(model: Model) -> list[str]:
    """Return the model attributes that metadata shows, without those shown elsewhere or unused."""
    left_out = {"owner"} if model.owner and is_legal_owner(model.owner) else set[str]()
    if not model.materialized:
        left_out |= {"cron", "cron_tz"}
    return [key for key in _METADATA_KEYS if key not in left_out]


def _code_reference(model: Model, project_dirs: Sequence[str]) -> Mapping[str, Any]:
    """Return the metadata that links an asset to its model's file, if that is on this machine.

    A path that leaves the project's folder is not followed: manifests are data.
    """
    if model.path is None or model.project_dir_index >= len(project_dirs):
        return {}
    relative = PurePosixPath(model.path)
    if relative.is_absolute() or ".." in relative.parts:
        return {}
    path = os.path.join(project_dirs[model.project_dir_index], model.path)  # noqa: PTH118 - pathlib's takes 5 times as long
    if not os.path.isfile(path):  # noqa: PTH113
        return {}
    reference = dg.LocalFileCodeReference(file_path=path, line_number=1, label=model.path)
    return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[reference])}
