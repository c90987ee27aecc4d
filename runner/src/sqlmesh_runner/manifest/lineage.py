"""Column-level lineage: which columns of which models each column of a model is made from.

SQLMesh's own `column_dependencies` builds a tree per column, at 2 ms each. Only the leaves matter
here: one walk over a query's scopes finds those of all columns, and visits each column once.
"""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, TypeAlias

from sqlglot import exp
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import Scope, build_scope, find_all_in_scope
from sqlmesh.core.dialect import normalize_mapping_schema, normalize_model_name
from sqlmesh.core.model import Model

from sqlmesh_runner.manifest.schema import ColumnLineage

__all__ = ["LineageCache", "trace_columns"]

_log = logging.getLogger(__name__)

_FORMAT: Final = 1  # of the cache file; raise it when the same query gets another answer

_Leaf: TypeAlias = tuple[str, str]  # FQN, column


def trace_columns(model: Model, *, default_catalog: str | None) -> ColumnLineage:
    """Return the sources of each of a SQL model's columns; columns without one are left out.

    Sources are models and external tables as the query names them: an EMBEDDED model is a source,
    with a lineage of its own. Seeds, external models and Python models have no query, so no
    lineage. A star that SQLMesh couldn't expand is not a column.
    """
    if not model.is_sql:
        return {}
    query = model.render_query()
    if query is None:
        return {}
    # The same qualification as in sqlmesh.core.lineage, so the answers are the same.
    qualified = qualify(
        query.copy(),
        dialect=model.dialect,
        schema=normalize_mapping_schema(model.mapping_schema, dialect=model.dialect),
        validate_qualify_columns=False,
        infer_schema=True,
    )
    scope = build_scope(qualified)
    if scope is None:
        return {}
    walk = _Walk(dialect=model.dialect, default_catalog=default_catalog)
    traced = {
        name: walk.leaves(scope, name) for name in scope.expression.named_selects if name != "*"
    }
    return {
        name: [{"fqn": fqn, "column": column} for fqn, column in sorted(leaves)]
        for name, leaves in traced.items()
        if leaves
    }


class _Walk:
    """One walk over the scopes of one query."""

    def __init__(self, *, dialect: str, default_catalog: str | None) -> None:
        self._dialect = dialect
        self._default_catalog = default_catalog
        self._known: dict[tuple[int, str | int], frozenset[_Leaf]] = {}
        self._selects: dict[int, dict[str, exp.Expression]] = {}
        self._fqns: dict[int, str] = {}

    def leaves(self, scope: Scope, column: str | int) -> frozenset[_Leaf]:
        """Return the table columns that a scope's output column, by name or position, is from."""
        key = (id(scope), column)
        if key not in self._known:
            self._known[key] = frozenset()  # what a query that refers to itself gets
            self._known[key] = frozenset(self._trace(scope, column))
        return self._known[key]

    def _trace(self, scope: Scope, column: str | int) -> Iterator[_Leaf]:
        if isinstance(scope.expression, exp.Subquery):
            for inner in scope.subquery_scopes[:1]:
                yield from self.leaves(inner, column)
        elif isinstance(scope.expression, exp.SetOperation):
            position = column if isinstance(column, int) else _position(scope.expression, column)
            if position is not None:
                for branch in scope.union_scopes:
                    yield from self.leaves(branch, position)
        else:
            yield from self._trace_projection(scope, self._projection(scope, column))

    def _trace_projection(self, scope: Scope, projection: exp.Expression) -> Iterator[_Leaf]:
        inner = {id(each.expression): each for each in scope.subquery_scopes}
        for query in find_all_in_scope(projection, *exp.UNWRAPPED_QUERIES):
            if (inner_scope := inner.get(id(query))) is not None:
                for name in query.named_selects:
                    yield from self.leaves(inner_scope, name)
        columns: set[exp.Column] = set(find_all_in_scope(projection, exp.Column))
        if isinstance(scope.expression, exp.UDTF):  # UNNEST, LATERAL: all that goes in may come out
            columns.update(scope.expression.find_all(exp.Column))
        for reference in columns:
            yield from self._trace_reference(scope, reference)

    def _trace_reference(self, scope: Scope, column: exp.Column) -> Iterator[_Leaf]:
        source = scope.sources.get(column.table)
        if isinstance(source, Scope):
            yield from self.leaves(source, column.name)
        elif (pivot := _pivot(scope)) is not None and pivot.alias_or_name == column.table:
            for origin in _before_pivot(pivot, column):
                yield from self._trace_origin(scope, origin)
        elif source is not None:
            yield from self._leaf(source, column.name)

    def _trace_origin(self, scope: Scope, column: exp.Column) -> Iterator[_Leaf]:
        source = scope.sources.get(column.table)
        if isinstance(source, Scope):
            yield from self.leaves(source, column.name)
        elif source is not None:
            yield from self._leaf(source, column.name)

    def _leaf(self, source: exp.Expression, column: str) -> Iterator[_Leaf]:
        table = source.find(exp.Table)
        if table is not None and column != "*":
            if id(table) not in self._fqns:
                self._fqns[id(table)] = normalize_model_name(
                    table, default_catalog=self._default_catalog, dialect=self._dialect
                )
            yield self._fqns[id(table)], column

    def _projection(self, scope: Scope, column: str | int) -> exp.Expression:
        selects: list[exp.Expression] = scope.expression.selects
        if isinstance(column, int):
            return selects[column] if column < len(selects) else exp.Star()
        if id(scope) not in self._selects:
            self._selects[id(scope)] = {
                select.alias_or_name: select for select in reversed(selects)
            }
        whole = exp.Star() if scope.expression.is_star else scope.expression
        return self._selects[id(scope)].get(column, whole)


def _position(query: exp.SetOperation, column: str) -> int | None:
    """Return the position of a column in a UNION, whose branches match by position."""
    return next(
        (
            i
            for i, select in enumerate(query.selects)
            if select.alias_or_name == column or select.is_star
        ),
        None,
    )


def _pivot(scope: Scope) -> exp.Pivot | None:
    pivots = scope.pivots
    return pivots[0] if len(pivots) == 1 and not pivots[0].args.get("unpivot") else None


def _before_pivot(pivot: exp.Pivot, column: exp.Column) -> Iterable[exp.Column]:
    """Return the columns that an output column of a PIVOT is made from.

    A pivot makes one column per value and aggregation, the aggregations in turn: column i is from
    aggregation i modulo their number. Other columns pass through from the table below the pivot.
    """
    names = [each.name for each in pivot.args.get("columns") or ()]
    if column.name in names:
        aggregation = pivot.expressions[names.index(column.name) % len(pivot.expressions)]
        return list(aggregation.find_all(exp.Column))
    under = pivot.parent
    return [exp.column(column.this, table=under.alias_or_name if under else "")]


class LineageCache:
    """Lineages of an earlier manifest, by a model's data hash and the columns upstream.

    One JSON file. It is a cache: when it can't be read or written, lineage is traced again.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._before: dict[str, ColumnLineage] = {}
        self._now: dict[str, ColumnLineage] = {}
        with suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads(file.read_text(encoding="utf-8"))
            if content["made_by"] == _made_by():
                self._before = content["lineages"]

    def get(self, model: Model, trace: Callable[[Model], ColumnLineage]) -> ColumnLineage:
        """Return a model's lineage, cached or traced; empty if the query can't be traced."""
        key = _key(model)
        if key not in self._now:
            self._now[key] = self._before[key] if key in self._before else _traced(model, trace)
        return self._now[key]

    def save(self) -> None:
        """Write the lineages that were used; those of changed or removed models are dropped."""
        if self._now == self._before:
            return
        content = {"made_by": _made_by(), "lineages": self._now}
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self._file.parent, prefix=self._file.name)
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump(content, stream)
            Path(temporary).replace(self._file)
        except OSError as exc:  # a read-only image: the next manifest traces again
            _log.debug("The column lineage can't be kept in %s: %s", self._file, exc)


def _traced(model: Model, trace: Callable[[Model], ColumnLineage]) -> ColumnLineage:
    try:
        return trace(model)
    except Exception as exc:  # noqa: BLE001 - SQL that sqlglot can't follow costs its lineage only
        _log.warning("No column lineage for %s: %s", model.name, exc)
        return {}


def _made_by() -> list[Any]:
    return [_FORMAT, version("sqlmesh"), version("sqlglot")]


def _key(model: Model) -> str:
    upstream = json.dumps(model.mapping_schema, sort_keys=True, default=str)
    return hashlib.sha256(f"{model.fqn}\n{model.data_hash}\n{upstream}".encode()).hexdigest()[:32]
