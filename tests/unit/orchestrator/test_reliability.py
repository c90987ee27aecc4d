"""Each row of the page on reliability is a test, which exists."""

import re
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "explanation" / "reliability.md"

DOCKER_LAUNCHER = "acceptance/docker/test_launcher.py"
DOCKER_STACK = "acceptance/docker/test_stack.py"
KUBERNETES_DEPLOYMENT = "acceptance/kubernetes/test_deployment.py"
KUBERNETES_FAULTS = "acceptance/kubernetes/test_faults.py"
KUBERNETES_LAUNCHER = "acceptance/kubernetes/test_launcher.py"
KUBERNETES_RESTARTS = "acceptance/kubernetes/test_restarts.py"
LOCAL_BAD_INPUT = "acceptance/local/test_bad_input.py"
LOCAL_BROWSER = "acceptance/local/test_browser.py"
LOCAL_REPORTING = "acceptance/local/test_reporting.py"
LOCAL_TERMINATION = "acceptance/local/test_termination.py"
DAEMON = "acceptance/schedule/test_daemon.py"
EVENT_LOG_ON_POSTGRES = "acceptance/schedule/test_event_log_on_postgres.py"
LOCK_BETWEEN_PROCESSES = "acceptance/schedule/test_lock_between_processes.py"
LOCK_ON_POSTGRES = "acceptance/schedule/test_lock_on_postgres.py"
LOCK_ON_STATE = "acceptance/schedule/test_lock_on_state.py"
MIRROR = "acceptance/schedule/test_mirror.py"
PRODUCTION = "acceptance/schedule/test_production.py"
RUNNER_DATABASE_FAULTS = "integration/runner/test_database_faults.py"
RUNNER_ERRORS = "integration/runner/test_errors.py"
RUNNER_LOCK = "integration/runner/test_lock.py"
RUNNER_ONE_RUN_AT_A_TIME = "integration/runner/test_one_run_at_a_time.py"
RUNNER_POSTGRES = "integration/runner/test_postgres.py"
RUNNER_PYTHON_MODELS = "integration/runner/test_python_models.py"
RUNNER_STATE_COMMAND = "integration/runner/test_state_command.py"
UNIT_TICK = "unit/orchestrator/schedule/test_tick.py"
UNIT_ASSETS = "unit/orchestrator/test_assets.py"
UNIT_GUARD = "unit/orchestrator/test_guard.py"
UNIT_LEFTOVERS = "unit/orchestrator/test_leftovers.py"
UNIT_MANIFEST = "unit/orchestrator/test_manifest.py"
UNIT_RECORDED = "unit/orchestrator/test_recorded.py"
UNIT_SEQUENCE = "unit/orchestrator/test_sequence.py"
UNIT_SESSION = "unit/orchestrator/test_session.py"
UNIT_STREAM = "unit/orchestrator/test_stream.py"
UNIT_SUBPROCESS_LAUNCHER = "unit/orchestrator/test_subprocess_launcher.py"
UNIT_WATCH = "unit/orchestrator/test_watch.py"
RUNNER_UNIT_FORKS = "unit/runner/test_forks.py"
RUNNER_UNIT_GATEWAYS = "unit/runner/test_gateways.py"
RUNNER_UNIT_PIPES_SINK = "unit/runner/test_pipes_sink.py"
RUNNER_UNIT_RECORDER = "unit/runner/test_recorder.py"
RUNNER_UNIT_STATE_LOCK = "unit/runner/test_state_lock.py"

TESTS: Mapping[str, tuple[str, ...]] = {
    "run terminated in Dagster": (
        f"{LOCAL_TERMINATION}::test_terminated_run_reports_what_was_recorded",
        f"{DOCKER_STACK}::test_cancelled_run_stops_runner_and_query",
        f"{KUBERNETES_DEPLOYMENT}::test_termination_stops_the_query_and_deletes_the_pod",
    ),
    "terminated twice": (
        f"{UNIT_GUARD}::test_terminating_twice_loses_no_result",
        f"{LOCAL_TERMINATION}::test_ctrl_c_while_storing_loses_no_result",
    ),
    "step's process killed": (
        f"{LOCAL_TERMINATION}::test_no_runner_outlives_a_killed_step_process",
        f"{MIRROR}::test_results_of_a_killed_step_come_with_the_next_run",
        f"{DOCKER_LAUNCHER}::test_leftovers_of_finished_runs_are_stopped",
        f"{DOCKER_LAUNCHER}::test_orphans_are_containers_of_finished_runs",
        f"{KUBERNETES_LAUNCHER}::test_leftovers_of_finished_runs_are_stopped",
        f"{KUBERNETES_LAUNCHER}::test_orphans_are_the_pods_of_finished_runs",
    ),
    "run worker killed, the step lives on": (
        f"{UNIT_WATCH}::test_a_run_that_dagster_has_ended_has_its_runner_stopped",
        f"{LOCAL_TERMINATION}::test_no_runner_outlives_a_killed_run_worker",
        f"{LOCK_ON_STATE}::test_after_a_frozen_step_of_a_dead_worker_the_next_run_waits",
        f"{DOCKER_STACK}::test_killed_run_worker_has_its_runner_removed",
    ),
    "the step's machine is lost": (
        f"{UNIT_LEFTOVERS}::test_runners_of_finished_runs_go_whether_they_run_or_not",
        f"{DOCKER_LAUNCHER}::test_second_attempt_stops_leftover_of_first",
    ),
    "runner killed": (
        f"{MIRROR}::test_results_of_a_killed_runner_come_with_the_next_run",
        f"{DOCKER_STACK}::test_killed_runner_fails_its_run_with_reason",
        f"{DOCKER_LAUNCHER}::test_out_of_memory_names_the_limit",
        f"{KUBERNETES_LAUNCHER}::test_out_of_memory_names_the_limit",
        f"{KUBERNETES_LAUNCHER}::test_pod_deleted_from_outside_ends_the_wait",
    ),
    "runner killed in the middle of a model": (
        f"{UNIT_SESSION}::test_batches_without_result_are_shown_as_incomplete",
    ),
    "runner killed after SQLMesh recorded an interval": (
        f"{MIRROR}::test_results_of_a_killed_runner_come_with_the_next_run",
    ),
    "a message lost": (
        f"{MIRROR}::test_results_lost_in_a_gap_come_with_the_next_run",
        f"{UNIT_STREAM}::test_a_missing_message_fails_the_step_and_is_named",
        f"{UNIT_SEQUENCE}::test_gap_is_named_as_ranges_until_it_is_filled",
    ),
    "a message that Dagster refuses": (
        f"{UNIT_SESSION}::test_bad_message_fails_the_step_after_the_rest_is_stored",
    ),
    "engine or API server unreachable": (
        f"{DOCKER_LAUNCHER}::test_engine_away_for_a_while_is_waited_for",
        f"{DOCKER_LAUNCHER}::test_cut_log_stream_loses_and_doubles_nothing",
        f"{KUBERNETES_FAULTS}::test_cut_connections_lose_and_double_nothing",
        f"{KUBERNETES_RESTARTS}::test_restart_of_the_cluster_loses_and_doubles_nothing",
    ),
    "log rotated": (
        f"{DOCKER_LAUNCHER}::test_log_rotation_of_engine_is_overridden",
        f"{KUBERNETES_RESTARTS}::test_rotated_log_is_complete_or_the_gap_is_known",
    ),
    "left-overs of a killed step": (
        f"{UNIT_SUBPROCESS_LAUNCHER}::test_the_context_is_in_no_file_that_could_be_left",
        f"{UNIT_LEFTOVERS}::test_runners_of_finished_runs_go_whether_they_run_or_not",
    ),
    "daemon killed while a run is at work": (
        f"{PRODUCTION}::test_killed_daemon_and_run_worker_leave_one_complete_retry",
        f"{DAEMON}::test_missed_ticks_are_one_run_then_failed_models",
    ),
    "run worker killed, with run monitoring and run retries": (
        f"{PRODUCTION}::test_killed_daemon_and_run_worker_leave_one_complete_retry",
    ),
    "code server restarted": (f"{DOCKER_STACK}::test_run_survives_killed_code_location",),
    "a tick while a run is at work or queued": (
        f"{DAEMON}::test_missed_ticks_are_one_run_then_failed_models",
        f"{UNIT_TICK}::test_tick_during_a_run_is_skipped_and_names_it",
    ),
    "Dagster's storage refuses a result": (
        f"{MIRROR}::test_results_that_a_full_disk_refused_come_with_the_next_run",
        f"{UNIT_GUARD}::test_next_step_does_not_wait_for_one_that_cannot_store",
    ),
    "the connection to Dagster's PostgreSQL cut between two results": (
        f"{EVENT_LOG_ON_POSTGRES}::test_cut_connection_to_the_event_log_loses_no_result",
    ),
    "an instance that does not answer": (
        f"{UNIT_WATCH}::test_instance_without_answer_is_asked_again",
    ),
    "database connection of the lock cut": (
        f"{RUNNER_ONE_RUN_AT_A_TIME}::test_run_with_cut_lock_stops_and_next_does_its_work",
        f"{RUNNER_ONE_RUN_AT_A_TIME}::test_run_with_cut_lock_stops_before_the_next_begins",
        f"{LOCK_ON_STATE}::test_a_run_whose_lock_is_cut_fails_and_says_so",
    ),
    "state's server restarted": (
        f"{RUNNER_DATABASE_FAULTS}::test_restarted_state_database_ends_even_a_python_model",
    ),
    "warehouse restarted": (
        f"{RUNNER_DATABASE_FAULTS}::test_restarted_warehouse_fails_model_until_the_next_run",
    ),
    "warehouse's disk full": (
        f"{RUNNER_DATABASE_FAULTS}::test_full_disk_of_the_warehouse_keeps_what_was_recorded",
    ),
    "warehouse or state down": (
        f"{LOCAL_BAD_INPUT}::test_a_warehouse_that_is_down_and_no_password",
        f"{RUNNER_UNIT_GATEWAYS}::test_a_failure_names_the_gateway_and_its_models",
    ),
    "a clock set back, or behind another machine's": (
        f"{UNIT_RECORDED}::test_recording_is_news_if_version_end_or_time_is_newer",
        f"{RUNNER_STATE_COMMAND}::test_recording_by_a_clock_that_is_behind_changes_cursor",
    ),
    "two Dagster runs of one instance": (
        f"{LOCK_ON_POSTGRES}::test_two_runs_at_once_write_every_row_once",
        f"{LOCK_BETWEEN_PROCESSES}::test_second_of_two_runs_waits_for_the_first",
    ),
    "runs in two environments": (f"{LOCK_ON_POSTGRES}::test_runs_on_two_environments_take_turns",),
    "two Dagster instances, or a shell beside Dagster": (
        f"{LOCK_ON_STATE}::test_a_shell_waits_for_a_dagster_run",
        f"{LOCK_ON_STATE}::test_another_instance_waits_for_a_killed_steps_python_model",
        f"{RUNNER_ONE_RUN_AT_A_TIME}::test_state_and_doctor_see_a_run_at_work",
    ),
    "ten starts at once": (
        f"{RUNNER_ONE_RUN_AT_A_TIME}::test_of_ten_starts_at_once_each_ends_well_and_no_row_doubles",
    ),
    "state and warehouse on two servers": (
        f"{RUNNER_DATABASE_FAULTS}::test_runs_wait_with_state_and_warehouse_on_two_servers",
    ),
    "the lock's holder is killed": (
        f"{RUNNER_ONE_RUN_AT_A_TIME}::test_after_a_killed_runner_the_next_run_does_its_work_once",
        f"{RUNNER_LOCK}::test_a_killed_runner_releases_though_its_forked_child_lives",
    ),
    "whatever works on after its step died": (
        f"{LOCK_ON_STATE}::test_another_instance_waits_for_a_killed_steps_python_model",
    ),
    "a state without such a lock (DuckDB in one process; engines without advisory locks)": (
        f"{RUNNER_ERRORS}::test_a_duckdb_file_that_another_process_has_open",
        f"{RUNNER_UNIT_STATE_LOCK}::test_engines_without_locks_are_warned_of_once",
    ),
    "a plan with changes while a run is at work": (
        f"{RUNNER_POSTGRES}::test_plan_during_run_switches_to_new_environment",
        f"{LOCAL_REPORTING}::test_run_begun_again_has_one_result_for_each_asset",
    ),
    "a run while a plan is at work": (
        f"{RUNNER_POSTGRES}::test_a_run_goes_on_once_the_plan_that_it_waits_for_is_done",
        f"{RUNNER_ERRORS}::test_plan_at_work_is_waited_for_by_project_setting",
    ),
    "a Python model makes `multiprocessing` pools": (
        f"{RUNNER_PYTHON_MODELS}::test_python_model_uses_pools_and_reports_metadata",
        f"{RUNNER_UNIT_FORKS}::test_forked_child_has_default_signals",
        f"{RUNNER_LOCK}::test_a_killed_runner_releases_though_its_forked_child_lives",
    ),
    "a Python model uses Dagster Pipes": (
        f"{RUNNER_PYTHON_MODELS}::test_python_model_uses_pools_and_reports_metadata",
        f"{RUNNER_UNIT_PIPES_SINK}::test_closing_in_a_python_model_keeps_the_messages_open",
    ),
    "a Python model writes other messages, or the stream is fuzzed": (
        f"{UNIT_SESSION}::test_unnumbered_outcome_is_not_believed",
        f"{UNIT_SEQUENCE}::test_any_order_returns_each_message_once",
        f"{UNIT_SEQUENCE}::test_number_far_ahead_costs_no_memory",
        f"{RUNNER_UNIT_PIPES_SINK}::test_message_of_the_runners_own_type_is_refused",
    ),
    "HTML in comments, tags, owners, errors and queries": (
        f"{LOCAL_BROWSER}::test_html_in_texts_of_a_project_does_not_run",
    ),
    "a manifest that is damaged or hostile": (
        f"{UNIT_MANIFEST}::test_file_that_is_no_manifest_is_refused_with_path",
        f"{UNIT_ASSETS}::test_path_outside_the_project_is_not_a_code_reference",
    ),
    "terminal escape codes in errors and logs": (
        f"{RUNNER_UNIT_RECORDER}::test_log_messages_have_no_escape_codes",
        f"{RUNNER_UNIT_RECORDER}::test_errors_have_no_escape_codes",
    ),
}


def test_each_row_of_the_page_names_its_tests() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [line.split("|")[1].strip() for line in lines if line.startswith("|")]
    heads = {"fault", "situation", "what"}
    assert [row for row in rows if row not in heads and row.strip("-")] == [*TESTS]


def test_each_named_test_exists() -> None:
    names = {name for tests in TESTS.values() for name in tests}
    missing = [name for name in sorted(names) if not _exists(*name.split("::"))]
    assert missing == []


def _exists(file: str, test: str) -> bool:
    path = ROOT / "tests" / file
    return path.exists() and bool(re.search(rf"^def {test}\(", path.read_text(), re.MULTILINE))
