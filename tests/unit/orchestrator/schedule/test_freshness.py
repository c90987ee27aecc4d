"""Freshness policies derived from crons."""

import datetime

import dagster as dg
from unit.orchestrator.shop import Make, model

from dagster_sqlmesh_pipes import SQLMeshResource
from dagster_sqlmesh_pipes.schedule import freshness_from_cron
from dagster_sqlmesh_pipes.testing import FakeLauncher


def test_freshness_window_is_longest_gap_and_grace(resource: SQLMeshResource) -> None:
    by_name = {m.name: freshness_from_cron(m) for m in resource.project.manifest().models.values()}
    assert by_name["marts.daily"] == dg.FreshnessPolicy.time_window(
        fail_window=datetime.timedelta(hours=25)
    )
    assert by_name["staging.seed"] is None


def test_freshness_allows_clock_change_and_stops_at_end(make_resource: Make) -> None:
    models = [
        model("a.berlin", cron="0 6 * * *", cron_tz="Europe/Berlin"),
        model("a.ended", end="2020-01-01"),
    ]
    manifest = make_resource(FakeLauncher(), models).project.manifest()
    grace = datetime.timedelta(minutes=15)
    berlin, ended = (freshness_from_cron(m, grace=grace) for m in manifest.models.values())
    assert berlin == dg.FreshnessPolicy.time_window(
        fail_window=datetime.timedelta(hours=25, minutes=15)
    )
    assert ended is None
