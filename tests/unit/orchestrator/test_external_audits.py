"""Audits of EXTERNAL models: asked for with what reads them, and logged on the external asset."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from unit.orchestrator.shop import Make, audit, fqn, materialized, model, run

from dagster_sqlmesh_pipes.testing import FakeLauncher, check, finished

TOTALS = {"fqn": "totals", "name": "totals", "id": "totals:4f53cda1"}
POSITIVE, POSITIVE_ID = audit("positive", "aaaaaaaa", blocking=False), audit("positive", "bbbbbbbb")
EXTERNAL: Mapping[str, Any] = {"kind": {"name": "EXTERNAL"}, "materialized": False}
MODELS = [
    model("raw.events", **EXTERNAL, audits=[POSITIVE, POSITIVE_ID]),
    model("raw.prices", **EXTERNAL),
    model("raw.people", **EXTERNAL, audits=[audit("not_null")]),
    model(
        "staging.cleaned",
        kind={"name": "EMBEDDED"},
        materialized=False,
        depends_on=[fqn("raw.events"), fqn("raw.prices")],
    ),
    model("marts.orders", depends_on=[fqn("staging.cleaned"), fqn("raw.undeclared")]),
    model("marts.people", depends_on=[fqn("raw.people")], audits=[audit("not_null")]),
    model("marts.report", depends_on=[fqn("marts.orders"), fqn("marts.people")]),
]
EVENTS = {
    "asset_key": "external/shop/raw/events",
    "checks": {"positive:aaaaaaaa": "positive", "positive:bbbbbbbb": "positive_bbbbbbbb"},
}
PEOPLE = {"asset_key": "external/shop/raw/people", "checks": {"not_null:00000000": "not_null"}}


def externals(make_resource: Make, selection: Any, *, standalone: Any = ()) -> Any:
    launcher = FakeLauncher()
    assert run(
        make_resource(launcher, MODELS, other={"standalone_audits": standalone}),
        selection=selection,
    ).success
    (request,) = launcher.requests
    return (request.context["extras"] or {})["externals"]


def test_a_run_of_everything_names_every_audited_external(make_resource: Make) -> None:
    assert externals(make_resource, None) == {fqn("raw.events"): EVENTS, fqn("raw.people"): PEOPLE}


def test_subset_names_audited_externals_it_reads(
    make_resource: Make,
) -> None:
    assert externals(make_resource, [dg.AssetKey(["shop", "marts", "orders"])]) == {
        fqn("raw.events"): EVENTS
    }
    assert externals(make_resource, [dg.AssetKey(["shop", "marts", "report"])]) == {}


def test_checks_alone_name_no_external(make_resource: Make) -> None:
    alone = dg.AssetCheckKey(dg.AssetKey(["shop", "marts", "people"]), "not_null")
    assert externals(make_resource, dg.AssetSelection.checks(alone)) == {}


def test_standalone_audit_of_externals_runs_with_readers(
    make_resource: Make,
) -> None:
    totals = {**TOTALS, "depends_on": [fqn("staging.cleaned"), fqn("raw.undeclared")]}
    found = {
        "totals": {"asset_key": "external/shop/raw/events", "checks": {"totals:4f53cda1": "totals"}}
    }
    people, orders = (dg.AssetKey(["shop", "marts", name]) for name in ("people", "orders"))
    assert externals(make_resource, None, standalone=[totals]) == {
        fqn("raw.events"): EVENTS,
        fqn("raw.people"): PEOPLE,
        **found,
    }
    assert externals(make_resource, [orders], standalone=[totals]) == {
        fqn("raw.events"): EVENTS,
        **found,
    }
    assert externals(make_resource, [people], standalone=[totals]) == {fqn("raw.people"): PEOPLE}


def test_standalone_audit_of_unread_table_runs_always(
    make_resource: Make,
) -> None:
    totals = {**TOTALS, "depends_on": [fqn("raw.unread")]}
    found = externals(
        make_resource, [dg.AssetKey(["shop", "marts", "report"])], standalone=[totals]
    )
    assert found == {
        "totals": {"asset_key": "external/shop/raw/unread", "checks": {"totals:4f53cda1": "totals"}}
    }


def test_standalone_audit_reads_through_embedded_models(
    make_resource: Make,
) -> None:
    inlined = model(
        "marts.inlined",
        kind={"name": "EMBEDDED"},
        materialized=False,
        depends_on=[fqn("marts.orders"), fqn("raw.events")],
    )
    totals = {**TOTALS, "depends_on": [inlined["fqn"]]}
    launcher = FakeLauncher()
    assert run(
        make_resource(launcher, [*MODELS, inlined], other={"standalone_audits": [totals]})
    ).success
    asked: Any = launcher.requests[0].context["extras"]
    assert asked["standalone_audits"] == {
        "totals": [{"asset_key": "shop/marts/orders", "check_name": "totals"}]
    }
    assert "totals" not in asked["externals"]


def test_a_verdict_on_an_external_is_an_observation_and_no_check(make_resource: Make) -> None:
    verdict = check(
        "external/shop/raw/events", "positive", passed=False, severity="WARN", audit_failing_rows=3
    )
    result = run(make_resource(FakeLauncher(messages=[verdict, finished()]), MODELS))
    assert result.success
    assert materialized(result) == []
    assert result.get_asset_check_evaluations() == []
    (observation,) = [
        event.asset_observation_data.asset_observation
        for event in result.get_asset_observation_events()
    ]
    assert observation.asset_key == dg.AssetKey(["external", "shop", "raw", "events"])
    found = {key: value.value for key, value in observation.metadata.items()}
    assert found == {"audit_passed": False, "audit_severity": "WARN", "audit_failing_rows": 3}
    assert observation.description == "Audit positive failed."
