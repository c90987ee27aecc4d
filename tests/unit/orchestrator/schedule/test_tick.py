"""Ticks as Dagster evaluates them: run requests and skips."""

import datetime
from typing import Any

import dagster as dg
import pytest
from unit.orchestrator.schedule.evaluation import (
    MODELS,
    NOON,
    UTC,
    asked,
    evaluate,
    key,
    report,
    run_of,
)
from unit.orchestrator.shop import Make, fqn, model

from dagster_sqlmesh_pipes import SQLMeshResource
from dagster_sqlmesh_pipes.launchers.base import ExitStatus
from dagster_sqlmesh_pipes.schedule import sqlmesh_adaptive_schedule_factory
from dagster_sqlmesh_pipes.testing import FakeLauncher, check, custom, message


def test_spare_tick_of_a_zone_requests_missed_models(
    make_resource: Make, instance: dg.DagsterInstance
) -> None:
    """After downtime of the daemon, Dagster evaluates only the latest missed tick."""
    resource = make_resource(
        FakeLauncher(),
        [model("a.x", cron="0 0 * * *", cron_tz="Europe/Berlin", interval_unit="day")],
    )
    summer = datetime.datetime(2030, 7, 1, 22, 0, tzinfo=UTC)
    report(instance, "a.x", summer.replace(day=1, hour=0) - datetime.timedelta(days=1))
    assert asked(evaluate(resource, instance, summer.replace(hour=23))) == {"a/x"}
    report(instance, "a.x", summer.replace(day=1, hour=0))
    assert (
        evaluate(resource, instance, summer.replace(hour=23))
        == "Nothing is due. The next tick is at 2030-07-02 22:00 UTC."
    )


RUNNABLE = {"marts/daily", "marts/hourly", "staging/often"}


def test_first_tick_requests_all_but_embedded(
    resource: SQLMeshResource, instance: dg.DagsterInstance
) -> None:
    assert asked(evaluate(resource, instance)) == RUNNABLE | {"staging/seed"}


def test_tick_requests_seeds_only_until_they_are_materialized(
    resource: SQLMeshResource, instance: dg.DagsterInstance
) -> None:
    for name in ("marts.daily", "marts.hourly", "staging.often"):
        report(instance, name, NOON)
    assert "Nothing is due" in str(evaluate(resource, instance)), "none is requested by itself"
    later = NOON + datetime.timedelta(minutes=5)
    assert asked(evaluate(resource, instance, later)) == {"staging/often", "staging/seed"}
    report(instance, "staging.seed", NOON)
    assert asked(evaluate(resource, instance, later)) == {"staging/often"}


def test_no_seed_is_requested_where_runs_do_not_report_it(
    make_resource: Make, instance: dg.DagsterInstance
) -> None:
    resource = make_resource(FakeLauncher(), MODELS, adopt=False)
    assert asked(evaluate(resource, instance)) == RUNNABLE


def test_tick_requests_models_behind_their_cron(
    resource: SQLMeshResource, instance: dg.DagsterInstance
) -> None:
    report(instance, "marts.daily", NOON.replace(hour=0))
    report(instance, "marts.hourly", NOON - datetime.timedelta(hours=1))
    report(instance, "staging.often", NOON, complete=False)
    report(instance, "staging.seed", NOON)
    assert asked(evaluate(resource, instance)) == {"marts/hourly", "staging/often"}


def test_tick_with_nothing_due_names_the_next_one(
    resource: SQLMeshResource, instance: dg.DagsterInstance
) -> None:
    for name in ("marts.daily", "marts.hourly", "staging.often"):
        report(instance, name, NOON)
    assert (
        evaluate(resource, instance) == "Nothing is due. The next tick is at 2030-05-06 12:05 UTC."
    )


def test_selection_all_requests_everything(
    resource: SQLMeshResource, instance: dg.DagsterInstance
) -> None:
    request = evaluate(resource, instance, selection="all")
    assert isinstance(request, dg.RunRequest)
    assert request.asset_selection is None
    assert request.asset_check_keys == []


def test_ignore_cron_resource_requests_between_ticks(
    make_resource: Make, instance: dg.DagsterInstance
) -> None:
    models = [
        model("a.x", cron="@daily", interval_unit="hour"),
        model("a.often", cron="*/5 * * * *", interval_unit="five_minute"),
    ]
    for name in ("a.x", "a.often"):
        report(instance, name, NOON.replace(hour=0))
    assert asked(evaluate(make_resource(FakeLauncher(), models), instance)) == {"a/often"}
    assert asked(evaluate(make_resource(FakeLauncher(), models, ignore_cron=True), instance)) == {
        "a/often",
        "a/x",
    }


def test_run_tags_name_due_models_and_reasons(
    resource: SQLMeshResource, instance: dg.DagsterInstance
) -> None:
    report(instance, "marts.hourly", NOON - datetime.timedelta(hours=1))
    request = evaluate(resource, instance)
    assert isinstance(request, dg.RunRequest)
    assert request.run_key == "sqlmesh_adaptive_schedule:2030-05-06T12:00:00+00:00"
    assert {name: value for name, value in request.tags.items() if name.startswith("sqlmesh/")} == {
        "sqlmesh/lock": "sqlmesh/duckdb",
        "sqlmesh/environment": "sqlmesh/duckdb/prod",
        "sqlmesh/tick": "2030-05-06T12:00:00+00:00",
        "sqlmesh/next_tick": "2030-05-06T12:05:00+00:00",
        "sqlmesh/granularity": "five_minute",
        "sqlmesh/crons": "*/5 * * * *, @daily, @hourly",
        "sqlmesh/due": "3 of 3 models: marts.daily, marts.hourly, staging.often "
        "(2 never materialized, 1 behind)",
    }


def test_run_tags_of_1000_models_stay_short(
    make_resource: Make, instance: dg.DagsterInstance
) -> None:
    resource = make_resource(
        FakeLauncher(), [model(f"a.model_{n:04}", cron=f"{n % 60} * * * *") for n in range(1000)]
    )
    request = evaluate(resource, instance)
    assert isinstance(request, dg.RunRequest)
    assert len(asked(request)) == 1000
    assert max(len(value) for value in request.tags.values()) < 200


@pytest.mark.parametrize(
    "status",
    [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING],
)
def test_tick_during_a_run_is_skipped_and_names_it(
    resource: SQLMeshResource, instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    blocking = run_of(instance, status)
    reason = evaluate(resource, instance)
    assert isinstance(reason, str)
    assert f"/runs/{blocking.run_id}" in reason
    assert "2030-05-06 12:05" in reason


@pytest.mark.parametrize(
    "status",
    [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED],
)
def test_finished_run_blocks_no_tick(
    resource: SQLMeshResource, instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    run_of(instance, status)
    assert isinstance(evaluate(resource, instance), dg.RunRequest)


def test_run_of_same_project_blocks_other_project_doesn_t(
    resource: SQLMeshResource, instance: dg.DagsterInstance
) -> None:
    run_of(instance, dg.DagsterRunStatus.STARTED, project="stock/duckdb")
    assert isinstance(evaluate(resource, instance), dg.RunRequest)
    blocking = run_of(instance, dg.DagsterRunStatus.STARTED, environment="dev")
    assert blocking.run_id in str(evaluate(resource, instance))


def test_other_environment_s_materialization_is_ignored(
    resource: SQLMeshResource, instance: dg.DagsterInstance
) -> None:
    for name in ("marts.daily", "marts.hourly", "staging.often", "staging.seed"):
        report(instance, name, NOON, environment="dev")
    assert asked(evaluate(resource, instance)) == RUNNABLE | {"staging/seed"}


def test_requested_run_settles_models_with_nothing_to_do(
    make_resource: Make, instance: dg.DagsterInstance
) -> None:
    launcher = FakeLauncher(messages=[custom("run_finished", outcome="nothing_to_do")])
    resource = make_resource(launcher, MODELS)
    schedule, job, assets = sqlmesh_adaptive_schedule_factory(
        sqlmesh_resource=resource, run_tags={"team": "data"}
    )
    definitions = dg.Definitions(assets=assets, jobs=[job], schedules=[schedule])
    for name in ("marts.hourly", "staging.often", "staging.seed"):
        report(instance, name, datetime.datetime.now(UTC) + datetime.timedelta(days=1))
    now = datetime.datetime.now(UTC).replace(
        minute=0, second=0, microsecond=0
    ) - datetime.timedelta(hours=1)  # not punctual
    request = evaluate(resource, instance, now)
    assert isinstance(request, dg.RunRequest)
    assert asked(request) == {"marts/daily"}

    result = definitions.resolve_job_def(job.name).execute_in_process(
        instance=instance,
        asset_selection=list(request.asset_selection or []),
        tags=dict(request.tags),
    )

    assert result.success
    assert result.dagster_run.tags["team"] == "data"
    (launched,) = launcher.requests
    assert launched.context["extras"]["unplanned"] == "skip"
    assert launched.context["extras"]["models"] == {
        fqn("marts.daily"): {
            "asset_key": "shop/marts/daily",
            "checks": {"not_null:00000000": "not_null"},
        }
    }
    assert "Nothing is due" in str(evaluate(resource, instance, now))


def test_scheduled_run_stores_results_of_checks_it_did_not_plan(
    make_resource: Make, instance: dg.DagsterInstance
) -> None:
    """A planned check without a result would lose its last one from Dagster's overview."""
    check_key = dg.AssetCheckKey(key("marts.daily"), "not_null")
    passed = check("shop/marts/daily", "not_null", passed=True)
    messages: list[list[Any]] = [[passed, *finished("success")], finished("nothing_to_do")]
    launcher = FakeLauncher(messages=lambda _request: messages.pop(0))
    resource = make_resource(launcher, MODELS)
    request = evaluate(resource, instance, selection="all")
    assert isinstance(request, dg.RunRequest)
    for _ in range(2):
        assert _execute(resource, instance, request).success
    assert messages == []
    checks = launcher.requests[0].context["extras"]["models"][fqn("marts.daily")]["checks"]
    assert checks == {"not_null:00000000": "not_null"}
    records = instance.event_log_storage.get_asset_check_execution_history(check_key, limit=5)
    assert [record.status.value for record in records] == ["SUCCEEDED"]


def _execute(
    resource: SQLMeshResource, instance: dg.DagsterInstance, request: dg.RunRequest
) -> dg.ExecuteInProcessResult:
    """Run what a tick requests, as the daemon does."""
    _, job, assets = sqlmesh_adaptive_schedule_factory(sqlmesh_resource=resource)
    resolved = dg.Definitions(assets=assets, jobs=[job]).resolve_job_def(job.name)
    subset = resolved.get_subset(
        asset_selection=set(request.asset_selection or ()),
        asset_check_selection=set(request.asset_check_keys or ()),
    )
    return subset.execute_in_process(instance=instance, tags=dict(request.tags))


def finished(outcome: str, *events: dict[str, Any]) -> list[Any]:
    end = custom("run_finished", outcome=outcome, exit_code=int(outcome == "failed"))
    return [*(custom(**payload) for payload in events), end]


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


def test_failed_run_settles_the_other_models(
    make_resource: Make, instance: dg.DagsterInstance
) -> None:
    models = [
        model("a.broken", cron="@yearly"),
        model("a.after", cron="@yearly", depends_on=[fqn("a.broken")]),
        model("a.late", cron="@yearly", signals=["arrived"]),
        model("a.after_late", cron="@yearly", depends_on=[fqn("a.late")]),
        model("a.idle", cron="@yearly"),
    ]
    events: list[dict[str, Any]] = [
        {"type": "model_failed", "model": fqn("a.broken"), "error": "no such table"},
        {
            "type": "model_skipped",
            "model": fqn("a.after"),
            "reason": "upstream_failed",
            "upstream": [fqn("a.broken")],
        },
    ]
    resource = make_resource(
        FakeLauncher(messages=finished("failed", *events), exit=ExitStatus(code=1)), models
    )
    assert run_tick(resource, instance) == {"a/broken", "a/after", "a/late", "a/after_late"}


def test_broken_off_run_settles_nothing(make_resource: Make, instance: dg.DagsterInstance) -> None:
    resource = make_resource(FakeLauncher(exit=ExitStatus(code=4)), [model("a.x", cron="@yearly")])
    assert run_tick(resource, instance) == {"a/x"}


@pytest.mark.parametrize(
    "config", [{"environment": "dev"}, {"start": "2026-01-01"}, {"execution_time": "2026-01-01"}]
)
def test_reexecution_with_options_settles_nothing(
    make_resource: Make, instance: dg.DagsterInstance, config: dict[str, str]
) -> None:
    launcher = FakeLauncher(messages=finished("nothing_to_do"))
    resource = make_resource(launcher, [model("a.x", cron="@yearly")], allowed_environments=["dev"])
    assert run_tick(resource, instance, **config) == {"a/x"}
    assert run_tick(resource, instance) == set()


@pytest.mark.parametrize(
    ("config", "due"),
    [({"start": "2026-01-01"}, {"a/x"}), ({"end": "2026-01-01"}, set()), ({}, set())],
)
def test_run_with_start_leaves_model_incomplete(
    make_resource: Make, instance: dg.DagsterInstance, config: dict[str, str], due: set[str]
) -> None:
    now = datetime.datetime.now(UTC)
    reported = message(
        "report_asset_materialization",
        asset_key="shop/a/x",
        metadata={"sqlmesh/complete": {"raw_value": True, "type": "bool"}},
        data_version="1",
    )
    resource = make_resource(
        FakeLauncher(messages=[reported, *finished("success")]),
        [model("a.x", cron="@yearly", interval_unit="day")],
    )
    _, job, assets = sqlmesh_adaptive_schedule_factory(sqlmesh_resource=resource)
    by_hand = dg.Definitions(assets=assets, jobs=[job]).resolve_job_def(job.name)
    assert by_hand.execute_in_process(
        instance=instance, run_config={"ops": {"sqlmesh_prod": {"config": config}}}
    ).success
    following = evaluate(resource, instance, now)
    assert (set() if isinstance(following, str) else asked(following)) == due


def test_lock_key_names_runs_and_ticks(make_resource: Make, instance: dg.DagsterInstance) -> None:
    resource = make_resource(FakeLauncher(), MODELS, lock_key="warehouse")
    request = evaluate(resource, instance)
    assert isinstance(request, dg.RunRequest)
    assert request.tags["sqlmesh/environment"] == "warehouse/prod"
    blocking = run_of(instance, dg.DagsterRunStatus.STARTED, project="warehouse")
    assert blocking.run_id in str(evaluate(resource, instance))
