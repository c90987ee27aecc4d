"""A project is opened with the settings, and from the directory, of SQLMesh's command line."""

import json
from pathlib import Path

import pytest
from integration.runner.harness import RUN_AT, SQLMESH, ProjectCopy, extras

UNUSED_GATEWAYS = """\
  cloud: {connection: {type: snowflake, account: a, user: u, password: p, database: d}}
  keyless: {connection: {type: bigquery, method: service-account, keyfile: /nowhere.json}}
  portless:
    connection: {type: postgres, host: h, user: u, password: p, database: d,
                 port: "{{ env_var('PORT') }}"}
default_gateway: local
"""


def _with_gateways(project: ProjectCopy) -> ProjectCopy:
    config = project.path / "config.yaml"
    text = config.read_text().replace("model_defaults:", f"{UNUSED_GATEWAYS}model_defaults:")
    config.write_text(text)
    return project


@pytest.mark.parametrize(
    ("command", "arguments"), [("manifest", ()), ("run", ("--execution-time", RUN_AT))]
)
def test_unused_gateways_need_no_driver_and_no_credentials(
    orders: ProjectCopy, command: str, arguments: tuple[str, ...]
) -> None:
    finished = _with_gateways(orders).command(command, *arguments)
    assert finished.code == 0
    assert "not valid" not in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize(
    ("gateway", "reason"),
    [
        pytest.param(
            "cloud",
            "The driver for snowflake is not installed (No module named 'snowflake')",
            marks=pytest.mark.skipif(
                SQLMESH < (0, 200), reason="SQLMesh did not tell a missing driver apart then"
            ),
        ),
        ("portless", "The postgres connection of the configuration is not valid: port: Input"),
    ],
)
def test_unusable_gateway_in_use_is_one_sentence(
    orders: ProjectCopy, gateway: str, reason: str
) -> None:
    run = _with_gateways(orders).command("run", "--gateway", gateway)
    assert run.code == 2
    assert reason in run.stderr
    assert "Traceback" not in run.stderr
    assert "pip install 'sqlmesh[snowflake]'" in run.stderr or gateway == "portless"


@pytest.mark.skipif(SQLMESH < (0, 220), reason="SQLMesh had one virtual layer for all gateways")
def test_models_on_an_unusable_gateway_are_named(tmp_path: Path) -> None:
    project = ProjectCopy(tmp_path / "project")
    (project.path / "models").mkdir(parents=True)
    config = project.path / "config.yaml"
    config.write_text(TWO_GATEWAYS)
    for name, gateway in (("near", ""), ("far", ", gateway cloud")):
        model = f"MODEL (name a.{name}, kind FULL, start '2026-01-01'{gateway}); SELECT 1 AS id"
        (project.path / "models" / f"{name}.sql").write_text(model)
    project.plan()
    config.write_text(TWO_GATEWAYS.replace("duckdb, database: far.db", "snowflake, account: a"))

    run = project.run(extras=extras(['"far"."a"."far"']))

    assert (run.code, run.end["outcome"]) == (2, "error")
    gateway = """Gateway 'cloud', which "far"."a"."far" needs"""
    assert run.end["error"].startswith(f"{gateway}, can't be used: The driver for snowflake is not")


TWO_GATEWAYS = """\
gateway_managed_virtual_layer: true
default_gateway: local
gateways:
  local: {connection: {type: duckdb, database: near.db}}
  cloud: {connection: {type: duckdb, database: far.db}}
model_defaults: {dialect: duckdb}
"""


@pytest.fixture
def planned_from_above(orders: ProjectCopy) -> ProjectCopy:
    """Return a project whose database is where `sqlmesh -p project plan` makes it."""
    orders.database.rename(orders.path.parent / orders.database.name)
    return orders


def test_missing_relative_database_is_found_and_named(
    planned_from_above: ProjectCopy, tmp_path: Path
) -> None:
    above, elsewhere = planned_from_above.path.parent, tmp_path / "elsewhere"
    elsewhere.mkdir()
    asked = ("doctor", "--project-dir", str(planned_from_above.path))
    doctor = ProjectCopy(elsewhere).command(*asked)
    assert doctor.code == 3
    assert f"There is one in {above}" in doctor.stdout
    assert f"set --working-directory (`working_directory` in Dagster) to {above}" in doctor.stdout

    set_to = ("--working-directory", str(above))
    assert ProjectCopy(elsewhere).command(*asked, *set_to).code == 0
    assert ProjectCopy(above).command(*asked).code == 0, "the current directory, as SQLMesh"


def test_missing_database_names_where_it_was_looked_for(
    orders: ProjectCopy, tmp_path: Path
) -> None:
    orders.database.rename(tmp_path / "gone")
    doctor = orders.command("doctor")
    assert doctor.code == 3
    assert f"there is none in {orders.path}, {orders.path.parent}" in doctor.stdout
    assert "set --working-directory" in doctor.stdout


CONFIGURATIONS = """\
import os
from sqlmesh.core.config import Config, DuckDBConnectionConfig, GatewayConfig, ModelDefaultsConfig

def _config(environment):
    return Config(
        gateways={"local": GatewayConfig(connection=DuckDBConnectionConfig(database="d.duckdb"))},
        model_defaults=ModelDefaultsConfig(dialect="duckdb"),
        default_target_environment=environment,
    )

config = _config(os.environ.get("TARGET", "unset"))
staging = _config("staging")
"""


@pytest.mark.skipif(SQLMESH < (0, 220), reason="SQLMesh had no --dotenv then")
def test_config_and_dotenv_are_as_on_sqlmeshs_command_line(tmp_path: Path) -> None:
    project = ProjectCopy(tmp_path / "project")
    project.path.mkdir()
    (project.path / "config.py").write_text(CONFIGURATIONS)
    (project.path / ".env").write_text("TARGET=default\n")
    (tmp_path / "other.env").write_text("TARGET=other\n")

    def environment(*arguments: str, **options: dict[str, str]) -> str:
        finished = project.command("manifest", *arguments, **options)
        assert finished.code == 0, finished.stderr
        name: str = json.loads(finished.stdout)["project"]["environment"]
        return name

    dotenv = str(tmp_path / "other.env")
    assert environment() == "default"
    assert environment("--config", "staging") == "staging"
    assert environment("--dotenv", dotenv) == "other"
    assert environment(environ={"SQLMESH_DOTENV_PATH": dotenv}) == "other"

    missing = project.command("manifest", "--dotenv", "nowhere.env")
    assert missing.code == 2
    assert f"There is no file {project.path / 'nowhere.env'}" in missing.stderr
