"""The schedule as Dagster evaluates it: crons, ticks, run requests, skips."""

import datetime
from typing import Any

import dagster as dg
import pytest
from unit.orchestrator.shop import Make, audit, fqn, model, run, step_error

from dagster_sqlmesh_pipes import SQLMeshResource, sqlmesh_assets_factory
from dagster_sqlmesh_pipes.errors import ConfigurationError
from dagster_sqlmesh_pipes.launchers.base import Exit
from dagster_sqlmesh_pipes.schedule import freshness_from_cron, sqlmesh_adaptive_schedule_factory
from dagster_sqlmesh_pipes.testing import FakeLauncher, message

UTC = datetime.UTC
NOON = datetime.datetime(2030, 5, 6, 12, 0, tzinfo=UTC)  # later than any event of these tests

MODELS = [
    model("marts.daily", cron="@daily", interval_unit="day", audits=[audit("not_null")], depends_on=[fqn("staging.often")]),
    model("marts.hourly", cron="@hourly", interval_unit="hour"),
    model("staging.often", cron="*/5 * * * *", interval_unit="five_minute"),
    model("staging.seed", kind={"name": "SEED"}, cron="@daily", interval_unit="day"),
    model("staging.inlined", kind={"name": "EMBEDDED"}, materialized=False, cron="* * * * *"),
]


@pytest.fixture
def resource(make_resource: Make) -> SQLMeshResource:
    return make_resource(FakeLauncher(), MODELS)


def key(name: str) -> dg.AssetKey:
    return dg.AssetKey(["shop", *name.split(".")])


def evaluate(resource: SQLMeshResource, instance: dg.DagsterInstance, at: datetime.datetime = NOON, **options: Any) -> dg.RunRequest | str:
    """Evaluate one tick; give its run request, or why it was skipped."""
    schedule, job, assets = sqlmesh_adaptive_schedule_factory(sqlmesh_resource=resource, **options)
    dg.Definitions(assets=assets, jobs=[job], schedules=[schedule]).resolve_all_job_defs()
    result = schedule.evaluate_tick(dg.build_schedule_context(instance=instance, scheduled_execution_time=at))
    if result.skip_message is not None:
        return str(result.skip_message)
    (request,) = result.run_requests or []
    return request


def asked(request: dg.RunRequest | str) -> set[str]:
    assert isinstance(request, dg.RunRequest)
    return {"/".join(asset.path[1:]) for asset in request.asset_selection or []}


def report(
    instance: dg.DagsterInstance, name: str, interval_end: datetime.datetime | None, *, complete: bool = True, environment: str = "prod"
) -> None:
    metadata: dict[str, Any] = {"sqlmesh/complete": complete, "sqlmesh/environment": environment}
    if interval_end:
        metadata["sqlmesh/interval_end"] = dg.MetadataValue.timestamp(interval_end)
    instance.report_runless_asset_event(dg.AssetMaterialization(key(name), metadata=metadata))


def test_daily_hourly_and_five_minute_models_tick_every_five_minutes(resource: SQLMeshResource) -> None:
    schedule, _, _ = sqlmesh_adaptive_schedule_factory(sqlmesh_resource=resource)
    assert schedule.cron_schedule == "*/5 * * * *"
    assert schedule.execution_timezone == "UTC"
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
    assert schedule.name == "sqlmesh_adaptive_schedule"


def test_crons_without_a_common_one_stay_as_they_are(make_resource: Make) -> None:
    resource = make_resource(FakeLauncher(), [model("a.x", cron="7 * * * *"), model("a.y", cron="30 2 * * *")])
    schedule, _, _ = sqlmesh_adaptive_schedule_factory(sqlmesh_resource=resource, enable_schedule=True, name="mine")
    assert schedule.cron_schedule == ["30 2 * * *", "7 * * * *"]
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    assert (schedule.name, schedule.job_name) == ("mine", "mine_job")


def test_models_of_a_time_zone_tick_in_it(make_resource: Make) -> None:
    resource = make_resource(FakeLauncher(), [model("a.x", cron="0 6 * * *", cron_tz="Europe/Berlin")])
    schedule, _, _ = sqlmesh_adaptive_schedule_factory(sqlmesh_resource=resource)
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 6 * * *", "Europe/Berlin")


def test_a_tick_that_stands_in_for_a_time_zone_asks_for_what_a_missed_one_would_have(
    make_resource: Make, instance: dg.DagsterInstance
) -> None:
    """After a time without a daemon, Dagster evaluates the latest missed tick only, whatever that is."""
    resource = make_resource(FakeLauncher(), [model("a.x", cron="0 0 * * *", cron_tz="Europe/Berlin", interval_unit="day")])
    summer = datetime.datetime(2030, 7, 1, 22, 0, tzinfo=UTC)
    report(instance, "a.x", summer.replace(day=1, hour=0) - datetime.timedelta(days=1))
    assert asked(evaluate(resource, instance, summer.replace(hour=23))) == {"a/x"}
    report(instance, "a.x", summer.replace(day=1, hour=0))
    assert evaluate(resource, instance, summer.replace(hour=23)) == "Nothing is due. The next tick is at 2030-07-02 22:00 UTC."


def test_a_cron_that_cannot_be_read_is_refused_by_model(make_resource: Make) -> None:
    with pytest.raises(ConfigurationError, match=r'"shop"."a"."x".*every now and then'):
        sqlmesh_adaptive_schedule_factory(sqlmesh_resource=make_resource(FakeLauncher(), [model("a.x", cron="every now and then")]))
    with pytest.raises(ConfigurationError, match=r'"shop"."a"."x".*never ticks'):
        sqlmesh_adaptive_schedule_factory(sqlmesh_resource=make_resource(FakeLauncher(), [model("a.x", cron="0 0 31 2 *")]))


def test_a_project_with_nothing_to_run_is_refused(make_resource: Make) -> None:
    with pytest.raises(ConfigurationError, match="no model"):
        sqlmesh_adaptive_schedule_factory(sqlmesh_resource=make_resource(FakeLauncher(), [model("a.x", kind={"name": "SEED"})]))


def test_an_unknown_selection_is_refused(resource: SQLMeshResource) -> None:
    with pytest.raises(ConfigurationError, match="'some'"):
        sqlmesh_adaptive_schedule_factory(sqlmesh_resource=resource, selection="some")  # type: ignore[arg-type]


def test_models_never_materialized_are_asked_for_except_seeds_and_embedded_ones(
    resource: SQLMeshResource, instance: dg.DagsterInstance
) -> None:
    assert asked(evaluate(resource, instance)) == {"marts/daily", "marts/hourly", "staging/often"}


def test_only_models_behind_their_last_tick_are_asked_for(resource: SQLMeshResource, instance: dg.DagsterInstance) -> None:
    report(instance, "marts.daily", NOON.replace(hour=0))
    report(instance, "marts.hourly", NOON - datetime.timedelta(hours=1))
    report(instance, "staging.often", NOON, complete=False)
    assert asked(evaluate(resource, instance)) == {"marts/hourly", "staging/often"}


def test_a_tick_at_which_nothing_is_due_says_when_the_next_one_is(resource: SQLMeshResource, instance: dg.DagsterInstance) -> None:
    for name in ("marts.daily", "marts.hourly", "staging.often"):
        report(instance, name, NOON)
    assert evaluate(resource, instance) == "Nothing is due. The next tick is at 2030-05-06 12:05 UTC."


def test_the_selection_all_asks_for_everything_and_leaves_it_to_sqlmesh(resource: SQLMeshResource, instance: dg.DagsterInstance) -> None:
    request = evaluate(resource, instance, selection="all")
    assert isinstance(request, dg.RunRequest)
    assert request.asset_selection is None


def test_a_resource_that_ignores_crons_asks_for_models_between_their_ticks(make_resource: Make, instance: dg.DagsterInstance) -> None:
    models = [model("a.x", cron="@daily", interval_unit="hour"), model("a.often", cron="*/5 * * * *", interval_unit="five_minute")]
    for name in ("a.x", "a.often"):
        report(instance, name, NOON.replace(hour=0))
    assert asked(evaluate(make_resource(FakeLauncher(), models), instance)) == {"a/often"}
    assert asked(evaluate(make_resource(FakeLauncher(), models, ignore_cron=True), instance)) == {"a/often", "a/x"}


def test_a_run_says_in_its_tags_what_was_due_and_why(resource: SQLMeshResource, instance: dg.DagsterInstance) -> None:
    report(instance, "marts.hourly", NOON - datetime.timedelta(hours=1))
    request = evaluate(resource, instance)
    assert isinstance(request, dg.RunRequest)
    assert request.run_key == "sqlmesh_adaptive_schedule:2030-05-06T12:00:00+00:00"
    assert {name: value for name, value in request.tags.items() if name.startswith("sqlmesh/")} == {
        "sqlmesh/exclusive": "sqlmesh/duckdb",
        "sqlmesh/environment": "sqlmesh/duckdb/prod",
        "sqlmesh/tick": "2030-05-06T12:00:00+00:00",
        "sqlmesh/next_tick": "2030-05-06T12:05:00+00:00",
        "sqlmesh/granularity": "five_minute",
        "sqlmesh/crons": "*/5 * * * *, @daily, @hourly",
        "sqlmesh/due": "3 of 3 models: marts.daily, marts.hourly, staging.often (2 never materialized, 1 behind)",
    }


def test_the_tags_of_a_run_stay_short_however_many_models_are_due(make_resource: Make, instance: dg.DagsterInstance) -> None:
    resource = make_resource(FakeLauncher(), [model(f"a.model_{n:04}", cron=f"{n % 60} * * * *") for n in range(1000)])
    request = evaluate(resource, instance)
    assert isinstance(request, dg.RunRequest)
    assert len(asked(request)) == 1000
    assert max(len(value) for value in request.tags.values()) < 200


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING])
def test_a_tick_that_finds_a_run_at_work_is_skipped_and_names_it(
    resource: SQLMeshResource, instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    blocking = run_of(instance, status)
    reason = evaluate(resource, instance)
    assert isinstance(reason, str)
    assert f"/runs/{blocking.run_id}" in reason
    assert "2030-05-06 12:05" in reason


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED])
def test_a_run_that_has_ended_is_in_nobody_s_way(
    resource: SQLMeshResource, instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    run_of(instance, status)
    assert isinstance(evaluate(resource, instance), dg.RunRequest)


def test_a_run_on_another_environment_of_the_project_is_in_the_way_and_one_on_another_project_is_not(
    resource: SQLMeshResource, instance: dg.DagsterInstance
) -> None:
    run_of(instance, dg.DagsterRunStatus.STARTED, project="stock/duckdb")
    assert isinstance(evaluate(resource, instance), dg.RunRequest)
    blocking = run_of(instance, dg.DagsterRunStatus.STARTED, environment="dev")
    assert blocking.run_id in str(evaluate(resource, instance))


def test_what_another_environment_materialized_says_nothing_of_this_one(resource: SQLMeshResource, instance: dg.DagsterInstance) -> None:
    for name in ("marts.daily", "marts.hourly", "staging.often"):
        report(instance, name, NOON, environment="dev")
    assert asked(evaluate(resource, instance)) == {"marts/daily", "marts/hourly", "staging/often"}


def test_a_run_request_runs_its_models_with_their_checks_and_what_was_idle_is_not_asked_for_again(
    make_resource: Make, instance: dg.DagsterInstance
) -> None:
    launcher = FakeLauncher(
        messages=[message("report_custom_message", payload={"type": "run_finished", "outcome": "nothing_to_do", "exit_code": 0})]
    )
    resource = make_resource(launcher, MODELS)
    schedule, job, assets = sqlmesh_adaptive_schedule_factory(sqlmesh_resource=resource, run_tags={"team": "data"})
    definitions = dg.Definitions(assets=assets, jobs=[job], schedules=[schedule])
    for name in ("marts.hourly", "staging.often"):
        report(instance, name, datetime.datetime.now(UTC) + datetime.timedelta(days=1))
    now = datetime.datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - datetime.timedelta(hours=1)  # not punctual
    request = evaluate(resource, instance, now)
    assert isinstance(request, dg.RunRequest)
    assert asked(request) == {"marts/daily"}

    result = definitions.resolve_job_def(job.name).execute_in_process(
        instance=instance, asset_selection=list(request.asset_selection or []), tags=dict(request.tags)
    )

    assert result.success
    assert result.dagster_run.tags["team"] == "data"
    (launched,) = launcher.requests
    assert launched.context["extras"]["unplanned"] == "skip"
    assert launched.context["extras"]["models"] == {
        fqn("marts.daily"): {"asset_key": "shop/marts/daily", "checks": {"not_null:00000000": "not_null"}}
    }
    assert "Nothing is due" in str(evaluate(resource, instance, now))


def finished(outcome: str, *told: dict[str, Any]) -> list[Any]:
    return [
        *(message("report_custom_message", payload=payload) for payload in told),
        message("report_custom_message", payload={"type": "run_finished", "outcome": outcome, "exit_code": int(outcome == "failed")}),
    ]


def run_tick(resource: SQLMeshResource, instance: dg.DagsterInstance, **config: Any) -> set[str]:
    """Evaluate a tick, run what it asks for, and give what the tick after that asks for."""
    _, job, assets = sqlmesh_adaptive_schedule_factory(sqlmesh_resource=resource)
    now = datetime.datetime.now(UTC)
    request = evaluate(resource, instance, now)
    assert isinstance(request, dg.RunRequest)
    dg.Definitions(assets=assets, jobs=[job]).resolve_job_def(job.name).execute_in_process(
        instance=instance,
        asset_selection=list(request.asset_selection or []),
        tags=dict(request.tags),
        run_config={"ops": {"sqlmesh_prod": {"config": config}}} if config else None,
        raise_on_error=False,
    )
    following = evaluate(resource, instance, now)
    return set() if isinstance(following, str) else asked(following)


def test_a_failed_run_settles_what_neither_failed_nor_was_held_back(make_resource: Make, instance: dg.DagsterInstance) -> None:
    models = [
        model("a.broken", cron="@yearly"),
        model("a.after", cron="@yearly", depends_on=[fqn("a.broken")]),
        model("a.late", cron="@yearly", signals=["arrived"]),
        model("a.after_late", cron="@yearly", depends_on=[fqn("a.late")]),
        model("a.idle", cron="@yearly"),
    ]
    told: list[dict[str, Any]] = [
        {"type": "model_failed", "model": fqn("a.broken"), "error": "no such table"},
        {"type": "model_skipped", "model": fqn("a.after"), "reason": "upstream_failed", "upstream": [fqn("a.broken")]},
    ]
    resource = make_resource(FakeLauncher(messages=finished("failed", *told), exit=Exit(code=1)), models)
    assert run_tick(resource, instance) == {"a/broken", "a/after", "a/late", "a/after_late"}


def test_a_run_that_broke_off_settles_nothing(make_resource: Make, instance: dg.DagsterInstance) -> None:
    resource = make_resource(FakeLauncher(exit=Exit(code=4)), [model("a.x", cron="@yearly")])
    assert run_tick(resource, instance) == {"a/x"}


@pytest.mark.parametrize("config", [{"environment": "dev"}, {"start": "2026-01-01"}, {"execution_time": "2026-01-01"}])
def test_a_tick_s_run_that_is_executed_again_with_options_settles_nothing(
    make_resource: Make, instance: dg.DagsterInstance, config: dict[str, str]
) -> None:
    launcher = FakeLauncher(messages=finished("nothing_to_do"))
    resource = make_resource(launcher, [model("a.x", cron="@yearly")], allowed_environments=["dev"])
    assert run_tick(resource, instance, **config) == {"a/x"}
    assert run_tick(resource, instance) == set()


@pytest.mark.parametrize(("config", "due"), [({"start": "2026-01-01"}, {"a/x"}), ({"end": "2026-01-01"}, set()), ({}, set())])
def test_a_run_by_hand_from_some_time_on_may_leave_a_hole_before_it(
    make_resource: Make, instance: dg.DagsterInstance, config: dict[str, str], due: set[str]
) -> None:
    now = datetime.datetime.now(UTC)
    reported = message(
        "report_asset_materialization",
        asset_key="shop/a/x",
        metadata={"sqlmesh/complete": {"raw_value": True, "type": "bool"}},
        data_version="1",
    )
    resource = make_resource(FakeLauncher(messages=[reported, *finished("success")]), [model("a.x", cron="@yearly", interval_unit="day")])
    _, job, assets = sqlmesh_adaptive_schedule_factory(sqlmesh_resource=resource)
    by_hand = dg.Definitions(assets=assets, jobs=[job]).resolve_job_def(job.name)
    assert by_hand.execute_in_process(instance=instance, run_config={"ops": {"sqlmesh_prod": {"config": config}}}).success
    following = evaluate(resource, instance, now)
    assert (set() if isinstance(following, str) else asked(following)) == due


def test_a_person_who_names_a_model_is_told_that_it_is_not_planned_and_a_run_of_everything_goes_on(make_resource: Make) -> None:
    launcher = FakeLauncher(messages=[message("report_custom_message", payload={"type": "run_finished", "outcome": "nothing_to_do"})])
    resource = make_resource(launcher, MODELS)
    run(resource, selection=[key("marts.daily")])
    run(resource)
    assert [request.context["extras"]["unplanned"] for request in launcher.requests] == ["error", "skip"]


def test_runs_and_ticks_of_a_resource_with_a_lock_key_go_by_it(make_resource: Make, instance: dg.DagsterInstance) -> None:
    resource = make_resource(FakeLauncher(), MODELS, lock_key="warehouse")
    request = evaluate(resource, instance)
    assert isinstance(request, dg.RunRequest)
    assert request.tags["sqlmesh/environment"] == "warehouse/prod"
    blocking = run_of(instance, dg.DagsterRunStatus.STARTED, project="warehouse")
    assert blocking.run_id in str(evaluate(resource, instance))


def test_the_launchpad_describes_each_option(resource: SQLMeshResource) -> None:
    _, job, assets = sqlmesh_adaptive_schedule_factory(sqlmesh_resource=resource)
    resolved = dg.Definitions(assets=assets, jobs=[job]).resolve_job_def(job.name)
    schema: Any = resolved.graph.node_dict["sqlmesh_prod"].definition.config_schema
    options = schema.config_type.fields
    assert options.keys() == {"ignore_cron", "start", "end", "execution_time", "environment", "skip_janitor"}
    assert all(option.description for option in options.values())


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"start": "the other day"}, "'the other day' is no time"),
        ({"start": "2026-02-01", "end": "2026-01-01"}, "is after end"),
        ({"environment": "staging"}, "does not run the environment 'staging'"),
    ],
)
def test_what_the_launchpad_cannot_mean_fails_before_a_runner_is_started(make_resource: Make, config: dict[str, Any], said: str) -> None:
    launcher = FakeLauncher()
    result = run(make_resource(launcher, MODELS), run_config={"ops": {"sqlmesh_prod": {"config": config}}})
    assert said in step_error(result)
    assert launcher.requests == []


def test_the_launchpad_refuses_an_option_that_there_is_not(resource: SQLMeshResource) -> None:
    with pytest.raises(dg.DagsterInvalidConfigError, match="full_refresh"):
        run(resource, run_config={"ops": {"sqlmesh_prod": {"config": {"full_refresh": True}}}})


@pytest.mark.parametrize("made_before", [True, False])
def test_retry_policy_hooks_tags_and_op_tags_given_once_reach_the_step(make_resource: Make, *, made_before: bool) -> None:
    told = []

    @dg.failure_hook
    def tell_slack(context: dg.HookContext) -> None:
        told.append(context.step_key)

    launcher = FakeLauncher(exit=Exit(code=4), log="no such warehouse")
    resource = make_resource(launcher, MODELS)
    made = sqlmesh_assets_factory(sqlmesh_resource=resource, op_tags={"cpu": "2"}) if made_before else None
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
    assert told == ["sqlmesh_prod"]
    assert resolved.graph.node_dict["sqlmesh_prod"].tags["cpu"] == "2"
    assert result.dagster_run.tags["team"] == "data"
    assert assets is made or not made_before


def test_freshness_follows_from_the_longest_time_between_ticks(resource: SQLMeshResource) -> None:
    by_name = {m.name: freshness_from_cron(m) for m in resource.project.manifest().models.values()}
    assert by_name["marts.daily"] == dg.FreshnessPolicy.time_window(fail_window=datetime.timedelta(hours=25))
    assert by_name["staging.seed"] is None


def test_freshness_allows_for_the_longest_day_and_ends_with_the_model(make_resource: Make) -> None:
    models = [model("a.berlin", cron="0 6 * * *", cron_tz="Europe/Berlin"), model("a.ended", end="2020-01-01")]
    manifest = make_resource(FakeLauncher(), models).project.manifest()
    grace = datetime.timedelta(minutes=15)
    berlin, ended = (freshness_from_cron(m, grace=grace) for m in manifest.models.values())
    assert berlin == dg.FreshnessPolicy.time_window(fail_window=datetime.timedelta(hours=25, minutes=15))
    assert ended is None


def run_of(
    instance: dg.DagsterInstance, status: dg.DagsterRunStatus, project: str = "sqlmesh/duckdb", environment: str = "prod"
) -> dg.DagsterRun:
    @dg.job
    def somebodys() -> None: ...

    tags = {"sqlmesh/exclusive": project, "sqlmesh/environment": f"{project}/{environment}"}
    return instance.create_run_for_job(somebodys, status=status, tags=tags)
