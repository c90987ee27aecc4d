"""Which snapshots a run of some needs, by the environment's graph."""

from types import SimpleNamespace
from typing import Any

import pytest

from sqlmesh_runner.sqlmesh_api.needed_snapshots import _evaluation_names


def _infos(**parents: str) -> Any:
    """Return an environment's records from each model's parents, separated by spaces."""
    return {
        name: SimpleNamespace(parents=[SimpleNamespace(name=parent) for parent in text.split()])
        for name, text in parents.items()
    }


CHAIN = _infos(raw="", a="raw", b="a", c="b", d="c", other="raw")


@pytest.mark.parametrize(
    ("selected", "needed"),
    [
        ({"d"}, {"d", "c"}),
        ({"a"}, {"a", "raw"}),
        ({"a", "d"}, {"raw", "a", "b", "c", "d"}),
        ({"other", "b"}, {"raw", "other", "a", "b"}),
        ({"raw"}, {"raw"}),
    ],
)
def test_parents_and_what_is_between_selected_models_is_needed(
    selected: set[str], needed: set[str]
) -> None:
    assert _evaluation_names(CHAIN, selected) == needed


def test_parents_outside_the_environment_are_ignored() -> None:
    assert _evaluation_names(_infos(a="gone"), {"a"}) == {"a"}
