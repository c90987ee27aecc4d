"""The options of a run, as the launchpad shows and checks them."""

from typing import Any

import dagster as dg
import pytest
from unit.orchestrator.schedule.evaluation import MODELS, key
from unit.orchestrator.shop import Make, run, step_error

from dagster_sqlmesh_pipes.schedule import sqlmesh_adaptive_schedule_factory
from dagster_sqlmesh_pipes.testing import FakeLauncher, custom


def test_unplanned_model_fails_only_when_named(
    make_resource: Make,
) -> None:
    launcher = FakeLauncher(messages=[custom("run_finished", outcome="nothing_to_do")])
    resource = make_resource(launcher, MODELS)
    run(resource, selection=[key("marts.daily")])
    run(resource)
    assert [request.context["extras"]["unplanned"] for request in launcher.requests] == [
        "error",
        "skip",
    ]


def test_all_of_a_selection_of_models_is_not_named(make_resource: Make) -> None:
    launcher = FakeLauncher(messages=[custom("run_finished", outcome="nothing_to_do")])
    resource = make_resource(launcher)
    run(resource, select="marts.*")
    run(resource, select="marts.*", selection=[dg.AssetKey(["shop", "marts", "orders"])])
    assert [request.context["extras"]["unplanned"] for request in launcher.requests] == [
        "skip",
        "error",
    ]


def test_launchpad_describes_each_option(make_resource: Make) -> None:
    resource = make_resource(FakeLauncher(), MODELS)
    _, job, assets = sqlmesh_adaptive_schedule_factory(sqlmesh_resource=resource)
    resolved = dg.Definitions(assets=assets, jobs=[job]).resolve_job_def(job.name)
    schema: Any = resolved.graph.node_dict["sqlmesh_prod"].definition.config_schema
    options = schema.config_type.fields
    assert options.keys() == {
        "ignore_cron",
        "start",
        "end",
        "execution_time",
        "environment",
        "skip_janitor",
        "restate",
    }
    assert all(option.description for option in options.values())


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"start": "the other day"}, "'the other day' is not a valid time"),
        ({"start": "2026-02-01", "end": "2026-01-01"}, "is after end"),
        ({"restate": True}, "restate needs a start"),
        ({"restate": True, "start": "2026-01-01"}, "does not restate models"),
        ({"environment": "staging"}, "environment 'staging' is not allowed here"),
    ],
)
def test_invalid_option_fails_before_launch(
    make_resource: Make, config: dict[str, Any], said: str
) -> None:
    launcher = FakeLauncher()
    result = run(
        make_resource(launcher, MODELS), run_config={"ops": {"sqlmesh_prod": {"config": config}}}
    )
    assert said in step_error(result)
    assert launcher.requests == []


def test_unknown_option_is_refused(make_resource: Make) -> None:
    resource = make_resource(FakeLauncher(), MODELS)
    with pytest.raises(dg.DagsterInvalidConfigError, match="full_refresh"):
        run(resource, run_config={"ops": {"sqlmesh_prod": {"config": {"full_refresh": True}}}})
