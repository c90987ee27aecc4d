"""What a run reports of models, batches and audits: messages of real runs on DuckDB."""

import json
from collections.abc import Callable

import pytest
from integration.runner.harness import (
    AFTER,
    ANNOUNCED,
    HEAVY,
    NOT_NULL,
    ORDERS,
    PLANNED_AT,
    STANDALONE,
    TOTALS,
    TOTALS_AGREE,
    VIEW,
    Finished,
    ProjectCopy,
    asset_key,
    extras,
    sqlmesh,
)


def _staging_table(orders: ProjectCopy) -> str:
    """Return the physical table of staging.orders."""
    ((name,),) = orders.sql(
        "SELECT table_name FROM information_schema.tables "
        "WHERE table_schema = 'sqlmesh__staging' AND table_type = 'BASE TABLE'"
    )
    return f'sqlmesh__staging."{name}"'


def test_a_run_reports_each_model_once_with_its_batches_folded(
    scenario: Callable[[str], Finished],
) -> None:
    run = scenario("success_with_batches")

    assert (run.code, run.end["outcome"]) == (0, "success")
    assert run.materialized.keys() == {
        asset_key(fqn) for fqn in (ORDERS, TOTALS, VIEW, ANNOUNCED, AFTER, HEAVY)
    }
    model = run.materialized[asset_key(ORDERS)]
    assert (
        model["sqlmesh/batches"],
        model["sqlmesh/batches_planned"],
        model["sqlmesh/complete"],
    ) == (3, 3, True)
    assert (model["sqlmesh/interval_start"], model["sqlmesh/interval_end"]) == (
        1767312000.0,
        1767571200.0,
    )  # 2026-01-02 to 2026-01-05
    assert model["sqlmesh/physical_table"].startswith("orders.sqlmesh__staging.staging__orders__")
    assert [
        event["batch"] for event in run.events("batch_finished") if event["model"] == ORDERS
    ] == [1, 2, 3]
    check = run.checks[asset_key(ORDERS), "not_null"]
    assert (check["passed"], check["audit_batches"]) == (True, 3)
    assert (check["audit_interval_start"], check["audit_interval_end"]) == (
        1767312000.0,
        1767571200.0,
    ), "all of them, as none failed"


def test_each_message_has_the_next_number_and_is_ascii(orders: ProjectCopy) -> None:
    orders.sql("UPDATE raw.orders SET amount = 'größer' WHERE id = 12")

    run = orders.run(extras=extras([ORDERS]))

    assert [message["seq"] for message in run.messages] == list(range(len(run.messages)))
    assert [run.messages[0]["method"], run.messages[-1]["method"]] == ["opened", "closed"]
    assert "größer" in run.failed(ORDERS)["error"]  # the pipe is read as ASCII


def test_passing_audits_are_reported_with_what_was_asked(
    scenario: Callable[[str], Finished],
) -> None:
    run = scenario("success_with_batches")

    check = run.checks[asset_key(ORDERS), "not_null"]
    assert check["passed"]
    assert (check["audit_failing_rows"], check["audit_batches"], check["audit_args"]) == (
        0,
        3,
        {"columns": "(id)"},
    )
    assert "IS NULL" in check["audit_query"]
    assert run.checks[asset_key(TOTALS), "number_of_rows"]["passed"]


def test_materialization_precedes_its_checks(
    scenario: Callable[[str], Finished],
) -> None:
    methods = [message["method"] for message in scenario("nonblocking_failure").messages]

    assert methods.index("report_asset_materialization") < methods.index("report_asset_check")


def test_two_uses_of_one_audit_on_a_model_are_two_checks(
    scenario: Callable[[str], Finished],
) -> None:
    run = scenario("nonblocking_failure")

    assert not run.checks[asset_key(ORDERS), "assert_positive"]["passed"]
    assert run.checks[asset_key(ORDERS), "assert_positive_c334cb69"]["passed"]


def test_failing_nonblocking_audit_warns(
    scenario: Callable[[str], Finished],
) -> None:
    run = scenario("nonblocking_failure")  # two on the second day, and none after it

    check = run.checks[asset_key(ORDERS), "assert_positive"]
    assert (run.code, run.end["outcome"]) == (0, "success")
    assert (check["passed"], check["severity"], check["audit_blocking"]) == (False, "WARN", False)
    assert (check["audit_failing_rows"], check["audit_batches"]) == (2, 3)
    assert check["audit_interval_start"] == 1767312000.0, "the worst batch is the second day's"
    assert "2026-01-02" in check["audit_query"]
    assert "audit_note" not in check
    assert run.materialized[asset_key(ORDERS)]["sqlmesh/complete"]


def test_failing_audit_is_not_logged_again(
    scenario: Callable[[str], Finished],
) -> None:
    assert scenario("nonblocking_failure").params("log") == []


def test_failing_blocking_audit_materializes_nothing(
    scenario: Callable[[str], Finished],
) -> None:
    run = scenario("blocking_failure")

    check = run.checks[asset_key(ORDERS), "not_null"]
    assert (run.code, run.end["outcome"]) == (1, "failed")
    assert (check["passed"], check["severity"], check["audit_failing_rows"]) == (False, "ERROR", 9)
    assert "visible through" in check["audit_note"]
    assert asset_key(ORDERS) not in run.materialized
    failed = run.failed(ORDERS)
    assert (failed["audit"], failed["batches_done"], failed["batches"]) == ("not_null", 0, 3)
    assert failed["error"] == "'not_null' audit error: 3 rows failed"
    assert failed["query"] is None
    assert [run.skipped(fqn)["reason"] for fqn in (TOTALS, VIEW)] == ["upstream_failed"] * 2
    assert run.skipped(VIEW)["upstream"] == [ORDERS]


def test_failure_after_batches_is_incomplete(
    orders: ProjectCopy,
) -> None:
    orders.sql("UPDATE raw.orders SET id = NULL WHERE ordered_at = '2026-01-03'")

    run = orders.run(extras=extras([ORDERS]))

    model = run.materialized[asset_key(ORDERS)]
    assert (
        model["sqlmesh/complete"],
        model["sqlmesh/batches"],
        model["sqlmesh/batches_planned"],
    ) == (False, 2, 3)
    assert run.code == 1
    assert (run.failed(ORDERS)["interval_start"], run.failed(ORDERS)["batches_done"]) == (
        "2026-01-03T00:00:00+00:00",
        1,
    )
    assert run.end["materialized"] == run.end["failed"] == [ORDERS]


def test_bad_cast_is_reported_with_its_query(
    scenario: Callable[[str], Finished],
) -> None:
    run = scenario("bad_cast_with_downstream_skipped")

    failed = run.failed(ORDERS)
    assert "Could not convert string 'many' to INT32" in failed["error"]
    assert failed["error_type"] == "ConversionException"
    assert failed["query"].startswith("INSERT INTO")
    assert failed["path"] == "models/staged_orders.sql"
    assert not any(key == asset_key(ORDERS) for key, _ in run.checks), "its audits never ran"
    assert run.materialized.keys() == {asset_key(fqn) for fqn in (ANNOUNCED, AFTER, HEAVY)}, (
        "the others went on"
    )
    assert run.end["failed"] == [ORDERS]
    assert run.end["skipped"] == [TOTALS, VIEW]


def test_broken_audit_fails_its_check_only(
    orders: ProjectCopy,
) -> None:
    orders.sql(f"ALTER TABLE {_staging_table(orders)} RENAME amount TO amounts")

    run = orders.command("audit", extras=extras([ORDERS]))

    broken = run.checks[asset_key(ORDERS), "assert_positive"]
    assert (broken["passed"], broken["audit_failing_rows"]) == (False, 0)
    assert '"amount" not found' in broken["audit_error"]
    assert run.checks[asset_key(ORDERS), "assert_positive_c334cb69"]["passed"]
    assert run.code == 1


def test_skipped_audit_is_reported_as_skipped_not_as_check(
    scenario: Callable[[str], Finished],
) -> None:
    run = scenario("success_with_batches")

    assert [event["check_name"] for event in run.events("audit_skipped")] == ["never_asked"]
    assert (asset_key(TOTALS), "never_asked") not in run.checks


def test_only_selected_checks_are_reported_though_all_audits_run(orders: ProjectCopy) -> None:
    asked = extras([ORDERS])
    asked["models"][ORDERS]["checks"] = {NOT_NULL: "not_null"}

    run = orders.run(extras=asked)

    assert run.checks.keys() == {(asset_key(ORDERS), "not_null")}
    assert {event["audits_passed"] for event in run.events("batch_finished")} == {3}


def test_selected_models_run_without_upstream(orders: ProjectCopy) -> None:
    run = orders.run(extras=extras([TOTALS]))

    assert [event["model"] for event in run.events("model_started")] == [TOTALS]
    assert run.materialized.keys() == {asset_key(TOTALS)}
    assert run.end["unknown_models"] == []
    assert not any(name == STANDALONE for _, name in run.checks), (
        "a standalone audit that is not named does not run"
    )


def test_standalone_audits_that_are_named_run_with_a_selection(orders: ProjectCopy) -> None:
    named = orders.run(extras=extras([], standalone_audits=TOTALS_AGREE))

    assert named.checks.keys() == {(asset_key(TOTALS), STANDALONE)}
    assert (named.code, named.materialized) == (0, {})


def test_models_that_dagster_does_not_know_run_and_are_listed(
    scenario: Callable[[str], Finished],
) -> None:
    run = scenario("unknown_models")

    assert run.materialized.keys() == {asset_key(ORDERS)}
    assert run.end["unknown_models"] == sorted([TOTALS, VIEW, ANNOUNCED, AFTER, HEAVY])
    assert {
        event["asset_key"] for event in run.events("batch_finished") if event["model"] != ORDERS
    } == {None}


def test_a_run_with_nothing_due_says_when_something_will_be(
    scenario: Callable[[str], Finished],
) -> None:
    run = scenario("nothing_due")

    assert (run.code, run.end["outcome"], run.end["materialized"]) == (0, "nothing_to_do", [])
    assert {event["reason"] for event in run.events("model_skipped")} == {"nothing_due"}
    assert len(run.events("model_skipped")) == 6
    assert run.end["next_due"] == run.skipped(ORDERS)["next_due"]
    assert run.end["next_due"].endswith("T00:00:00+00:00")


def test_blocking_signal_is_named_for_all_behind_it(
    scenario: Callable[[str], Finished],
) -> None:
    run = scenario("signal_not_ready")

    assert run.code == 0
    assert (run.skipped(ANNOUNCED)["reason"], run.skipped(ANNOUNCED)["signals"]) == (
        "signal_not_ready",
        ["announced"],
    )
    assert (run.skipped(AFTER)["reason"], run.skipped(AFTER)["signals"]) == (
        "signal_not_ready",
        ["announced"],
    )
    assert run.materialized.keys() == {asset_key(fqn) for fqn in (ORDERS, TOTALS, VIEW, HEAVY)}


def test_only_models_with_signals_not_ready_is_nothing_to_do(orders: ProjectCopy) -> None:
    (orders.path / "not_announced").touch()

    run = orders.run(extras=extras([ANNOUNCED]))

    assert (run.code, run.end["outcome"]) == (0, "nothing_to_do")


def test_standalone_audit_is_reported_to_each_check(orders: ProjectCopy) -> None:
    named = [{"asset_key": asset_key(fqn), "check_name": "agree"} for fqn in (TOTALS, ORDERS)]

    run = orders.run(extras=extras(selection="all", standalone_audits={STANDALONE: named}))

    verdicts = [run.checks[asset_key(fqn), "agree"] for fqn in (TOTALS, ORDERS)]
    assert [verdict["passed"] for verdict in verdicts] == [True, True]
    assert {verdict["severity"] for verdict in verdicts} == {"WARN"}
    assert STANDALONE not in run.end["unknown_models"]


def test_row_counts_are_of_tables_and_not_views(orders: ProjectCopy) -> None:
    run = orders.run("--row-counts", extras=extras(selection="all"))

    assert run.materialized[asset_key(ORDERS)]["dagster/row_count"] == 12
    assert run.materialized[asset_key(TOTALS)]["dagster/row_count"] == 4
    assert "dagster/row_count" not in run.materialized[asset_key(VIEW)]


def test_audit_command_materializes_nothing(orders: ProjectCopy) -> None:
    before = orders.sql("SELECT COUNT(*) FROM sqlmesh._intervals")
    asked = extras([ORDERS], standalone_audits=TOTALS_AGREE)
    asked["models"][ORDERS]["checks"] = {NOT_NULL: "not_null"}

    run = orders.command("audit", extras=asked)

    assert (run.code, run.end["outcome"]) == (0, "success")
    assert run.checks.keys() == {(asset_key(ORDERS), "not_null"), (asset_key(TOTALS), STANDALONE)}
    assert run.checks[asset_key(ORDERS), "not_null"]["audit_batches"] == 1
    assert run.materialized == {}
    assert orders.sql("SELECT COUNT(*) FROM sqlmesh._intervals") == before


def test_audit_command_finds_damage_since_the_run(orders: ProjectCopy) -> None:
    orders.run(extras=extras([ORDERS]))
    table = _staging_table(orders)
    orders.sql(
        f"UPDATE {table} SET id = NULL WHERE id IN (1, 12); "
        f"UPDATE {table} SET amount = -1 WHERE id = 2"
    )

    run = orders.command("audit", extras=extras([ORDERS]))

    check = run.checks[asset_key(ORDERS), "not_null"]
    assert (check["passed"], check["severity"], check["audit_failing_rows"]) == (False, "ERROR", 2)
    assert "audit_note" not in check, "nothing was withheld"
    assert not run.checks[asset_key(ORDERS), "assert_positive"]["passed"], "the next audit ran too"
    assert (run.code, run.failed(ORDERS)["audit"]) == (1, "not_null")


def test_failed_nonblocking_audit_does_not_fail_the_run(orders: ProjectCopy) -> None:
    orders.sql(f"UPDATE {_staging_table(orders)} SET amount = -1")

    run = orders.command("audit", extras=extras([ORDERS]))

    assert not run.checks[asset_key(ORDERS), "assert_positive"]["passed"]
    assert (run.code, run.end["outcome"]) == (0, "success")


def test_events_on_stdout_are_the_same_run_in_json_lines(orders: ProjectCopy) -> None:
    run = orders.run("--select", "orders.staging.orders", "orders.marts.announced", "--events", "-")

    events = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.code == 0
    assert [event["type"] for event in events if event.get("model", ORDERS) == ORDERS] == [
        "run_started", "model_started", *["batch_finished"] * 3, "model_materialized",
        *["audit_finished"] * 3, "run_finished",
    ]  # fmt: skip
    assert "asked for announcements" in run.stderr
    assert "batch 3 of 3" in run.stderr


def test_a_person_sees_progress_and_a_table(orders: ProjectCopy) -> None:
    orders.sql("UPDATE raw.orders SET amount = '-1' WHERE id = 4")

    run = orders.run("--row-counts", environ={"COLUMNS": "120"})

    assert run.code == 0
    assert "[3/3] staging.orders" in run.stdout, "SQLMesh's own display"
    (line,) = [line for line in run.stdout.splitlines() if "orders.staging.orders" in line]
    assert line.split() == [
        "orders.staging.orders",
        "materialized",
        "3/3",
        "12",
        line.split()[4],
        "2",
        "passed,",
        "1",
        "failed",
    ]
    assert "6 materialized, 0 failed, 0 skipped" in run.stdout
    warning = "'assert_positive' audit error: 1 row failed"
    assert (run.stdout + run.stderr).count(warning) == 1


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_printing_user_code_breaks_no_message(orders: ProjectCopy, stream: str) -> None:
    run = orders.run(extras=extras([ANNOUNCED]), messages={"stdio": stream})

    text = run.stdout if stream == "stdout" else run.stderr
    lines = [line for line in text.splitlines() if stream == "stdout" or line.startswith("{")]
    messages = [json.loads(line) for line in lines]
    assert [message["seq"] for message in messages] == list(range(len(messages)))
    assert messages[-1]["method"] == "closed"
    assert "asked for announcements" in (run.stderr if stream == "stdout" else run.stdout)


def test_a_dev_environment_runs_with_its_own_name_and_tables(orders: ProjectCopy) -> None:
    model = orders.path / "models" / "heavy.sql"
    model.write_text(model.read_text().replace("% 7", "% 11"))
    sqlmesh(
        orders.path,
        "plan",
        "dev",
        "--auto-apply",
        "--no-prompts",
        "--skip-tests",
        "--execution-time",
        PLANNED_AT,
        "--start",
        "2026-01-01",
        "--end",
        "2026-01-01",
    )

    run = orders.run("--environment", "dev", extras=extras([HEAVY]))

    assert (run.code, run.end["outcome"]) == (0, "success")
    metadata = run.materialized[asset_key(HEAVY)]
    assert metadata["sqlmesh/environment"] == "dev"
    schema, table = metadata["sqlmesh/physical_table"].split(".")[1:]
    assert orders.sql(f'SELECT COUNT(*) FROM {schema}."{table}"') == [(1,)]
