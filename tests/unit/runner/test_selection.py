"""What a run was asked for."""

from dataclasses import replace

import pytest

from sqlmesh_runner.errors import ConfigurationError, NotPlannedError
from sqlmesh_runner.selection import Selection

HELD = ['"db"."a"."x"', '"db"."a"."y"', "totals_agree"]
ODD = '"db"."a"."x + y"'


def test_nothing_named_is_everything() -> None:
    assert Selection.from_names(None).resolved(HELD, environment="prod").models is None


def test_extras_with_all_run_everything_though_they_name_models() -> None:
    assert (
        Selection.from_extras(
            {"protocol_version": 1, "selection": "all", "models": {"x": {"checks": {}}}}
        ).models
        is None
    )


def test_extras_with_no_models_select_none() -> None:
    assert (
        Selection.from_extras({"protocol_version": 1, "selection": "models", "models": {}}).models
        == frozenset()
    )


def test_standalone_audits_are_selected_like_models() -> None:
    extras = {
        "selection": "models",
        "models": {"x": {"checks": {}}},
        "standalone_audits": {"s": []},
    }

    assert Selection.from_extras(extras).models == frozenset({"x", "s"})


def test_only_models_with_checks_have_audits_to_run_alone() -> None:
    extras = {
        "selection": "models",
        "models": {"x": {"checks": {"a:1": "a"}}, "y": {"checks": {}}},
        "standalone_audits": {"s": []},
    }

    assert Selection.from_extras(extras).audits == {"x": frozenset({"a:1"}), "s": None}


def test_names_without_quotes_are_spelled_as_sqlmesh_does() -> None:
    resolved = Selection.from_names(["db.a.x", '"db"."a"."y"']).resolved(HELD, environment="prod")

    assert resolved.models == frozenset(HELD[:2])
    assert resolved.audits.keys() == set(HELD[:2])


@pytest.mark.parametrize("name", ["a.x", "A.X", "db.a.x", "DB.A.X"])
def test_a_model_may_be_named_as_in_its_file(name: str) -> None:
    assert Selection.from_names([name]).resolved(HELD, environment="prod").models == frozenset(
        HELD[:1]
    )


@pytest.mark.parametrize("name", ['a."x + y"', "a.x + y", "db.a.x + y", ODD])
def test_name_with_characters_of_selectors_is_found(name: str) -> None:
    expanded = Selection.from_names([name]).expanded([ODD], _no_selector, environment="prod")

    assert expanded.resolved([ODD], environment="prod").models == frozenset({ODD})


def test_quoted_name_is_found_in_its_own_case_only() -> None:
    with pytest.raises(NotPlannedError):
        Selection.from_names(['a."X"']).resolved(HELD, environment="prod")


def _no_selector(text: str) -> set[str]:
    raise AssertionError(text)


def test_names_from_dagster_are_never_selectors() -> None:
    selection = Selection.from_extras({"selection": "models", "models": {"a.*": {"checks": {}}}})

    assert selection.expanded(HELD, _no_selector, environment="prod") == selection


def test_selectors_and_names_are_united() -> None:
    matches = {"a.* & ^a.x": {HELD[1]}, "tag:none | a.x": {HELD[0]}}
    selection = Selection.from_names([*matches, "totals_agree"])

    expanded = selection.expanded(HELD, matches.__getitem__, environment="prod")

    assert expanded.resolved(HELD, environment="prod").models == frozenset(HELD)
    assert expanded.audits.keys() == set(HELD)


def test_selector_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match=r"'b\.\*' matches no model of environment 'dev'"):
        Selection.from_names(["a.x", "b.*"]).expanded(HELD, lambda _: (), environment="dev")


def test_selector_that_a_plan_emptied_leaves_the_others() -> None:
    selection = replace(Selection.from_names(["a.x", "b.*"]), skip_unplanned=True)

    assert selection.expanded(HELD, lambda _: (), environment="dev").models == frozenset({"a.x"})


def test_a_name_that_several_models_have_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match=r'a\.x may be any of "db"\."a"\."x", "other"\."a"\."x"'
    ):
        Selection.from_names(["a.x"]).resolved([*HELD, '"other"."a"."x"'], environment="prod")


def test_names_the_environment_lacks_are_reported() -> None:
    with pytest.raises(
        NotPlannedError, match=r"'dev' does not hold db\.a\.v, db\.a\.w\..*sqlmesh plan dev"
    ):
        Selection.from_names(["db.a.x", "db.a.w", "db.a.v"]).resolved(HELD, environment="dev")


def test_a_long_list_of_unknown_names_is_cut() -> None:
    with pytest.raises(NotPlannedError, match="and 5 more"):
        Selection.from_names([f"m{number}" for number in range(25)]).resolved(
            [], environment="prod"
        )


@pytest.mark.parametrize(
    ("version", "package"), [(2, "sqlmesh-runner"), (0, "dagster-sqlmesh-pipes")]
)
def test_another_protocol_is_refused_with_the_side_to_upgrade(version: int, package: str) -> None:
    with pytest.raises(
        ConfigurationError, match=f"version {version}, this runner version 1. Upgrade {package}"
    ):
        Selection.from_extras({"protocol_version": version})


UNPLANNED = {
    "selection": "models",
    "models": {HELD[0]: {"checks": {"a:1": "a"}}, "new": {"checks": {"b:1": "b"}}},
    "standalone_audits": {"s": []},
}


def test_what_is_not_held_is_left_out_where_extras_say_so() -> None:
    resolved = Selection.from_extras({**UNPLANNED, "unplanned": "skip"}).resolved(
        HELD, environment="prod"
    )

    assert resolved.models == frozenset(HELD[:1])
    assert resolved.audits == {HELD[0]: frozenset({"a:1"})}
    assert resolved.unplanned == ("new", "s")
    assert (
        "'prod' does not hold new, s: left out. Run `sqlmesh plan prod`"
        in resolved.unplanned_message("prod")
    )


@pytest.mark.parametrize("said", [{}, {"unplanned": "error"}])
def test_missing_model_is_error_unless_extras_allow_it(said: dict[str, str]) -> None:
    with pytest.raises(NotPlannedError, match="does not hold new, s"):
        Selection.from_extras({**UNPLANNED, **said}).resolved(HELD, environment="prod")


def test_missing_models_are_reported_in_full_runs_too() -> None:
    extras = {
        "selection": "all",
        "models": {HELD[0]: {"checks": {}}, "new": {"checks": {}}},
        "unplanned": "skip",
    }
    resolved = Selection.from_extras(extras).resolved(HELD, environment="prod")

    assert resolved.models is None
    assert resolved.unplanned == ("new",)
