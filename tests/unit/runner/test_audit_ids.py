"""An audit use has one id, wherever its model was loaded from."""

from pathlib import Path

import pytest
from sqlglot import exp, parse_one
from unit.runner.sqlmesh_projects import opened_from_state, plan_kinds

from sqlmesh_runner.manifest.build import load_files
from sqlmesh_runner.sqlmesh_api.audit_ids import argument_texts, audit_id


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plan_kinds(tmp_path_factory.mktemp("audit_ids"))


def test_ids_from_files_and_from_state_are_the_same(planned: Path) -> None:
    context = load_files([planned], gateway=None)
    nodes = {**context.models, **context.standalone_audits}
    from_files = {
        name: [audit_id(audit.name, args) for audit, args in node.audits_with_args]
        for name, node in nodes.items()
    }
    with opened_from_state(planned) as (_, snapshots):
        from_state = {
            name: [audit_id(audit.name, args) for audit, args in snapshot.node.audits_with_args]
            for name, snapshot in snapshots.items()
        }
    assert from_state == from_files
    assert sum(len(ids) for ids in from_files.values()) == 13


def test_ids_are_stable_from_release_to_release() -> None:
    # A new id is a new check in Dagster, without its history: these texts must never change.
    assert audit_id("number_of_rows", {}) == "number_of_rows:4f53cda1"
    assert audit_id("not_null", {"columns": parse_one("(a, b)")}) == "not_null:04db847a"
    assert (
        audit_id("accepted_range", {"min_v": parse_one("1"), "column": parse_one("x")})
        == "accepted_range:fcdcdb30"
    )


def test_blocking_is_not_part_of_an_id() -> None:
    args = {"columns": parse_one("(a)")}
    assert audit_id("not_null", {**args, "blocking": exp.false()}) == audit_id("not_null", args)
    assert "blocking" not in argument_texts({**args, "blocking": exp.false()})


def test_the_order_of_arguments_does_not_matter() -> None:
    one, two = parse_one("x"), parse_one("(1, 2)")
    assert audit_id("accepted_values", {"column": one, "is_in": two}) == audit_id(
        "accepted_values", {"is_in": two, "column": one}
    )


def test_a_comment_in_an_argument_does_not_matter() -> None:
    assert audit_id("a", {"x": parse_one("1 /* why */")}) == audit_id("a", {"x": parse_one("1")})


@pytest.mark.parametrize("other", ["(a, c)", "(b, a)", '("A", b)', "'(a, b)'"])
def test_other_arguments_are_another_id(other: str) -> None:
    assert audit_id("not_null", {"columns": parse_one(other)}) != audit_id(
        "not_null", {"columns": parse_one("(a, b)")}
    )
