"""SQLMesh's own selector gives what `tests/contract/model_selectors.json` says it gives."""

import json
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import pytest

if not version("sqlmesh").startswith("0.236."):
    pytest.skip("the selections are those of SQLMesh 0.236", allow_module_level=True)

from contract.model_selectors import PATH, expected, models
from sqlmesh.core.config import Config, DuckDBConnectionConfig, GatewayConfig, ModelDefaultsConfig
from sqlmesh.utils.dag import DAG

from sqlmesh_runner.sqlmesh_api.run_context import RunContext


def test_golden_selections_are_what_sqlmesh_makes_of_them() -> None:
    assert expected() == json.loads(PATH.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def context() -> RunContext:
    connection = DuckDBConnectionConfig(catalogs={"shop": ":memory:"})
    config = Config(
        gateways={"local": GatewayConfig(connection=connection)},
        model_defaults=ModelDefaultsConfig(dialect="duckdb"),
    )
    return RunContext(config=config, load=False)


def test_selectors_of_the_command_line_give_the_same(context: RunContext) -> None:
    snapshots: Any = [
        SimpleNamespace(name=fqn, model=model, is_model=True) for fqn, model in models().items()
    ]
    found: dict[str, list[str] | None] = {}
    for text in expected()["expected"]:
        try:
            found[text] = sorted(context.match_models(text, snapshots))
        except Exception:  # noqa: BLE001 - as in `expected`
            found[text] = None

    assert found == expected()["expected"]


def test_fqn_with_characters_of_selectors_is_a_name(context: RunContext) -> None:
    name = '"shop"."a"."x + y"'
    selector = context._new_selector(models={name: None}, dag=DAG())

    assert selector.expand_model_selections([name]) == {name}
