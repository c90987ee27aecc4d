"""What a person in a shell sees: `doctor`, variables that are missing, help, pipes."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest
from integration.runner.harness import RUNNER, TOTALS, ProjectCopy


def test_every_command_says_what_it_does_and_what_its_exit_codes_mean() -> None:
    for command in ("manifest", "run", "audit", "doctor"):
        text = subprocess.run([*RUNNER, command, "--help"], capture_output=True, text=True, check=True).stdout
        assert "exit codes:\n  0    done, or nothing to do" in text
        assert text.split("\n\n")[1].endswith(".")


def test_a_model_may_be_selected_by_its_name(orders: ProjectCopy) -> None:
    run = orders.run("--select", "marts.totals", "--events", "-")

    assert run.code == 0
    assert {event["model"] for event in map(json.loads, run.stdout.splitlines()) if event["type"] == "model_materialized"} == {TOTALS}


def test_a_reader_of_events_that_goes_away_stops_nothing(orders: ProjectCopy) -> None:
    command = f"{shlex.join(RUNNER)} run --execution-time 2026-01-05 --events - | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=orders.path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr.count("Nobody reads the events any more") == 1
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_all_commands_take_the_projects_default_environment(orders: ProjectCopy) -> None:
    config = orders.path / "config.yaml"
    config.write_text(config.read_text() + "\ndefault_target_environment: staging\n")

    assert '"environment": "staging"' in orders.command("manifest").stdout
    assert "'staging' was never planned" in orders.command("doctor").stdout


ASKS = "gateways: {main: {connection: {type: duckdb, database: \"{{ env_var('WAREHOUSE_DB') }}\"}}}\n# {{ env_var('OLD') }} {{ env_var('A', 'b') }}\n"


@pytest.mark.parametrize("command", ["run", "audit", "doctor"])
def test_a_variable_that_the_configuration_asks_for_and_that_is_not_set_is_named(orders: ProjectCopy, command: str) -> None:
    config = orders.path / "config.yaml"
    config.write_text(ASKS + "model_defaults: {dialect: duckdb, start: 2026-01-01}\n")

    run = orders.command(command)

    assert run.code == 3
    told = run.stdout + run.stderr
    assert f"{config} asks for WAREHOUSE_DB, which is not set here.\nSet it, and if Dagster starts the runner, have it passed on" in told
    assert "asks for OLD" not in told


def _installed_too(folder: Path, name: str, version: str) -> dict[str, str]:
    metadata = folder / f"{name}-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return {"PYTHONPATH": str(folder)}


def test_doctor_warns_of_dagster_beside_sqlmesh(orders: ProjectCopy, tmp_path: Path) -> None:
    doctor = orders.command("doctor", environ=_installed_too(tmp_path / "site", "dagster", "1.13.0"))

    assert doctor.code == 0
    assert "warning  versions: dagster beside SQLMesh" in doctor.stdout
    assert doctor.stdout.splitlines()[-1].startswith("ok       ready")


def test_doctor_does_not_call_a_project_ready_whose_duckdb_fails_audits(orders: ProjectCopy, tmp_path: Path) -> None:
    doctor = orders.command("doctor", environ=_installed_too(tmp_path / "site", "duckdb", "2.0.0"))

    assert doctor.code == 2
    assert doctor.stdout.splitlines()[-1].startswith("problem  DuckDB 2.0.0 fails SQLMesh's audits")
