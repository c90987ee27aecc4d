"""The environment variables that a project's files read, found without running them."""

from pathlib import Path

import pytest

from sqlmesh_runner.variables.expected import unset_variables
from sqlmesh_runner.variables.project import ProjectVariable, project_variables
from sqlmesh_runner.variables.python import parse_python
from sqlmesh_runner.variables.text import parse_config, parse_text


@pytest.mark.parametrize(
    ("source", "read"),
    [
        ("import os\nos.environ['A']", {"A": True}),
        ("import os\nos.environ['A'] = 'x'", {}),
        ("import os\nos.environ.get('A')", {"A": False}),
        ("import os\nos.getenv('A', 'x')", {"A": False}),
        ("import os\n'A' in os.environ", {"A": False}),
        ("import os as o\no.environ['A']", {"A": True}),
        ("from os import environ as e, getenv\ne['A']; getenv('B')", {"A": True, "B": False}),
        ("import os\nNAME = 'A'\ndef f():\n    return os.environ[NAME]", {"A": True}),
        ("import os\ndef f(name):\n    return os.environ[name]", {}),
        ("env_var('A'); env_var('B', 'x')", {"A": True, "B": False}),
        ("{}['A']; settings.get('B')", {}),
        ("this is no Python", {}),
    ],
)
def test_python_reads(source: str, read: dict[str, bool]) -> None:
    assert parse_python(source).variables == read


def test_jinja_reads() -> None:
    text = """
        # user: {{ env_var('OLD') }}
        host: {{ env_var('HOST') }}
        user: {{ env_var("PG_USER", 'me') }}
    """
    assert parse_text(text) == {"HOST": True, "PG_USER": False}


CONFIG = """
gateways:
  local:
    connection:
      type: duckdb

  cloud:
    connection:
      password: {{ env_var('CLOUD_PASSWORD') }}
    state_connection:
      type: postgres
  # old:
  spare: {connection: {type: postgres, password: "{{ env_var('SPARE_PASSWORD') }}"}}
default_gateway: local
variables:
  region: {{ env_var('REGION', 'EU') }}
"""


@pytest.mark.parametrize(
    ("gateway", "also", "read"),
    [
        (None, "", {"REGION": False}),
        ("cloud", "", {"REGION": False, "CLOUD_PASSWORD": True}),
        ("spare", "", {"REGION": False, "SPARE_PASSWORD": True}),
        (None, "Gateway 'cloud' failed", {"REGION": False, "CLOUD_PASSWORD": True}),
    ],
)
def test_config_reads_variables_of_gateway_in_use(
    gateway: str | None, also: str, read: dict[str, bool]
) -> None:
    assert parse_config(CONFIG, gateway=gateway, also=also) == read


def test_project_reads_follow_imports_but_not_other_scripts(tmp_path: Path) -> None:
    files = {
        "config.yaml": CONFIG,
        "definitions.py": "import os\nos.environ['DAGSTERS']",
        "macros/region.py": "from helpers.regions import default\nfrom . import near",
        "macros/near.py": "import os\nos.environ['NEAR']",
        "helpers/__init__.py": "",
        "helpers/regions.py": "import os\nos.environ['REGION']\nos.environ.get('HELPED')",
        "models/m.sql": "SELECT '{{ env_var('IN_SQL') }}'",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert project_variables([tmp_path], gateway=None) == [
        ProjectVariable("HELPED", required=False, path="helpers/regions.py", project_dir_index=0),
        ProjectVariable("IN_SQL", required=True, path="models/m.sql", project_dir_index=0),
        ProjectVariable("NEAR", required=True, path="macros/near.py", project_dir_index=0),
        ProjectVariable("REGION", required=True, path="config.yaml", project_dir_index=0),
    ]


def test_unset_variable_warns_if_required_or_set_here() -> None:
    def facts(*, required: bool = False, elsewhere: bool = False) -> dict[str, object]:
        return {"required": required, "path": "macros/m.py", "set_in_orchestrator": elsewhere}

    expected = {
        "REGION": facts(elsewhere=True),
        "TENANT": facts(required=True),
        "DEBUG": facts(),
        "SET": facts(required=True, elsewhere=True),
    }
    (warning, grave), (info, others) = unset_variables(expected, {"SET": ""})
    assert (warning, info) == ("WARNING", "INFO")
    assert "REGION (read in macros/m.py), TENANT (read in macros/m.py)" in grave
    assert others == "Not set, and read with a default: DEBUG."
    assert list(unset_variables(expected, dict.fromkeys(expected, ""))) == []
