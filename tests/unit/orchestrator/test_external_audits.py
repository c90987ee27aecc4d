"""Audits of EXTERNAL models: asked for with what reads them, and logged on the external asset."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from unit.orchestrator.shop import Make, audit, fqn, materialized, model, run

from dagster_sqlmesh_pipes.testing import FakeLauncher, message

POSITIVE, POSITIVE_ID = audit("positive", "aaaaaaaa", blocking=False), audit("positive", "bbbbbbbb")
EXTERNAL: Mapping[str, Any] = {"kind": {"name": "EXTERNAL"}, "materialized": False}
MODELS = [
    model("raw.events", **EXTERNAL, audits=[POSITIVE, POSITIVE_ID]),
    model("raw.prices", **EXTERNAL),
    model("raw.people", **EXTERNAL, audits=[audit("not_null")]),
    model("staging.cleaned", kind={"name": "EMBEDDED"}, materialized=False, depends_on=[fqn("raw.events"), fqn("raw.prices")]),
    model("marts.orders", depends_on=[fqn("staging.cleaned"), fqn("raw.undeclared")]),
    model("marts.people", depends_on=[fqn("raw.people")], audits=[audit("not_null")]),
    model("marts.report", depends_on=[fqn("marts.orders"), fqn("marts.people")]),
]
FINISHED = message("report_custom_message", payload={"type": "run_finished", "outcome": "success"})
EVENTS = {"asset_key": "external/shop/raw/events", "checks": {"positive:aaaaaaaa": "positive", "positive:bbbbbbbb": "positive_bbbbbbbb"}}
PEOPLE = {"asset_key": "external/shop/raw/people", "checks": {"not_null:00000000": "not_null"}}


def externals(make_resource: Make, selection: Any) -> Any:
    launcher = FakeLauncher(messages=[FINISHED])
    assert run(make_resource(launcher, MODELS), selection=selection).success
    (request,) = launcher.requests
    return (request.context["extras"] or {})["externals"]


def test_a_run_of_everything_names_every_audited_external(make_resource: Make) -> None:
    assert externals(make_resource, None) == {fqn("raw.events"): EVENTS, fqn("raw.people"): PEOPLE}


def test_a_subset_names_the_audited_externals_that_it_reads_itself_or_through_embedded_models(make_resource: Make) -> None:
    assert externals(make_resource, [dg.AssetKey(["shop", "marts", "orders"])]) == {fqn("raw.events"): EVENTS}
    assert externals(make_resource, [dg.AssetKey(["shop", "marts", "report"])]) == {}


def test_checks_alone_name_no_external(make_resource: Make) -> None:
    check = dg.AssetCheckKey(dg.AssetKey(["shop", "marts", "people"]), "not_null")
    assert externals(make_resource, dg.AssetSelection.checks(check)) == {}


def test_a_verdict_on_an_external_is_an_observation_and_no_check(make_resource: Make) -> None:
    verdict = {"asset_key": "external/shop/raw/events", "check_name": "positive", "passed": False, "severity": "WARN"}
    metadata = {"audit_failing_rows": {"type": "int", "raw_value": 3}}
    result = run(make_resource(FakeLauncher(messages=[message("report_asset_check", **verdict, metadata=metadata), FINISHED]), MODELS))
    assert result.success
    assert materialized(result) == []
    assert result.get_asset_check_evaluations() == []
    (observation,) = [event.asset_observation_data.asset_observation for event in result.get_asset_observation_events()]
    assert observation.asset_key == dg.AssetKey(["external", "shop", "raw", "events"])
    told = {key: value.value for key, value in observation.metadata.items()}
    assert told == {"audit_passed": False, "audit_severity": "WARN", "audit_failing_rows": 3}
    assert observation.description == "Audit positive failed."
