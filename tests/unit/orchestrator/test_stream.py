"""A step stores what the runner reports while it runs, and fails or succeeds at its end."""

import json
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from unit.orchestrator.shop import SHOP, Make, audit, fqn, materialized, model, run, step_error

from dagster_sqlmesh_pipes import (
    SubprocessLauncher,
    sqlmesh_adaptive_schedule_factory,
    sqlmesh_assets_factory,
)
from dagster_sqlmesh_pipes.errors import ConfigurationError
from dagster_sqlmesh_pipes.launchers.base import ExitStatus, LaunchRequest
from dagster_sqlmesh_pipes.launchers.labels import LOCK_LABEL
from dagster_sqlmesh_pipes.testing import (
    FakeLauncher,
    check,
    custom,
    finished,
    materialization,
    message,
)


def logs(result: dg.ExecuteInProcessResult, capfd: pytest.CaptureFixture[str]) -> str:
    return capfd.readouterr().err


def test_what_is_reported_is_stored_and_nothing_else(make_resource: Make) -> None:
    result = run(
        make_resource(
            FakeLauncher(
                messages=[
                    materialization("shop/staging/events"),
                    check("shop/staging/events", "not_null", passed=True),
                    finished(),
                ]
            )
        )
    )
    assert result.success
    assert materialized(result) == ["shop/staging/events"]
    evaluations = result.get_asset_check_evaluations()
    assert [(e.check_name, e.passed) for e in evaluations] == [("not_null", True)]


def test_run_with_nothing_due_succeeds(
    make_resource: Make,
) -> None:
    result = run(make_resource(FakeLauncher(messages=[finished("nothing_to_do")])))
    assert result.success
    assert materialized(result) == []


@pytest.mark.parametrize(
    ("path", "shown"), [("models/planned.sql", "models/planned.sql"), (None, "models/orders.sql")]
)
def test_failed_model_fails_the_step_after_storing_the_rest(
    make_resource: Make, path: str | None, shown: str
) -> None:
    failed = custom(
        "model_failed",
        model=fqn("marts.orders"),
        error="Conversion Error: 'x' is no number",
        path=path,
    )
    skipped = custom(
        "model_skipped",
        model=fqn("marts.customers"),
        reason="upstream_failed",
        upstream=[fqn("marts.orders")],
    )
    launcher = FakeLauncher(
        messages=[failed, materialization("shop/staging/events"), skipped, finished("failed")],
        exit=ExitStatus(code=1),
    )
    result = run(make_resource(launcher))
    assert not result.success
    assert materialized(result) == ["shop/staging/events"]
    error = step_error(result)
    assert f'"shop"."marts"."orders" ({shown}): Conversion Error: \'x\' is no number' in error
    assert '"shop"."marts"."customers": it depends on "shop"."marts"."orders"' in error


@pytest.mark.parametrize(
    ("launcher", "said"),
    [
        (
            FakeLauncher(messages=(), exit=ExitStatus(code=127), log="no such thing"),
            "exit code 127 before its first message",
        ),
        (
            FakeLauncher(
                messages=[materialization("shop/staging/events")],
                exit=ExitStatus(code=137, reason="killed by SIGKILL"),
            ),
            "broke off",
        ),
        (
            FakeLauncher(messages=[finished()], exit=ExitStatus(code=1)),
            "SQLMesh reported success, but fake runner ended with exit code 1",
        ),
        (
            FakeLauncher(
                messages=[finished("error", error="no environment 'prod': run `sqlmesh plan`")],
                exit=ExitStatus(code=3),
            ),
            "run `sqlmesh plan`",
        ),
        (
            FakeLauncher(messages=[b"{not json", finished()]),
            "1 could not be read, the first begins '{not json'",
        ),
        (
            FakeLauncher(messages=[custom("run_started", protocol_version=2), finished()]),
            "Upgrade dagster-sqlmesh-pipes",
        ),
    ],
    ids=[
        "silent",
        "broken off",
        "exit code against outcome",
        "error",
        "malformed",
        "newer protocol",
    ],
)
def test_run_with_a_bad_end_fails_and_says_which(
    make_resource: Make, launcher: FakeLauncher, said: str
) -> None:
    result = run(make_resource(launcher))
    assert not result.success
    assert said in step_error(result)


def test_a_missing_message_fails_the_step_and_is_named(make_resource: Make) -> None:
    numbered = (
        b'{"__dagster_pipes_version": "0.1", "method": "opened", '
        b'"params": {"extras": {}}, "seq": 0}'
    )
    late = b'{"__dagster_pipes_version": "0.1", "method": "closed", "params": {}, "seq": 4}'
    result = run(
        make_resource(
            FakeLauncher(
                messages=[numbered, {**finished(), "method": "report_custom_message"}, late]
            )
        )
    )
    assert not result.success
    assert "messages number" in step_error(result)


@pytest.mark.parametrize("foreign", ["", json.dumps(message("closed"))])
def test_stream_not_closed_by_the_runner_fails_the_step(
    make_resource: Make, tmp_path: Path, foreign: str
) -> None:
    said = f"{foreign}\n".lstrip() + "\n".join(
        json.dumps({**each, "seq": number})
        for number, each in enumerate([message("opened", extras={}), finished(materialized=[])])
    )
    runner = tmp_path / "runner"
    runner.write_text(f"""\
#!{sys.executable}
import os, dagster_pipes
path = dagster_pipes.decode_param(os.environ["DAGSTER_PIPES_MESSAGES"])["path"]
with open(path, "w") as messages:
    messages.write({said!r})
""")
    runner.chmod(0o755)
    result = run(make_resource(SubprocessLauncher(executable=str(runner))))
    assert not result.success
    assert "ended with exit code 0 without closing its stream of messages" in step_error(result)


def test_run_begun_again_forgets_failed_and_skipped(
    make_resource: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    given_up = [
        custom("model_failed", model=fqn("staging.events"), error="the old code"),
        custom(
            "model_skipped",
            model=fqn("marts.customers"),
            reason="upstream_failed",
            upstream=[fqn("staging.events")],
        ),
        custom("model_skipped", model=fqn("marts.orders"), reason="nothing_due"),
    ]
    failed = custom("model_failed", model=fqn("marts.orders"), error="the new code")
    restarted = custom("run_restarted", attempt=2, reason="a plan changed the environment")
    result = run(
        make_resource(
            FakeLauncher(
                messages=[*given_up, restarted, failed, finished("failed")], exit=ExitStatus(code=1)
            )
        )
    )
    error = step_error(result)
    assert error.startswith("1 SQLMesh model failed")
    assert "the new code" in error
    assert fqn("marts.customers") not in error
    assert "Nothing was due" not in logs(result, capfd)


def test_unplanned_model_is_logged_with_what_to_do(
    make_resource: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    skipped = custom(
        "model_skipped",
        model=fqn("marts.customers"),
        reason="not_planned",
        upstream=[],
        signals=[],
        next_due=None,
    )
    result = run(make_resource(FakeLauncher(messages=[skipped, finished("nothing_to_do")])))
    assert result.success
    assert (
        f"{fqn('marts.customers')} was skipped: "
        "the environment does not hold it; run `sqlmesh plan`" in logs(result, capfd)
    )


def test_only_failures_that_may_pass_are_retried(make_resource: Make) -> None:
    policy = dg.RetryPolicy(max_retries=1)
    wrong = FakeLauncher(
        messages=[finished("error", error="unknown gateway")], exit=ExitStatus(code=2)
    )
    assert not run(make_resource(wrong), retry_policy=policy).success
    assert len(wrong.requests) == 1
    broken = FakeLauncher(
        messages=[finished("error", error="warehouse down")], exit=ExitStatus(code=4)
    )
    assert not run(make_resource(broken), retry_policy=policy).success
    assert len(broken.requests) == 2


def test_whole_project_is_all_and_a_subset_is_by_name(make_resource: Make) -> None:
    launcher = FakeLauncher(messages=[finished("nothing_to_do")])
    resource = make_resource(launcher)
    run(resource)
    run(resource, selection=[dg.AssetKey(["shop", "marts", "orders"])])
    everything, subset = (request.context["extras"] for request in launcher.requests)
    assert everything["selection"] == "all"
    assert set(everything["models"]) == {model["fqn"] for model in SHOP}
    assert subset["selection"] == "models"
    assert subset["models"] == {
        fqn("marts.orders"): {
            "asset_key": "shop/marts/orders",
            "checks": {"not_null:00000000": "not_null", "positive:00000000": "positive"},
        }
    }


def test_checks_alone_are_audited_and_nothing_is_run(make_resource: Make) -> None:
    launcher = FakeLauncher(
        messages=[check("shop/marts/orders", "not_null", passed=True), finished()]
    )
    key = dg.AssetCheckKey(dg.AssetKey(["shop", "marts", "orders"]), "not_null")
    result = run(make_resource(launcher), selection=dg.AssetSelection.checks(key))
    assert result.success
    assert [request.arguments[0] for request in launcher.requests] == ["audit"]
    assert launcher.requests[0].context["extras"]["models"] == {
        fqn("marts.orders"): {
            "asset_key": "shop/marts/orders",
            "checks": {"not_null:00000000": "not_null"},
        }
    }


def test_manifest_drift_is_one_warning_with_the_models(
    make_resource: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    environment = {
        fqn("staging.events"): "another hash",
        fqn("marts.orders"): "hash of marts.orders",
        fqn("marts.new"): "x",
    }
    result = run(
        make_resource(
            FakeLauncher(
                messages=[custom("run_started", environment_models=environment), finished()]
            )
        )
    )
    assert result.success
    warnings = [
        line for line in logs(result, capfd).splitlines() if "not what the manifest says" in line
    ]
    assert len(warnings) == 1
    assert f"it lacks {fqn('marts.customers')}" in warnings[0]
    assert f"manifest does not know: {fqn('marts.new')}" in warnings[0]
    assert f"other versions of {fqn('staging.events')}" in warnings[0]


def test_the_launchpad_options_reach_the_runner(make_resource: Make) -> None:
    launcher = FakeLauncher(messages=[finished()])
    config = {
        "ops": {
            "sqlmesh_prod": {
                "config": {
                    "ignore_cron": True,
                    "skip_janitor": True,
                    "start": "2026-01-01",
                    "environment": "dev",
                }
            }
        }
    }
    assert run(make_resource(launcher, allowed_environments=["dev"]), run_config=config).success
    assert launcher.requests[0].arguments == [
        "run",
        "--environment",
        "dev",
        "--ignore-cron",
        "--skip-janitor",
        "--start",
        "2026-01-01",
    ]


@pytest.mark.parametrize(
    ("setting", "flag"),
    [
        ("ignore_cron", "--ignore-cron"),
        ("skip_janitor", "--skip-janitor"),
        ("fetch_row_counts", "--row-counts"),
    ],
)
def test_the_resource_s_options_reach_the_runner(
    make_resource: Make, setting: str, flag: str
) -> None:
    launcher = FakeLauncher(messages=[finished()])
    assert run(make_resource(launcher, **{setting: True})).success
    assert launcher.requests[0].arguments == ["run", "--environment", "prod", flag]


def test_disallowed_environment_fails_before_launch(
    make_resource: Make,
) -> None:
    launcher = FakeLauncher(messages=[finished()])
    config = {"ops": {"sqlmesh_prod": {"config": {"environment": "dev"}}}}
    result = run(make_resource(launcher), run_config=config)
    assert "environment 'dev' is not allowed here, only prod" in step_error(result)
    assert launcher.requests == []


def test_custom_asset_key_keeps_dependencies(make_resource: Make) -> None:
    from dagster_sqlmesh_pipes import SQLMeshTranslator  # noqa: PLC0415

    class Upper(SQLMeshTranslator):
        def get_asset_key(self, model: Any) -> dg.AssetKey:
            return dg.AssetKey([model.view_name.upper()])

    assets = sqlmesh_assets_factory(
        sqlmesh_resource=make_resource(FakeLauncher(), translator=Upper())
    )[0]
    assert isinstance(assets, dg.AssetsDefinition)
    assert assets.asset_deps[dg.AssetKey("ORDERS")] == {dg.AssetKey("EVENTS")}
    assert assets.asset_deps[dg.AssetKey("EVENTS")] == {
        dg.AssetKey(["external", "shop", "raw", "events"])
    }


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, []),
        ({"lock_timeout": 0}, ["--lock-timeout", "0"]),
        ({"lock_timeout": 90.5}, ["--lock-timeout", "90.5"]),
        ({"concurrency_limit": 2}, ["--no-lock"]),
    ],
)
def test_a_runners_lock_has_the_resources_options(
    make_resource: Make, options: dict[str, Any], expected: list[str]
) -> None:
    launcher = FakeLauncher(messages=[finished()])
    run(make_resource(launcher, **options))
    assert launcher.requests[0].arguments == ["run", "--environment", "prod", *expected]


def test_a_runner_is_labelled_with_what_it_must_have_to_itself(make_resource: Make) -> None:
    launcher = FakeLauncher(messages=[finished()])
    run(make_resource(launcher))
    run(make_resource(launcher, concurrency_limit=2))
    alone, shared = (request.labels for request in launcher.requests)
    assert alone[LOCK_LABEL] == "sqlmesh/duckdb"
    assert alone["dagster/step_key"] == "sqlmesh_prod"
    assert LOCK_LABEL not in shared


# Steps and runs.


def echo(request: LaunchRequest) -> list[dict[str, Any]]:
    """Claim that everything that was asked for was run."""
    models = (request.context["extras"] or {})["models"]
    return [*(materialization(each["asset_key"]) for each in models.values()), finished()]


def split_run(
    make_resource: Make, launcher: FakeLauncher, config: Any = None
) -> dg.ExecuteInProcessResult:
    """Run two models with an asset of somebody else between them."""

    @dg.asset(key=["external", "shop", "raw", "between"], deps=[["shop", "staging", "first"]])
    def between() -> None: ...

    models = [model("staging.first"), model("marts.last", depends_on=[fqn("raw.between")])]
    assets = sqlmesh_assets_factory(
        sqlmesh_resource=make_resource(launcher, models, allowed_environments=["dev"])
    )
    ops = {name: {"config": options} for name, options in (config or {}).items()}
    return dg.materialize([*assets, between], run_config={"ops": ops}, raise_on_error=False)


def test_steps_of_one_run_have_the_same_options(
    make_resource: Make,
) -> None:
    for step in ("sqlmesh_prod", "sqlmesh_prod_2"):
        launcher = FakeLauncher(messages=echo)
        result = split_run(make_resource, launcher, {step: {"ignore_cron": True}})
        assert materialized(result) == [
            "shop/staging/first",
            "external/shop/raw/between",
            "shop/marts/last",
        ]
        assert [request.arguments[-1] for request in launcher.requests] == [
            "--ignore-cron",
            "--ignore-cron",
        ]


def test_different_options_for_steps_of_one_run_are_refused(make_resource: Make) -> None:
    launcher = FakeLauncher(messages=echo)
    result = split_run(
        make_resource,
        launcher,
        {"sqlmesh_prod": {"environment": "dev"}, "sqlmesh_prod_2": {"start": "2026-01-01"}},
    )
    assert "different options for sqlmesh_prod and sqlmesh_prod_2" in step_error(result)
    assert launcher.requests == []


def test_run_of_everything_leaves_out_unplanned_models(
    make_resource: Make,
) -> None:
    launcher = FakeLauncher(messages=echo)
    split_run(make_resource, launcher)
    assert [
        (
            (request.context["extras"] or {})["selection"],
            (request.context["extras"] or {})["unplanned"],
        )
        for request in launcher.requests
    ] == [
        ("models", "skip"),
        ("models", "skip"),
    ]


def test_unknown_assets_fail_the_step_and_are_named(
    make_resource: Make,
) -> None:
    launcher = FakeLauncher(messages=echo)
    (assets,) = sqlmesh_assets_factory(sqlmesh_resource=make_resource(launcher))
    assert isinstance(assets, dg.AssetsDefinition)
    prefixed = assets.with_attributes(
        asset_key_replacements={key: key.with_prefix("wh") for key in assets.keys}
    )
    result = dg.materialize(
        [prefixed],
        selection=[dg.AssetKey(["wh", "shop", "marts", "customers"])],
        raise_on_error=False,
    )
    assert (
        "no model or audit for wh/shop/marts/customers. Only the translator sets asset keys"
        in step_error(result)
    )
    assert launcher.requests == []


def test_checks_are_audited_although_models_failed(make_resource: Make) -> None:
    def says(request: LaunchRequest) -> list[dict[str, Any]]:
        if request.arguments[0] == "audit":
            return [check("shop/staging/events", "not_null", passed=True), finished()]
        return [custom("model_failed", model=fqn("marts.orders"), error="boom"), finished("failed")]

    selection = dg.AssetSelection.assets(["shop", "marts", "orders"]) | dg.AssetSelection.checks(
        dg.AssetCheckKey(dg.AssetKey(["shop", "staging", "events"]), "not_null")
    )
    result = run(make_resource(FakeLauncher(messages=says)), selection=selection)
    assert "1 SQLMesh model failed" in step_error(result)
    assert [evaluation.passed for evaluation in result.get_asset_check_evaluations()] == [True]


def test_results_of_another_environment_are_observations(
    make_resource: Make,
) -> None:
    said = [
        materialization("shop/marts/orders", rows=3),
        check("shop/marts/orders", "positive", passed=False),
    ]
    resource = make_resource(
        FakeLauncher(messages=[*said, finished()]), allowed_environments=["dev"]
    )

    @dg.asset(deps=[["shop", "marts", "orders"]])
    def downstream() -> None: ...

    assets = [*sqlmesh_assets_factory(sqlmesh_resource=resource), downstream]
    result = dg.materialize(
        assets, run_config={"ops": {"sqlmesh_prod": {"config": {"environment": "dev"}}}}
    )
    assert materialized(result) == []
    assert result.get_asset_check_evaluations() == []
    ran, audited = [
        event.asset_observation_data.asset_observation
        for event in result.get_asset_observation_events()
    ]
    assert ran.description == "Materialized in the environment dev."
    assert {key: value.value for key, value in ran.metadata.items()} == {
        "sqlmesh/environment": "dev",
        "rows": 3,
    }
    assert audited.description == "Audit positive failed in the environment dev."
    assert audited.metadata["audit_passed"].value is False


@pytest.mark.parametrize(
    "setting", ["environment", "gateway", "lock_key", "project_dir", "manifest_path"]
)
def test_a_variable_that_is_not_set_is_named(make_resource: Make, setting: str) -> None:
    resource = make_resource(FakeLauncher()).model_copy(update={setting: dg.EnvVar("WHERE_IT_IS")})
    with pytest.raises(ConfigurationError, match="variable WHERE_IT_IS is not set"):
        sqlmesh_adaptive_schedule_factory(sqlmesh_resource=resource)


def test_checks_of_seeds_are_logged_as_not_run_with_their_assets(
    make_resource: Make, instance: dg.DagsterInstance
) -> None:
    seed = model("staging.names", kind={"name": "SEED"}, audits=[audit("not_null")])
    resource = make_resource(FakeLauncher(messages=[finished()]), [seed])
    assets = sqlmesh_assets_factory(sqlmesh_resource=resource)
    result = dg.materialize(assets, instance=instance)
    messages = [entry.user_message for entry in instance.all_logs(result.run_id)]
    assert any(f"The checks of {fqn('staging.names')} are not run" in text for text in messages)
