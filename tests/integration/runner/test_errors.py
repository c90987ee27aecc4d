"""Wrong input and absent services: the exit code, and what failed, where, and what to do."""

import base64
import shutil
import signal
import socket
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from integration.runner.harness import (
    HEAVY,
    ORDERS,
    PROJECTS,
    RUNNER,
    Finished,
    ProjectCopy,
    asset_key,
    extras,
)


def _error(run: Finished) -> str:
    """Return the paragraph on stderr, which the orchestrator must have received, too."""
    assert "Traceback" not in run.stderr
    _log, _error, paragraph = f"\n{run.stderr}".rpartition("\nError: ")
    paragraph = paragraph.removesuffix("\n")
    assert paragraph
    if run.messages:
        assert (run.end["outcome"], run.end["exit_code"], run.end["error"]) == (
            "error",
            run.code,
            paragraph,
        )
        assert run.messages[-1]["method"] == "closed"
    return paragraph


@pytest.fixture
def files(tmp_path: Path) -> ProjectCopy:
    """The project's files alone, never planned."""
    return ProjectCopy(Path(shutil.copytree(PROJECTS / "orders", tmp_path / "project")))


def test_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    run = ProjectCopy(tmp_path).run("--project-dir", "nowhere", extras=extras())

    assert run.code == 2
    assert f"There is no directory {tmp_path}/nowhere" in _error(run)


def test_a_directory_without_a_project(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    run = ProjectCopy(tmp_path / "empty").run(extras=extras())

    assert run.code == 2
    assert "no SQLMesh project in" in _error(run)
    assert "--project-dir" in _error(run)


@pytest.mark.parametrize("dialect", ["dialect: duckdb", ""])
def test_an_unknown_engine_is_named_first(files: ProjectCopy, dialect: str) -> None:
    (files.path / "config.yaml").write_text(
        "gateways: {local: {connection: {type: no_such_engine}}}\n"
        f"model_defaults: {{{dialect}}}\n"
    )

    run = files.run(extras=extras())

    assert run.code == 2
    where, _, more = _error(run).partition("The no_such_engine connection of the configuration is")
    assert where.startswith(f"Opening the SQLMesh project in {files.path} failed: ")
    assert ("Gateway 'local' can't be used" in where) is bool(dialect)
    assert more.startswith(" not valid: Unknown connection type 'no_such_engine'. Correct it")
    assert ("Default model SQL dialect is a required" in more) is not bool(dialect)
    assert run.params("log") == []


def test_a_gateway_that_is_not_configured(orders: ProjectCopy) -> None:
    run = orders.run("--gateway", "elsewhere", extras=extras())

    assert run.code == 2
    assert "elsewhere" in _error(run)


def test_a_database_that_does_not_exist_is_not_created(files: ProjectCopy) -> None:
    run = files.run(extras=extras())

    assert run.code == 3
    assert "sqlmesh plan prod" in _error(run)
    assert not files.database.exists()


def test_a_database_without_state_stays_as_it_is(files: ProjectCopy) -> None:
    files.sql("CREATE TABLE untouched (id INT)")

    run = files.run(extras=extras())

    assert run.code == 3
    assert "Nothing was ever planned" in _error(run)
    assert files.sql("SELECT table_name FROM information_schema.tables") == [("untouched",)]


def test_an_environment_that_was_never_planned_is_not_created(orders: ProjectCopy) -> None:
    run = orders.run("--environment", "dev", extras=extras())

    assert run.code == 3
    assert "Environment 'dev' was never planned (known: prod). Run `sqlmesh plan dev`." in _error(
        run
    )
    assert orders.sql("SELECT name FROM sqlmesh._environments") == [("prod",)]


def _with_a_plan_at_work(project: ProjectCopy, *, looks_every: int, at_most: int) -> ProjectCopy:
    with (project.path / "config.yaml").open("a") as config:
        config.write(
            f"run: {{environment_check_interval: {looks_every}, "
            f"environment_check_max_wait: {at_most}}}\n"
        )
    project.sql("UPDATE sqlmesh._environments SET finalized_ts = NULL")
    return project


def test_plan_at_work_is_waited_for_by_project_setting(orders: ProjectCopy) -> None:
    run = _with_a_plan_at_work(orders, looks_every=1, at_most=2).run(extras=extras())

    assert run.code == 3
    assert "or that plan broke off; the runner waited for" in _error(run)
    assert "(2 s). If no plan is running, run `sqlmesh plan prod` again." in _error(run)
    assert (
        len(
            [
                log
                for log in run.params("log")
                if "waiting, at most 2 s in all, checking again in 1 s" in log["message"]
            ]
        )
        == 2
    )


def test_waiting_for_a_plan_can_be_stopped(
    orders: ProjectCopy,
) -> None:
    _with_a_plan_at_work(orders, looks_every=3600, at_most=7200)

    with orders.start("run", extras=extras()) as runner:
        runner.wait_for_log("Environment 'prod' is being changed by plan")
        orders.plan()
        runner.signal(signal.SIGTERM)
        run = runner.finish()

    assert (run.code, run.end["outcome"], run.events("run_started")) == (143, "interrupted", [])
    assert orders.run(extras=extras([ORDERS])).code == 0


def test_doctor_does_not_wait_for_a_plan(orders: ProjectCopy) -> None:
    doctor = _with_a_plan_at_work(orders, looks_every=3600, at_most=7200).command("doctor")

    assert doctor.code == 3
    assert doctor.stdout.splitlines()[-1].endswith(
        "or that plan broke off. If no plan is running, run `sqlmesh plan prod` again."
    )


def test_unplanned_model_is_named_and_nothing_runs(
    orders: ProjectCopy,
) -> None:
    run = orders.run(extras=extras([ORDERS, '"orders"."marts"."brand_new"']))

    assert run.code == 3
    assert '"orders"."marts"."brand_new"' in _error(run)
    assert ORDERS not in _error(run)
    assert "sqlmesh plan prod" in _error(run)
    assert run.events("model_started") == []


def test_unplanned_model_may_be_left_out(
    orders: ProjectCopy,
) -> None:
    new = '"orders"."marts"."brand_new"'
    run = orders.run(extras=extras([ORDERS, new], unplanned="skip"))

    assert run.code == 0
    assert run.materialized.keys() == {asset_key(ORDERS)}
    assert run.skipped(new)["reason"] == "not_planned"
    assert run.skipped(new)["asset_key"] == asset_key(new)
    assert run.end["skipped"] == [new]
    assert any(
        f"'prod' does not hold {new}: left out" in log["message"] for log in run.params("log")
    )


def test_nothing_is_run_if_all_that_was_asked_for_is_left_out(orders: ProjectCopy) -> None:
    run = orders.run(extras=extras(['"orders"."marts"."brand_new"'], unplanned="skip"))

    assert (run.code, run.end["outcome"]) == (0, "nothing_to_do")
    assert run.materialized == {}


def test_state_of_a_newer_sqlmesh(orders: ProjectCopy) -> None:
    orders.sql("UPDATE sqlmesh._versions SET sqlmesh_version = '9.1.0'")

    run = orders.run(extras=extras())

    assert run.code == 3
    assert "9.1.0" in _error(run)


def test_a_postgres_that_does_not_listen(files: ProjectCopy) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        connection = (
            f"{{type: postgres, host: 127.0.0.1, port: {port}, user: u, password: p, database: d}}"
        )
        (files.path / "config.yaml").write_text(
            f"gateways: {{down: {{connection: {connection}}}}}\n"
            "model_defaults: {dialect: postgres}\n"
        )

        run = files.run(extras=extras())

    assert run.code == 4
    assert "Connection refused" in _error(run)


def test_a_duckdb_file_that_another_process_has_open(orders: ProjectCopy) -> None:
    holder = (
        "import duckdb, sys; connection = duckdb.connect(sys.argv[1]); "
        "print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(orders.database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"

        run = orders.run(extras=extras())

    assert run.code == 4
    assert "Another process has the DuckDB file open" in _error(run)


def test_a_signal_that_raises_ends_the_run_and_names_the_signal(orders: ProjectCopy) -> None:
    (orders.path / "registry_down").touch()

    run = orders.run(extras=extras())

    assert run.code == 1
    assert "the registry is down" in _error(run)
    assert "'announced' for 'marts.announced'" in _error(run)
    assert run.events("model_skipped") == [], "nobody knows what would have been due"


def test_other_protocol_version_names_side_to_upgrade(orders: ProjectCopy) -> None:
    run = orders.run(extras=extras(protocol_version=2))

    assert run.code == 2
    assert "version 2, this runner version 1. Upgrade sqlmesh-runner." in _error(run)


def test_pipes_variables_that_can_not_be_read(orders: ProjectCopy) -> None:
    run = orders.run(
        environ={
            "DAGSTER_PIPES_CONTEXT": base64.b64encode(
                zlib.compress(b'{"path": "/nowhere"}')
            ).decode()
        }
    )

    assert run.code == 2
    assert "Pipes variables can't be used" in _error(run)


def test_a_file_for_events_in_a_directory_that_does_not_exist(orders: ProjectCopy) -> None:
    run = orders.run("--events", "nowhere/events.jsonl")

    assert run.code == 2
    assert "nowhere/events.jsonl" in _error(run)


def test_debug_shows_the_traceback(orders: ProjectCopy) -> None:
    run = orders.run("--gateway", "elsewhere", "--debug")

    assert run.code == 2
    assert "Traceback" in run.stderr


def test_a_python_without_sqlmesh_is_said_with_its_path(
    orders: ProjectCopy, tmp_path: Path
) -> None:
    (tmp_path / "broken" / "sqlmesh").mkdir(parents=True)
    (tmp_path / "broken" / "sqlmesh" / "__init__.py").write_text(
        "raise TypeError('interpreted classes cannot inherit from compiled')"
    )

    run = orders.run(extras=extras(), environ={"PYTHONPATH": str(tmp_path / "broken")})

    assert run.code == 2
    assert "interpreted classes cannot inherit from compiled" in _error(run)
    assert sys.executable in _error(run)


@pytest.mark.parametrize(
    "arguments",
    [["run", "--start"], ["run", "--end"], ["audit", "--start"], ["audit", "--execution-time"]],
    ids=" ".join,
)
def test_a_time_that_is_none(orders: ProjectCopy, arguments: list[str]) -> None:
    run = orders.command(*arguments, "garbage", extras=extras())

    assert run.code == 2
    assert f"{arguments[-1]} 'garbage' is not a valid time" in _error(run)


def test_a_manifest_of_a_model_with_invalid_sql_names_its_file(files: ProjectCopy) -> None:
    (files.path / "models" / "bad.sql").write_text(
        "MODEL (name marts.bad, kind FULL); SELECT FROM WHERE"
    )

    made = files.command("manifest")

    assert (made.code, made.stdout) == (2, "")
    assert f"{files.path}/models/bad.sql" in _error(made)


def test_a_manifest_where_the_projects_own_code_breaks(files: ProjectCopy) -> None:
    (files.path / "signals" / "broken.py").write_text("{}['missing']")

    made = files.command("manifest")

    assert made.code == 2
    assert "Reading the project's files failed: KeyError: 'missing'" in _error(made)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gateway", "nowhere"], "Missing gateway with name 'nowhere'"),
        (["--project-dir", "nowhere"], "There is no directory"),
        (["--project-dir", "models"], "There is no SQLMesh project in"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_manifest_of_what_is_not_there(
    files: ProjectCopy, arguments: list[str], said: str
) -> None:
    made = files.command("manifest", *arguments)

    assert (made.code, made.stdout) == (2, "")
    assert said in _error(made)


def test_a_manifest_is_utf_8_whatever_the_locale(files: ProjectCopy) -> None:
    (files.path / "models" / "named.sql").write_text(
        "MODEL (name marts.named, description 'Größe'); SELECT 1 AS id", encoding="utf-8"
    )

    made = files.command(
        "manifest",
        "-o",
        "made.json",
        environ={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    )

    assert made.code == 0, made.stderr
    assert "Größe" in (files.path / "made.json").read_text(encoding="utf-8")


def test_manifest_that_cannot_be_written_leaves_no_draft(files: ProjectCopy) -> None:
    made = files.command("manifest", "-o", "models")

    assert made.code == 2
    assert "Give --output a file that may be written" in _error(made)
    assert list(files.path.glob(".models*")) == []


def test_wrong_usage_exits_with_two(orders: ProjectCopy) -> None:
    assert orders.command("run", "--no-such-option").code == 2


def test_neither_help_nor_version_imports_sqlmesh(tmp_path: Path) -> None:
    (tmp_path / "sqlmesh").mkdir()
    (tmp_path / "sqlmesh" / "__init__.py").write_text("raise RuntimeError('imported')")
    for option in ("--help", "--version"):
        done = subprocess.run(
            [*RUNNER, option],
            env={"PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout


def test_doctor_finds_nothing_wrong_with_a_planned_project(orders: ProjectCopy) -> None:
    doctor = orders.command("doctor")

    assert doctor.code == 0
    assert {line.split()[0] for line in doctor.stdout.splitlines()} == {"ok"}
    assert "plan " in doctor.stdout


def test_doctor_names_first_problem_with_runs_exit_code(orders: ProjectCopy) -> None:
    doctor = orders.command("doctor", "--environment", "dev")

    assert doctor.code == 3
    assert doctor.stdout.splitlines()[-1].startswith("problem  Environment 'dev' was never planned")


def test_a_projects_dotenv_can_not_take_the_messages_away(orders: ProjectCopy) -> None:
    (orders.path / ".env").write_text(
        "DAGSTER_PIPES_MESSAGES=broken\nDAGSTER_PIPES_CONTEXT=broken\n"
    )

    run = orders.run(extras=extras([HEAVY]))

    assert (run.code, run.messages[-1]["method"]) == (0, "closed")
