"""What a person in a shell sees: `doctor`, variables that are missing, help, pipes."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest
from integration.runner.harness import AFTER, ORDERS, RUNNER, TOTALS, VIEW, ProjectCopy


def test_help_describes_command_and_exit_codes() -> None:
    for command in ("manifest", "run", "audit", "doctor"):
        text = subprocess.run(
            [*RUNNER, command, "--help"], capture_output=True, text=True, check=True
        ).stdout
        assert "exit codes:\n  0    done, or nothing to do" in text
        assert text.split("\n\n")[1].endswith(".")


def test_a_model_may_be_selected_by_its_name(orders: ProjectCopy) -> None:
    run = orders.run("--select", "marts.totals", "--events", "-")

    assert run.code == 0
    assert {
        event["model"]
        for event in map(json.loads, run.stdout.splitlines())
        if event["type"] == "model_materialized"
    } == {TOTALS}


def test_models_may_be_selected_by_sqlmesh_selectors(orders: ProjectCopy) -> None:
    selectors = ("*_view", "+marts.after_announced & ^marts.announced", "staging.*")
    run = orders.run("--select", *selectors, "--events", "-")

    assert run.code == 0, run.stderr
    events = map(json.loads, run.stdout.splitlines())
    reported = {event["model"] for event in events if event["type"].startswith("model_")}
    assert reported == {ORDERS, VIEW, AFTER}


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("mart.*", "The selector 'mart.*' matches no model of environment 'prod'"),
        ("marts.totals &", "Reading the selector 'marts.totals &' failed: Expected model name"),
    ],
)
def test_selector_that_cannot_work_is_an_error(
    orders: ProjectCopy, selector: str, expected: str
) -> None:
    audit = orders.command("audit", "--select", "marts.totals", selector)

    assert audit.code == 2
    assert expected in audit.stderr


def test_a_reader_of_events_that_goes_away_stops_nothing(orders: ProjectCopy) -> None:
    run = f"{shlex.join(RUNNER)} run --execution-time 2026-01-05 --events -"
    command = f"{run} | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=orders.path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr.count("The reader of the events has gone") == 1
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_all_commands_take_the_projects_default_environment(orders: ProjectCopy) -> None:
    config = orders.path / "config.yaml"
    config.write_text(config.read_text() + "\ndefault_target_environment: staging\n")

    assert '"environment": "staging"' in orders.command("manifest").stdout
    assert "'staging' was never planned" in orders.command("doctor").stdout


@pytest.mark.parametrize("command", ["run", "audit", "doctor"])
def test_environment_may_follow_the_command(orders: ProjectCopy, command: str) -> None:
    run = orders.command(command, "dev")

    assert run.code == 3
    assert "Environment 'dev' was never planned (known: prod)" in run.stdout + run.stderr


ASKS = """\
gateways: {main: {connection: {type: duckdb, database: "{{ env_var('WAREHOUSE_DB') }}"}}}
# {{ env_var('OLD') }} {{ env_var('A', 'b') }}
"""


@pytest.mark.parametrize("command", ["run", "audit", "doctor"])
def test_unset_variable_of_configuration_is_named(orders: ProjectCopy, command: str) -> None:
    config = orders.path / "config.yaml"
    config.write_text(ASKS + "model_defaults: {dialect: duckdb, start: 2026-01-01}\n")

    run = orders.command(command)

    assert run.code == 3
    output = run.stdout + run.stderr
    assert (
        f"{config} requires WAREHOUSE_DB, which is not set here.\n"
        "Set them; if Dagster starts the runner, its launcher must pass them on" in output
    )
    assert "requires OLD" not in output


def test_variable_of_unused_gateway_is_not_named(orders: ProjectCopy) -> None:
    config = orders.path / "config.yaml"
    spare = "  spare: {connection: {type: duckdb, database: \"{{ env_var('SPARE_DB') }}\"}}\n"
    text = config.read_text().replace("gateways:\n", f"gateways:\n{spare}", 1)
    config.write_text(f"{text}\ndefault_gateway: local\n")

    run = orders.command("run", "--environment", "never")

    assert run.code == 3
    assert "'never' was never planned" in run.stderr
    assert "SPARE_DB" not in run.stderr


def test_doctor_names_variables_that_are_not_set(orders: ProjectCopy) -> None:
    macro = orders.path / "macros" / "region.py"
    macro.parent.mkdir()
    macro.write_text("import os\nREGION = os.environ.get('REGION', '')\nos.environ['TENANT']\n")

    lines = orders.command("doctor").stdout.splitlines()
    assert (
        "warning  variables: TENANT is not set here; macros/region.py reads it and has no default"
        in lines
    )
    assert (
        "ok       variables: REGION is not set here; macros/region.py reads it and has a default"
        in lines
    )

    doctor = orders.command("doctor", environ={"REGION": "EU", "TENANT": "shop"})
    assert "ok       variables: REGION, TENANT: all set" in doctor.stdout.splitlines()


def _installed_too(folder: Path, name: str, version: str) -> dict[str, str]:
    metadata = folder / f"{name}-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return {"PYTHONPATH": str(folder)}


def test_doctor_warns_of_dagster_beside_sqlmesh(orders: ProjectCopy, tmp_path: Path) -> None:
    doctor = orders.command(
        "doctor", environ=_installed_too(tmp_path / "site", "dagster", "1.13.0")
    )

    assert doctor.code == 0
    assert "warning  versions: dagster beside SQLMesh" in doctor.stdout
    assert doctor.stdout.splitlines()[-1].startswith("ok       ready")


def test_doctor_refuses_duckdb_that_fails_audits(orders: ProjectCopy, tmp_path: Path) -> None:
    doctor = orders.command("doctor", environ=_installed_too(tmp_path / "site", "duckdb", "2.0.0"))

    assert doctor.code == 2
    assert doctor.stdout.splitlines()[-1].startswith("problem  DuckDB 2.0.0 fails SQLMesh's audits")
