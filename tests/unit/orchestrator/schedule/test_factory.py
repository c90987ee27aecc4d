"""The schedule and the job that the factory makes."""

import dagster as dg
import pytest
from unit.orchestrator.schedule.evaluation import MODELS
from unit.orchestrator.shop import Make, model

from dagster_sqlmesh_pipes import SQLMeshResource, sqlmesh_assets_factory
from dagster_sqlmesh_pipes.errors import ConfigurationError
from dagster_sqlmesh_pipes.launchers.base import ExitStatus
from dagster_sqlmesh_pipes.schedule import sqlmesh_adaptive_schedule_factory
from dagster_sqlmesh_pipes.testing import FakeLauncher


def test_schedule_has_the_finest_common_cron(
    resource: SQLMeshResource,
) -> None:
    schedule, _, _ = sqlmesh_adaptive_schedule_factory(sqlmesh_resource=resource)
    assert schedule.cron_schedule == "*/5 * * * *"
    assert schedule.execution_timezone == "UTC"
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
    assert schedule.name == "sqlmesh_adaptive_schedule"


def test_crons_without_common_one_stay_apart(make_resource: Make) -> None:
    resource = make_resource(
        FakeLauncher(), [model("a.x", cron="7 * * * *"), model("a.y", cron="30 2 * * *")]
    )
    schedule, _, _ = sqlmesh_adaptive_schedule_factory(
        sqlmesh_resource=resource, enable_schedule=True, name="mine"
    )
    assert schedule.cron_schedule == ["30 2 * * *", "7 * * * *"]
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    assert (schedule.name, schedule.job_name) == ("mine", "mine_job")


def test_models_of_one_zone_tick_in_it(make_resource: Make) -> None:
    resource = make_resource(
        FakeLauncher(), [model("a.x", cron="0 6 * * *", cron_tz="Europe/Berlin")]
    )
    schedule, _, _ = sqlmesh_adaptive_schedule_factory(sqlmesh_resource=resource)
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 6 * * *", "Europe/Berlin")


def test_invalid_cron_raises_and_names_the_model(make_resource: Make) -> None:
    with pytest.raises(ConfigurationError, match=r'"shop"."a"."x".*every now and then'):
        sqlmesh_adaptive_schedule_factory(
            sqlmesh_resource=make_resource(
                FakeLauncher(), [model("a.x", cron="every now and then")]
            )
        )
    with pytest.raises(ConfigurationError, match=r'"shop"."a"."x".*never ticks'):
        sqlmesh_adaptive_schedule_factory(
            sqlmesh_resource=make_resource(FakeLauncher(), [model("a.x", cron="0 0 31 2 *")])
        )


def test_project_without_runnable_model_raises(make_resource: Make) -> None:
    with pytest.raises(ConfigurationError, match="no model"):
        sqlmesh_adaptive_schedule_factory(
            sqlmesh_resource=make_resource(FakeLauncher(), [model("a.x", kind={"name": "SEED"})])
        )


def test_unknown_selection_raises(resource: SQLMeshResource) -> None:
    with pytest.raises(ConfigurationError, match="'some'"):
        sqlmesh_adaptive_schedule_factory(sqlmesh_resource=resource, selection="some")  # type: ignore[arg-type]


@pytest.mark.parametrize("made_before", [True, False])
def test_step_options_reach_the_step(make_resource: Make, *, made_before: bool) -> None:
    steps = []

    @dg.failure_hook
    def tell_slack(context: dg.HookContext) -> None:
        steps.append(context.step_key)

    launcher = FakeLauncher(exit=ExitStatus(code=4), log="no such warehouse")
    resource = make_resource(launcher, MODELS)
    made = (
        sqlmesh_assets_factory(sqlmesh_resource=resource, op_tags={"cpu": "2"})
        if made_before
        else None
    )
    _, job, assets = sqlmesh_adaptive_schedule_factory(
        sqlmesh_resource=resource,
        assets=made,
        op_tags=None if made_before else {"cpu": "2"},
        retry_policy=dg.RetryPolicy(max_retries=2),
        hooks=frozenset({tell_slack}),
        run_tags={"team": "data"},
    )
    resolved = dg.Definitions(assets=assets, jobs=[job]).resolve_job_def(job.name)
    result = resolved.execute_in_process(raise_on_error=False)

    assert len(launcher.requests) == 3
    assert steps == ["sqlmesh_prod"]
    assert resolved.graph.node_dict["sqlmesh_prod"].tags["cpu"] == "2"
    assert result.dagster_run.tags["team"] == "data"
    assert assets is made or not made_before


@pytest.mark.parametrize("executor", [None, dg.multiprocess_executor])
def test_job_runs_in_process_unless_executor_is_given(
    make_resource: Make, executor: dg.ExecutorDefinition | None
) -> None:
    resource = make_resource(FakeLauncher(), MODELS)
    _, job, assets = sqlmesh_adaptive_schedule_factory(
        sqlmesh_resource=resource, executor_def=executor
    )
    resolved = dg.Definitions(assets=assets, jobs=[job]).resolve_job_def(job.name)
    assert resolved.executor_def is (executor or dg.in_process_executor)
