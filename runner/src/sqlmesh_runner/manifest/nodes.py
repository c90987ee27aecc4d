"""SQLMesh's models and audits as entries of the manifest."""

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final

from sqlglot import exp
from sqlmesh.core.audit.definition import Audit, StandaloneAudit
from sqlmesh.core.environment import EnvironmentNamingInfo
from sqlmesh.core.model import FullKind, Model
from sqlmesh.core.node import _Node
from sqlmesh.core.snapshot.definition import QualifiedViewName

from sqlmesh_runner.manifest.schema import (
    AuditEntry,
    ColumnEntry,
    ColumnLineage,
    KindProperty,
    ModelEntry,
    StandaloneAuditEntry,
)
from sqlmesh_runner.sqlmesh_api.audit_ids import argument_texts, audit_id

__all__ = ["NodeWriter"]

_log = logging.getLogger(__name__)

_KIND_LEFT_OUT: Final = {
    "name",
    "dialect",
    "definition",
    "path",
}  # in other keys, or code, or a path of this machine
_TIME_VARIABLE: Final = re.compile(
    r"(?:@\{?|\{[{%][^{}]*\b)(?:start|end|execution)_(?:dt|dtntz|date|ds|ts|tstz|hour|epoch|millis)\b",
    re.IGNORECASE,
)
"""One of SQLMesh's times in a query, as a macro variable or in Jinja.

SQLMesh renders it as 1970-01-01 outside of a run.
"""


@dataclass(frozen=True, kw_only=True)
class NodeWriter:
    """Writes nodes of one project, as they are called in one environment."""

    directories: Sequence[Path]
    naming: EnvironmentNamingInfo

    def model(self, model: Model, lineage: ColumnLineage | None) -> ModelEntry:
        """Return a model's entry. `lineage` is None when it was not requested or there is none."""
        path, index = self._place(model)
        table = model.fully_qualified_table
        entry: ModelEntry = {
            "fqn": model.fqn,
            "name": model.name,
            "view_name": model.view_name,
            "catalog": table.catalog or None,
            "schema_name": model.schema_name,
            "kind": _kind(model),
            "materialized": not model.kind.is_symbolic,
            "dialect": model.dialect,
            "gateway": model.gateway,
            "project": model.project,
            "path": path,
            "project_dir_index": index,
            "cron": model.cron,
            "cron_tz": model.cron_tz.key if model.cron_tz else None,
            "interval_unit": model.interval_unit.value,
            "allow_partials": model.allow_partials,
            "start": _text(model.start),
            "end": _text(model.end),
            "owner": model.owner or None,
            "tags": list(model.tags),
            "description": model.description or None,
            "columns": _columns(model),
            "partitioned_by": _sql_texts(model.partitioned_by, model.dialect),
            "clustered_by": _sql_texts(model.clustered_by, model.dialect),
            "grains": _sql_texts(model.grains, model.dialect),
            "depends_on": sorted(model.depends_on),
            "signals": [name for name, _ in model.signals],
            "enabled": model.enabled,
            "query": _model_query(model),
            "data_hash": model.data_hash,
            "metadata_hash": model.metadata_hash,
            "relation": self._relation(model),
            "audits": _audits(model),
        }
        if lineage is not None:
            entry["column_lineage"] = lineage
        return entry

    def standalone_audit(self, audit: StandaloneAudit) -> StandaloneAuditEntry:
        """Return the entry of an audit that belongs to no model."""
        path, index = self._place(audit)
        return {
            "fqn": audit.fqn,
            "name": audit.name,
            "id": audit_id(audit.name, {}),
            "query": _query(audit.render_audit_query, written=audit, of=audit.name),
            "dialect": audit.dialect,
            "blocking": audit.blocking,
            "skip": audit.skip,
            "cron": audit.cron,
            "cron_tz": audit.cron_tz.key if audit.cron_tz else None,
            "owner": audit.owner or None,
            "tags": list(audit.tags),
            "description": audit.description or None,
            "depends_on": sorted(audit.depends_on),
            "path": path,
            "project_dir_index": index,
        }

    def _relation(self, model: Model) -> str | None:
        """Return the name that users query; None where the model has nothing in the warehouse."""
        if model.kind.is_embedded:
            return None
        table = model.fully_qualified_table
        if model.kind.is_external:
            return str(exp.table_name(table))
        view = QualifiedViewName(
            catalog=table.catalog or None, schema_name=table.db or None, table=table.name
        )
        return str(view.for_environment(self.naming, dialect=model.dialect))

    def _place(self, node: _Node) -> tuple[str | None, int]:
        """Return a file's path in its project directory, and which (the innermost) directory."""
        path = Path(node._path).absolute() if node._path else None  # noqa: SLF001 - has no public name
        if path is None:
            return None, 0
        holders = [
            index
            for index, directory in enumerate(self.directories)
            if path.is_relative_to(directory)
        ]
        if not holders:
            return None, 0
        innermost = max(holders, key=lambda index: len(self.directories[index].parts))
        return path.relative_to(self.directories[innermost]).as_posix(), innermost


def _kind(model: Model) -> dict[str, KindProperty]:
    """Return a kind's name, and its properties that are scalars or lists of SQL texts."""
    properties: dict[str, KindProperty] = {"name": model.kind.name.value}
    for name, value in sorted(model.kind):
        key = name.rstrip("_")
        written = None if key in _KIND_LEFT_OUT else _property(value, model.dialect)
        if written is not None:
            properties[key] = written
    return properties


def _property(value: Any, dialect: str) -> KindProperty | None:
    column = getattr(value, "column", None)  # SQLMesh's TimeColumn: a column and a format
    if isinstance(column, exp.Expression):
        value = column
    if isinstance(value, exp.Column) and not value.table:
        return str(value.name)
    if isinstance(value, exp.Expression):
        return str(value.sql(dialect=dialect))
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, list):
        texts = [_property(item, dialect) for item in value]
        return [text for text in texts if isinstance(text, str)]
    return value if isinstance(value, str | int | float | bool) else None


def _columns(model: Model) -> list[ColumnEntry]:
    types: Mapping[str, exp.DataType] = model.columns_to_types or {}
    if "*" in types:  # a star that can't be expanded: nothing is known for sure
        return []
    descriptions = model.column_descriptions
    return [
        {
            "name": name,
            "type": kind.sql(dialect=model.dialect),
            "description": descriptions.get(name) or None,
        }
        for name, kind in types.items()
    ]


def _audits(model: Model) -> list[AuditEntry]:
    """Return a model's audits in order; of identical uses the first, or the first that blocks."""
    entries: dict[str, AuditEntry] = {}
    # For models by time range, SQLMesh limits an audit to a batch's interval. There is none here.
    whole = model.copy(update={"kind": FullKind()})
    for audit, args in model.audits_with_args:
        identifier = audit_id(audit.name, args)
        entry = _audit(whole, audit, args, identifier)
        if identifier not in entries or (entry["blocking"] and not entries[identifier]["blocking"]):
            entries[identifier] = entry
    return list(entries.values())


def _audit(
    model: Model, audit: Audit, args: Mapping[str, exp.Expression], identifier: str
) -> AuditEntry:
    own_blocking = args.get("blocking")
    others = {name: value for name, value in args.items() if name != "blocking"}
    return {
        "id": identifier,
        "name": audit.name,
        "args": argument_texts(args),
        # As SnapshotEvaluator._audit decides it.
        "blocking": own_blocking == exp.true() if own_blocking else audit.blocking,
        "skip": audit.skip,
        "query": _query(
            lambda: model.render_audit_query(audit, **others),
            written=audit,
            of=audit.name,
            dialect=model.dialect,
        ),
        "dialect": audit.dialect or model.dialect,
        "description": getattr(audit, "description", None) or None,
    }


def _model_query(model: Model) -> str | None:
    if not model.is_sql:
        return None
    return _query(model.render_query, written=model, of=model.name)


def _query(
    render: Callable[[], exp.Expression | None], *, written: Any, of: str, dialect: str = ""
) -> str:
    """Return a query with its macros expanded, or as written.

    As written where expanding needs the warehouse, or a time that only a run has.
    """
    dialect = dialect or written.dialect
    as_written = str(written.query.sql(dialect=dialect, pretty=True))
    if _TIME_VARIABLE.search(as_written):
        return as_written
    try:
        query = render()
    except Exception:  # noqa: BLE001 - a macro is the user's code; what it raises does not make the model less real
        _log.debug("The query of %s can't be rendered from files alone", of, exc_info=True)
        query = None
    return as_written if query is None else str(query.sql(dialect=dialect, pretty=True))


def _sql_texts(expressions: Iterable[exp.Expression], dialect: str) -> list[str]:
    return [each.sql(dialect=dialect) for each in expressions]


def _text(value: object) -> str | None:
    return None if value is None else str(value)
