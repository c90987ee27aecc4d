"""What a run was asked for."""

import pytest

from sqlmesh_runner.errors import ConfigurationError, NotPlannedError
from sqlmesh_runner.selection import Selection

HELD = ['"db"."a"."x"', '"db"."a"."y"', "totals_agree"]


def test_nothing_named_is_everything() -> None:
    assert Selection.from_names(None).resolved(HELD, environment="prod").models is None


def test_extras_with_all_run_everything_though_they_name_models() -> None:
    assert Selection.from_extras({"protocol_version": 1, "selection": "all", "models": {"x": {"checks": {}}}}).models is None


def test_extras_with_no_models_select_none() -> None:
    assert Selection.from_extras({"protocol_version": 1, "selection": "models", "models": {}}).models == frozenset()


def test_standalone_audits_are_selected_like_models() -> None:
    extras = {"selection": "models", "models": {"x": {"checks": {}}}, "standalone_audits": {"s": []}}

    assert Selection.from_extras(extras).models == frozenset({"x", "s"})


def test_only_models_with_checks_have_audits_to_run_alone() -> None:
    extras = {"selection": "models", "models": {"x": {"checks": {"a:1": "a"}}, "y": {"checks": {}}}, "standalone_audits": {"s": []}}

    assert Selection.from_extras(extras).audits == {"x": frozenset({"a:1"}), "s": None}


def test_names_without_quotes_are_spelled_as_sqlmesh_does() -> None:
    resolved = Selection.from_names(["db.a.x", '"db"."a"."y"']).resolved(HELD, environment="prod")

    assert resolved.models == frozenset(HELD[:2])
    assert resolved.audits.keys() == set(HELD[:2])


def test_all_names_that_are_not_held_are_told() -> None:
    with pytest.raises(NotPlannedError, match=r"'dev' does not hold db\.a\.v, db\.a\.w\..*sqlmesh plan dev"):
        Selection.from_names(["db.a.x", "db.a.w", "db.a.v"]).resolved(HELD, environment="dev")


def test_a_long_list_of_unknown_names_is_cut() -> None:
    with pytest.raises(NotPlannedError, match="and 5 more"):
        Selection.from_names([f"m{number}" for number in range(25)]).resolved([], environment="prod")


@pytest.mark.parametrize(("version", "package"), [(2, "sqlmesh-runner"), (0, "dagster-sqlmesh-pipes")])
def test_another_protocol_is_refused_with_the_side_to_upgrade(version: int, package: str) -> None:
    with pytest.raises(ConfigurationError, match=f"version {version}, this runner version 1. Upgrade {package}"):
        Selection.from_extras({"protocol_version": version})
