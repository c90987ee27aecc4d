"""How SQLMesh's models become Dagster's assets: keys, dependencies, groups, tags, owners, metadata.

Subclass `SQLMeshTranslator` and override what should be otherwise. Methods have dg-sqlmesh's names and arguments, `model` has SQLMesh's
attribute names and `context` gives the project's models; docs/migrating.md has what a translator from there must do otherwise.
"""

import hashlib
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg

from dagster_sqlmesh_pipes.errors import TranslationError
from dagster_sqlmesh_pipes.manifest import Audit, Manifest, Model, StandaloneAudit

__all__ = ["MappedExternalsTranslator", "SQLMeshTranslator", "is_legal_owner", "split_fqn"]

_METADATA_KEYS = (
    "cron", "cron_tz", "tags", "kind", "dialect", "query", "partitioned_by", "clustered_by", "grains", "gateway", "owner", "start", "signals",
)  # fmt: skip
_OWNER = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}|team:[A-Za-z0-9_-]+")
_TAG_LENGTH = 63  # characters, Dagster's limit
_PLAIN_QUOTES = re.compile(r'"([A-Za-z_]\w*)"')
_CONFIG_TAG = re.compile(r"dagster:(?P<property>[^:]+):(?P<value>.+)")


class SQLMeshTranslator:
    """Map SQLMesh's models to Dagster's assets."""

    shares_external_keys = True
    """Whether several external tables may have one key: several tables may come from one Dagster asset, where somebody wrote code that says so."""

    @property
    def label(self) -> str:
        """What error messages call it."""
        return type(self).__name__

    def get_asset_key(self, model: Model) -> dg.AssetKey:
        """Give a model's asset key: catalog, schema and view name (`shop/analytics/orders`), without a catalog that isn't known."""
        parts = [model.catalog, model.schema_name, model.view_name]
        return dg.AssetKey([self.normalize_segment(part) for part in parts if part])

    def get_external_asset_key(self, external_fqn: str) -> dg.AssetKey:
        """Give the key of a table that SQLMesh only reads, by its quoted FQN: `external/` and the FQN's parts."""
        return dg.AssetKey(["external", *self.get_asset_key_name(external_fqn)])

    def get_model_deps_with_external(self, context: Manifest, model: Model) -> Sequence[dg.AssetKey]:
        """Give the keys of what a model reads: its models' keys, and those of external tables.

        In place of an EMBEDDED model, which no run ever makes, it is what that one reads: runs keep to that order and automation conditions
        wait for it.
        """
        return [self._key_of(context, fqn) for fqn in context.tables(model.depends_on)]

    def is_external_dependency(self, context: Manifest, dep_str: str) -> bool:
        """Tell whether an FQN is that of a table that SQLMesh only reads, declared or not."""
        model = context.get_model(dep_str)
        return model is None or model.is_external

    def get_external_dependencies(self, context: Manifest, model: Model) -> list[str]:
        """Give the FQNs of the tables that a model reads and SQLMesh does not make."""
        return [fqn for fqn in sorted(model.depends_on) if self.is_external_dependency(context, fqn)]

    def get_group_name(self, context: Manifest, model: Model) -> str | None:  # noqa: ARG002 - part of the interface
        """Give a model's group: its tag `dagster:group_name:x`, else None, which leaves it to the factory or the model's schema."""
        return self.get_dagster_property(model, "group_name")

    def get_group_name_with_fallback(self, context: Manifest, model: Model, factory_group_name: str | None) -> str:
        """Choose the group: what `get_group_name` gives, else the factory's, else the model's schema.

        Raises:
            TranslationError: nothing of it is left as a name.
        """
        group = self.get_group_name(context, model) or factory_group_name or model.schema_name or "default"
        legal = "/".join(self.normalize_segment(part) for part in group.split("/") if part)
        if not legal:
            msg = f"{model.fqn} can't be in the group {group!r}: give it a name in the model's tag `dagster:group_name:…`, or where groups are chosen."
            raise TranslationError(msg)
        return legal

    def get_tags(self, context: Manifest, model: Model) -> Mapping[str, str]:  # noqa: ARG002 - part of the interface
        """Give a model's tags as Dagster tags with the value `true`; `dagster:…` tags are settings and left out.

        Characters that Dagster does not allow in a tag's key become `_`. Where letters are lost by that, or two tags would be one, a suffix
        made from the tag is added. The tags as written are in the metadata.
        """
        return dict.fromkeys(_legal_tags(tag for tag in model.tags if not _CONFIG_TAG.fullmatch(tag)), "true")

    def get_owners(self, context: Manifest, model: Model) -> Sequence[str]:  # noqa: ARG002 - part of the interface
        """Give a model's owner, if Dagster accepts it: an email address or `team:name`. Others are in the metadata only."""
        return [model.owner] if model.owner and is_legal_owner(model.owner) else []

    def get_description(self, context: Manifest, model: Model) -> str | None:  # noqa: ARG002 - part of the interface
        """Give a model's description."""
        return model.description

    def get_metadata(self, model: Model, keys: Sequence[str]) -> Mapping[str, Any]:
        """Give the model's attributes `keys` as metadata: `serialize_metadata`."""
        return self.serialize_metadata(model, keys)

    def serialize_metadata(self, model: Model, keys: Sequence[str]) -> Mapping[str, Any]:
        """Give the model's attributes `keys` as metadata `sqlmesh/<key>`, without those that say nothing."""
        values = {f"sqlmesh/{key}": _metadata_value(key, getattr(model, key, None)) for key in keys}
        return {key: value for key, value in values.items() if value is not None}

    def get_table_metadata(self, model: Model) -> Mapping[str, Any]:
        """Give what Dagster knows to show of a table: its name, if there is one, and columns."""
        metadata: dict[str, Any] = {"dagster/table_name": model.relation} if model.relation else {}
        if model.columns:
            metadata["dagster/column_schema"] = dg.TableSchema(
                columns=[dg.TableColumn(name=c.name, type=c.type, description=c.description) for c in model.columns]
            )
        return metadata

    def get_column_lineage(self, context: Manifest, model: Model) -> Mapping[str, Any]:
        """Give a model's column lineage as metadata, if the manifest has it."""
        if not model.column_lineage:
            return {}
        deps_by_column = {
            column: [dg.TableColumnDep(asset_key=self._key_of(context, ref.fqn), column_name=ref.column) for ref in refs]
            for column, refs in model.column_lineage.items()
        }
        return {"dagster/column_lineage": dg.TableColumnLineage(deps_by_column=deps_by_column)}

    def get_check_name(self, audit: Audit | StandaloneAudit, *, taken: bool) -> str:
        """Name an audit's check: as the audit; if the name is `taken` on the asset, with a suffix made from the audit's arguments."""
        name = self.normalize_segment(audit.name)
        return f"{name}_{self.normalize_segment(audit.id.rpartition(':')[2])}" if taken else name

    def get_check_description(self, audit: Audit | StandaloneAudit) -> str:
        """Describe an audit's check: the audit's use as in the model, whether it blocks in SQLMesh, and the audit's description."""
        arguments = ", ".join(f"{name} := {value}" for name, value in audit.args.items()) if isinstance(audit, Audit) else ""
        effect = "keeps what is downstream from running" if audit.blocking else "only warns"
        use = f"SQLMesh audit `{audit.name}{f'({arguments})' if arguments else ''}`. In SQLMesh a failure {effect}."
        return f"{audit.description}\n\n{use}" if audit.description else use

    def get_check_metadata(self, audit: Audit | StandaloneAudit) -> Mapping[str, Any]:
        """Give an audit's definition as its check's metadata."""
        metadata: dict[str, Any] = {"audit_blocking": audit.blocking, "audit_dialect": audit.dialect or ""}
        if isinstance(audit, Audit) and audit.args:
            metadata["audit_args"] = dg.MetadataValue.json(dict(audit.args))
        if audit.query:
            metadata["audit_query"] = _sql(audit.query)
        return metadata

    def normalize_segment(self, segment: str | None) -> str:
        """Make a name legal in asset keys, groups and check names: quotes go, anything but letters, digits and `_` becomes `_`.

        None, as the catalog of a model may be, becomes `unknown`.
        """
        if segment is None:
            return "unknown"
        return re.sub(r"[^A-Za-z0-9_]", "_", segment.replace('"', "").replace("'", ""))

    def get_dagster_property(self, model: Model, name: str) -> str | None:
        """Read a setting from a model's tags: `dagster:<name>:<value>`."""
        for tag in model.tags:
            match = _CONFIG_TAG.fullmatch(tag)
            if match and match["property"] == name:
                return match["value"]
        return None

    def _get_dagster_property_from_tags(self, model: Model, property_name: str) -> str | None:
        return self.get_dagster_property(model, property_name)  # dg-sqlmesh's name for it; overrides there call it

    def get_asset_key_name(self, fqn: str) -> list[str]:
        """Give an FQN's parts, as an asset key may have them."""
        return [self.normalize_segment(part) for part in split_fqn(fqn)]

    def get_asset_key_from_dep_str(self, dep_str: str) -> dg.AssetKey:
        """Give the key made of an FQN's parts, which is a model's if `get_asset_key` is not overridden."""
        return dg.AssetKey(self.get_asset_key_name(dep_str))

    def get_assetkey_to_model(self, models: Iterable[Model]) -> dict[dg.AssetKey, Model]:
        """Give models by their asset keys."""
        return {self.get_asset_key(model): model for model in models}

    def _key_of(self, context: Manifest, fqn: str) -> dg.AssetKey:
        model = context.get_model(fqn)
        if model is None or self.is_external_dependency(context, fqn):
            return self.get_external_asset_key(fqn)
        return self.get_asset_key(model)


class MappedExternalsTranslator(SQLMeshTranslator):
    """Map external tables to asset keys by a template: `target/main/{node.name}`.

    `node` has `database`, `schema`, `name` and `fqn`; `{{ node.name }}` is the same as `{node.name}`. Slashes part the key's segments.
    """

    shares_external_keys = False  # a template that gives two tables one key lacks the name

    @property
    def label(self) -> str:
        """The argument that its users wrote."""
        return f"external_asset_mapping={self.template!r}"

    def __init__(self, template: str) -> None:
        self.template = template
        self._format = re.sub(r"\{\{\s*(node\.\w+)\s*\}\}", r"{\1}", template)

    def get_external_asset_key(self, external_fqn: str) -> dg.AssetKey:
        """Give an external table's key by the template.

        Raises:
            TranslationError: the template is malformed or names something `node` does not have.
        """
        database, schema, name = ["", "", *split_fqn(external_fqn)][-3:]
        node = SimpleNamespace(database=database, schema=schema, name=name, fqn=external_fqn)
        try:
            path = self._format.format(node=node)
        except (AttributeError, KeyError, IndexError, ValueError) as exc:
            msg = (
                f"{self.label} can't be filled in for {external_fqn}: {exc}. "
                "It may use {node.database}, {node.schema}, {node.name} and {node.fqn}."
            )
            raise TranslationError(msg) from exc
        return dg.AssetKey([self.normalize_segment(part) for part in path.split("/")])


def metadata_keys(model: Model) -> list[str]:
    """Give the model attributes shown as metadata: not an owner that Dagster shows, nor the cron of what no run ever makes."""
    left_out = {"owner"} if model.owner and is_legal_owner(model.owner) else set[str]()
    if not model.materialized:
        left_out |= {"cron", "cron_tz"}
    return [key for key in _METADATA_KEYS if key not in left_out]


def code_reference(model: Model, project_dirs: Sequence[str]) -> Mapping[str, Any]:
    """Give the metadata that links an asset to its model's file; nothing where that file isn't on this machine."""
    if model.path is None or model.project_dir_index >= len(project_dirs):
        return {}
    path = Path(project_dirs[model.project_dir_index], model.path)
    if not path.is_file():
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # code references are in beta (1.13); the user can't change that
        reference = dg.LocalFileCodeReference(file_path=str(path.resolve()), line_number=1, label=model.path)
        return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[reference])}


def is_legal_owner(owner: str) -> bool:
    """Tell whether Dagster takes it for an owner: an email address or `team:name`."""
    return _OWNER.fullmatch(owner) is not None


def split_fqn(fqn: str) -> list[str]:
    """Take a quoted or plain FQN apart: `"shop"."raw"."events"` gives shop, raw and events."""
    return [quoted or plain for quoted, plain in re.findall(r'"([^"]+)"|([^".]+)', fqn)]


def digest(text: str) -> str:
    """Give eight hex digits that tell names apart which are the same once they are legal."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _legal_tags(tags: Iterable[str]) -> list[str]:
    legal = {tag: _legal_tag(tag) for tag in tags}
    taken = list(legal.values())
    return [name if name == tag or taken.count(name) == 1 else _told_apart(name, tag) for tag, name in legal.items()]


def _legal_tag(tag: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", tag)
    letters_lost = any(char.isalnum() and not char.isascii() for char in tag)
    return _told_apart(name, tag) if letters_lost or len(name) > _TAG_LENGTH else name


def _told_apart(name: str, tag: str) -> str:
    return f"{name[: _TAG_LENGTH - 9]}_{digest(tag)}"


def _sql(query: str) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md(f"```sql\n{query}\n```")


def _metadata_value(key: str, value: Any) -> Any:
    if value in (None, (), ""):
        return None
    if key == "query":
        return _sql(value)
    if isinstance(value, tuple | frozenset):
        texts = sorted(value) if isinstance(value, frozenset) else value
        return _PLAIN_QUOTES.sub(r"\1", ", ".join(text for text in texts if not _CONFIG_TAG.fullmatch(text))) or None
    return str(value)
