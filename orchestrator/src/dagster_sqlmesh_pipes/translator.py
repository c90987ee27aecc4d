"""How SQLMesh's models become Dagster's assets: keys, dependencies, groups, tags, owners, metadata.

Subclass `SQLMeshTranslator` and override what should be different. Methods have dg-sqlmesh's names
and arguments, `model` has SQLMesh's attribute names and `context` has the project's models;
docs/how-to/migrating.md lists what a translator from there must change.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import dagster as dg

from dagster_sqlmesh_pipes.errors import TranslationError
from dagster_sqlmesh_pipes.manifest import Audit, Manifest, Model, StandaloneAudit
from dagster_sqlmesh_pipes.names import is_legal_owner, legal_name, legal_tags, split_fqn

__all__ = ["MappedExternalsTranslator", "SQLMeshTranslator"]

_PLAIN_QUOTES = re.compile(r'"([A-Za-z_]\w*)"')
_SETTING_TAG = re.compile(r"dagster:(?P<property>[^:]+):(?P<value>.+)")
_NODE_ATTRIBUTES = "{node.database}, {node.schema}, {node.name} and {node.fqn}"


class SQLMeshTranslator:
    """Map SQLMesh's models to Dagster's assets."""

    shares_external_keys = True
    """Whether several external tables may have one key: one Dagster asset may write several."""

    @property
    def label(self) -> str:
        """The translator's name in error messages."""
        return type(self).__name__

    def get_asset_spec(
        self,
        context: Manifest,  # noqa: ARG002 - part of the interface
        model: Model,  # noqa: ARG002
        base: dg.AssetSpec,
    ) -> dg.AssetSpec:
        """Return a model's asset spec: `base`, which the methods below have filled in, or another.

        It is called once for each model, and what it returns is what runs: a key that it changes is
        changed in the dependencies and the column lineage of other models too.
        """
        return base

    def get_asset_check_spec(
        self,
        context: Manifest,  # noqa: ARG002 - part of the interface
        audit: Audit | StandaloneAudit,  # noqa: ARG002
        base: dg.AssetCheckSpec,
    ) -> dg.AssetCheckSpec:
        """Return an audit's check spec: `base`, or another of the same name and asset."""
        return base

    def get_asset_key(self, model: Model) -> dg.AssetKey:
        """Return a model's asset key: catalog, schema and view name (`shop/analytics/orders`).

        A catalog that is not known is left out.
        """
        parts = [model.catalog, model.schema_name, model.view_name]
        return dg.AssetKey([self.normalize_segment(part) for part in parts if part])

    def get_external_asset_key(self, external_fqn: str) -> dg.AssetKey:
        """Return the key of a table that SQLMesh only reads: `external/` and its FQN's parts."""
        return dg.AssetKey(["external", *self.get_asset_key_name(external_fqn)])

    def get_model_deps_with_external(
        self, context: Manifest, model: Model
    ) -> Sequence[dg.AssetKey]:
        """Return the keys of what a model reads: of models, and of external tables.

        In place of an EMBEDDED model, which no run materializes, come the tables that it reads: so
        runs keep to that order, and automation conditions wait for them.
        """
        return [self._key_of(context, fqn) for fqn in context.tables(model.depends_on)]

    def is_external_dependency(self, context: Manifest, dep_str: str) -> bool:
        """Return whether SQLMesh only reads the table with this FQN, declared or not."""
        model = context.get_model(dep_str)
        return model is None or model.is_external

    def get_external_dependencies(self, context: Manifest, model: Model) -> list[str]:
        """Return the FQNs of the tables that a model reads and SQLMesh does not make."""
        return [
            fqn for fqn in sorted(model.depends_on) if self.is_external_dependency(context, fqn)
        ]

    def get_group_name(self, context: Manifest, model: Model) -> str | None:  # noqa: ARG002 - part of the interface
        """Return a model's group: the value of its tag `dagster:group_name:x`, else None.

        None means the factory's group, or the model's schema.
        """
        return self.get_dagster_property(model, "group_name")

    def get_group_name_with_fallback(
        self, context: Manifest, model: Model, factory_group_name: str | None
    ) -> str:
        """Return the group from `get_group_name`, else the factory's, else the model's schema.

        Raises:
            TranslationError: the group has no character that Dagster allows.
        """
        group = (
            self.get_group_name(context, model)
            or factory_group_name
            or model.schema_name
            or "default"
        )
        legal = "/".join(self.normalize_segment(part) for part in group.split("/") if part)
        if not legal:
            msg = (
                f"{model.fqn} can't be in the group {group!r}: name the group in the model's tag "
                "`dagster:group_name:…`, or in group_name."
            )
            raise TranslationError(msg)
        return legal

    def get_tags(self, context: Manifest, model: Model) -> Mapping[str, str]:  # noqa: ARG002 - part of the interface
        """Return a model's tags as Dagster tags with the value `true`.

        Tags `dagster:…` are settings and left out. Characters that Dagster does not allow in a
        tag's key become `_`, with a suffix made from the tag where letters are lost by that or two
        tags would be one. The tags as written are in the metadata.
        """
        tags = legal_tags(tag for tag in model.tags if not _SETTING_TAG.fullmatch(tag))
        return dict.fromkeys(tags, "true")

    def get_owners(self, context: Manifest, model: Model) -> Sequence[str]:  # noqa: ARG002 - part of the interface
        """Return a model's owner, if Dagster accepts it: an email address or `team:name`.

        Other owners are in the metadata only.
        """
        return [model.owner] if model.owner and is_legal_owner(model.owner) else []

    def get_description(self, context: Manifest, model: Model) -> str | None:  # noqa: ARG002 - part of the interface
        """Return a model's description."""
        return model.description

    def get_metadata(self, model: Model, keys: Sequence[str]) -> Mapping[str, Any]:
        """Return the model's attributes `keys` as metadata: `serialize_metadata`."""
        return self.serialize_metadata(model, keys)

    def serialize_metadata(self, model: Model, keys: Sequence[str]) -> Mapping[str, Any]:
        """Return the model's attributes `keys` as metadata `sqlmesh/<key>`, without empty ones."""
        values = {f"sqlmesh/{key}": _metadata_value(key, getattr(model, key, None)) for key in keys}
        return {key: value for key, value in values.items() if value is not None}

    def get_table_metadata(self, model: Model) -> Mapping[str, Any]:
        """Return the metadata that Dagster shows of a table: its name and its columns."""
        metadata: dict[str, Any] = {"dagster/table_name": model.relation} if model.relation else {}
        if model.columns:
            columns = [
                dg.TableColumn(name=c.name, type=c.type, description=c.description)
                for c in model.columns
            ]
            metadata["dagster/column_schema"] = dg.TableSchema(columns=columns)
        return metadata

    def get_column_lineage(self, context: Manifest, model: Model) -> Mapping[str, Any]:
        """Return a model's column lineage as metadata, if the manifest has it."""
        if not model.column_lineage:
            return {}
        read = {ref.fqn for refs in model.column_lineage.values() for ref in refs}
        keys = {fqn: self._key_of(context, fqn) for fqn in read}
        deps_by_column = {
            column: [
                dg.TableColumnDep(asset_key=keys[ref.fqn], column_name=ref.column) for ref in refs
            ]
            for column, refs in model.column_lineage.items()
        }
        return {"dagster/column_lineage": dg.TableColumnLineage(deps_by_column=deps_by_column)}

    def get_check_name(self, audit: Audit | StandaloneAudit, *, taken: bool) -> str:
        """Return the name of an audit's check: the audit's.

        If the asset has a check of that name (`taken`), a suffix made from the audit's arguments
        is added.
        """
        name = self.normalize_segment(audit.name)
        return f"{name}_{self.normalize_segment(audit.id.rpartition(':')[2])}" if taken else name

    def get_check_description(self, audit: Audit | StandaloneAudit) -> str:
        """Return the description of an audit's check.

        It has the audit's use as in the model, whether it blocks in SQLMesh, and the audit's
        description.
        """
        args = audit.args.items() if isinstance(audit, Audit) else ()
        arguments = ", ".join(f"{name} := {value}" for name, value in args)
        effect = "keeps what is downstream from running" if audit.blocking else "only warns"
        call = f"{audit.name}({arguments})" if arguments else audit.name
        use = f"SQLMesh audit `{call}`. In SQLMesh a failure {effect}."
        return f"{audit.description}\n\n{use}" if audit.description else use

    def get_check_metadata(self, audit: Audit | StandaloneAudit) -> Mapping[str, Any]:
        """Return an audit's definition as its check's metadata."""
        metadata: dict[str, Any] = {
            "audit_blocking": audit.blocking,
            "audit_dialect": audit.dialect or "",
        }
        if isinstance(audit, Audit) and audit.args:
            metadata["audit_args"] = dg.MetadataValue.json(dict(audit.args))
        if audit.query:
            metadata["audit_query"] = _sql(audit.query)
        return metadata

    def normalize_segment(self, segment: str | None) -> str:
        """Return a name that is legal in asset keys, groups and check names.

        Quotes are dropped, anything but letters, digits and `_` becomes `_`; where letters are lost
        by that, a suffix made from the name is added. None, as the catalog of a model may be,
        becomes `unknown`.
        """
        return "unknown" if segment is None else legal_name(segment)

    def get_dagster_property(self, model: Model, name: str) -> str | None:
        """Return a setting from a model's tags: `dagster:<name>:<value>`."""
        for tag in model.tags:
            match = _SETTING_TAG.fullmatch(tag)
            if match and match["property"] == name:
                return match["value"]
        return None

    def _get_dagster_property_from_tags(self, model: Model, property_name: str) -> str | None:
        # dg-sqlmesh's name for it, which overrides there call.
        return self.get_dagster_property(model, property_name)

    def get_asset_key_name(self, fqn: str) -> list[str]:
        """Return an FQN's parts, as asset keys allow them."""
        return [self.normalize_segment(part) for part in split_fqn(fqn)]

    def get_asset_key_from_dep_str(self, dep_str: str) -> dg.AssetKey:
        """Return the key made of an FQN's parts: a model's if `get_asset_key` is not overridden."""
        return dg.AssetKey(self.get_asset_key_name(dep_str))

    def get_assetkey_to_model(self, models: Iterable[Model]) -> dict[dg.AssetKey, Model]:
        """Return models by their asset keys."""
        return {self.get_asset_key(model): model for model in models}

    def _key_of(self, context: Manifest, fqn: str) -> dg.AssetKey:
        model = context.get_model(fqn)
        if model is None or self.is_external_dependency(context, fqn):
            return self.get_external_asset_key(fqn)
        return self.get_asset_key(model)


class MappedExternalsTranslator(SQLMeshTranslator):
    """Map external tables to asset keys by a template: `target/main/{node.name}`.

    `node` has `database`, `schema`, `name` and `fqn`; `{{ node.name }}` is the same as
    `{node.name}`. Slashes separate the key's parts.
    """

    shares_external_keys = False  # a template that yields one key for two tables lacks the name

    def __init__(self, template: str) -> None:
        self.template = template
        self._format = re.sub(r"\{\{\s*(node\.\w+)\s*\}\}", r"{\1}", template)

    @property
    def label(self) -> str:
        """The argument that its users wrote."""
        return f"external_asset_mapping={self.template!r}"

    def get_external_asset_key(self, external_fqn: str) -> dg.AssetKey:
        """Return an external table's key by the template.

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
                f"It may use {_NODE_ATTRIBUTES}."
            )
            raise TranslationError(msg) from exc
        return dg.AssetKey([self.normalize_segment(part) for part in path.split("/")])


def _sql(query: str) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md(f"```sql\n{query}\n```")


def _metadata_value(key: str, value: Any) -> Any:
    if value in (None, (), ""):
        return None
    if key == "query":
        return _sql(value)
    if not isinstance(value, tuple | frozenset):
        return str(value)
    texts = sorted(value) if isinstance(value, frozenset) else value
    listed = ", ".join(text for text in texts if not _SETTING_TAG.fullmatch(text))
    return _PLAIN_QUOTES.sub(r"\1", listed) or None
