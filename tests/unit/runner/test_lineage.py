"""Column lineage: SQLMesh's answers, in one walk per model, and remembered."""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlglot import exp
from sqlmesh.core.lineage import column_dependencies
from unit.runner.sqlmesh_projects import copy_project

from sqlmesh_runner.manifest import lineage
from sqlmesh_runner.manifest.build import build_manifest, load_files
from sqlmesh_runner.manifest.lineage import LineageCache, trace_columns
from sqlmesh_runner.manifest.schema import ColumnLineage

EXAMPLE = Path(__file__).parents[3] / "examples" / "shop"


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_files(
        [copy_project("column_lineage", tmp_path_factory.mktemp("lineage"))], gateway=None
    )


def _by_sqlmesh(context: Any, name: str, column: str) -> set[tuple[str, str]]:
    found = column_dependencies(context, name, exp.column(column, quoted=True))
    return {(fqn, source) for fqn, sources in found.items() for source in sources}


def _lineage(context: Any, name: str) -> dict[str, set[tuple[str, str]]]:
    traced = trace_columns(context.get_model(name), default_catalog=context.default_catalog)
    return {
        column: {(source["fqn"], source["column"]) for source in sources}
        for column, sources in traced.items()
    }


def _compare_with_sqlmesh(context: Any) -> int:
    compared = 0
    for model in context.models.values():
        if model.is_sql:
            traced = _lineage(context, model.name)
            for column in model.columns_to_types or ():
                with suppress(
                    ValueError
                ):  # SQLMesh 0.180 can't say where a column beside a PIVOT comes from
                    assert traced.get(column, set()) == _by_sqlmesh(context, model.name, column), (
                        model.name,
                        column,
                    )
                    compared += 1
    return compared


def test_lineage_of_unusual_sql_equals_sqlmeshs(nasty: Any) -> None:
    # CTEs, unions, subqueries, stars, USING, UNNEST, LATERAL, recursion, PIVOT, windows, self
    # references, another dialect.
    assert _compare_with_sqlmesh(nasty) >= 50


def test_lineage_of_the_example_equals_sqlmeshs(tmp_path: Path) -> None:
    project = shutil.copytree(
        EXAMPLE, tmp_path / "shop", ignore=shutil.ignore_patterns(".cache", "*.db", "logs")
    )
    assert _compare_with_sqlmesh(load_files([Path(project)], gateway=None)) >= 30


def test_union_column_is_traced_by_position(nasty: Any) -> None:
    orders, customers = '"memory"."raw"."orders"', '"memory"."raw"."customers"'
    assert _lineage(nasty, "nasty.unions") == {
        "id": {(customers, "customer_id"), (orders, "order_id")},
        "what": {(customers, "name"), (orders, "amount"), (customers, "country")},
    }


def test_a_column_made_of_none_has_no_lineage(nasty: Any) -> None:
    assert "one" not in _lineage(nasty, "nasty.windows")


def test_a_python_model_has_no_lineage(nasty: Any) -> None:
    assert trace_columns(nasty.get_model("nasty.from_python"), default_catalog="memory") == {}


def test_the_walk_asks_each_scope_once_for_a_column(
    nasty: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, str | int]] = []
    original = lineage._Walk._trace

    def counted(self: Any, scope: Any, column: str | int) -> Any:
        asked.append((id(scope), column))
        return original(self, scope, column)

    monkeypatch.setattr(lineage._Walk, "_trace", counted)
    trace_columns(nasty.get_model("nasty.ctes"), default_catalog="memory")
    assert asked
    assert len(asked) == len(set(asked))


class _Tracer:
    """Counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, model: Any) -> ColumnLineage:
        self.asked.append(model.name)
        return {"a": [{"fqn": "t", "column": "b"}]}


def test_a_model_that_did_not_change_is_not_traced_again(nasty: Any, tmp_path: Path) -> None:
    model, tracer = nasty.get_model("nasty.stars"), _Tracer()
    first = LineageCache(tmp_path / "cache" / "lineage.json")
    traced = first.get(model, tracer)
    first.save()
    assert LineageCache(tmp_path / "cache" / "lineage.json").get(model, tracer) == traced
    assert tracer.asked == ["nasty.stars"]


def test_a_model_whose_upstream_columns_changed_is_traced_again(nasty: Any, tmp_path: Path) -> None:
    model, tracer = nasty.get_model("nasty.stars"), _Tracer()
    cache = LineageCache(tmp_path / "lineage.json")
    cache.get(model, tracer)
    other = model.copy(
        update={"mapping_schema": {"memory": {"raw": {"orders": {"order_id": "INT"}}}}}
    )
    cache.get(other, tracer)
    assert len(tracer.asked) == 2


@pytest.mark.parametrize("content", ["", "[]", '{"made_by": [0], "lineages": {}}', '{"made_by": '])
def test_a_damaged_or_foreign_cache_is_no_cache(nasty: Any, tmp_path: Path, content: str) -> None:
    (tmp_path / "lineage.json").write_text(content)
    tracer = _Tracer()
    LineageCache(tmp_path / "lineage.json").get(nasty.get_model("nasty.stars"), tracer)
    assert tracer.asked == ["nasty.stars"]


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(nasty: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way of a folder")
    cache = LineageCache(tmp_path / "file" / "lineage.json")
    cache.get(nasty.get_model("nasty.stars"), _Tracer())
    cache.save()
    assert (tmp_path / "file").read_text() == "in the way of a folder"


def test_untraceable_sql_loses_lineage_only(
    nasty: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(model: Any) -> ColumnLineage:
        msg = "no idea"
        raise ValueError(msg)

    assert LineageCache(tmp_path / "lineage.json").get(nasty.get_model("nasty.stars"), broken) == {}
    assert "nasty.stars" in caplog.text
    assert "no idea" in caplog.text


def test_cached_lineage_makes_the_same_manifest(
    tmp_path: Path,
) -> None:
    project = copy_project("column_lineage", tmp_path)
    first = build_manifest(paths=[project], column_lineage=True)
    kept = json.loads((project / ".cache" / "column_lineage.json").read_text())
    assert (
        len(kept["lineages"]) == sum("column_lineage" in model for model in first["models"]) == 14
    )
    assert build_manifest(paths=[project], column_lineage=True) == first
