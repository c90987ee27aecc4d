"""The code blocks of README and documentation that are the runner's and SQLMesh's."""

import re
from pathlib import Path

import pytest
from documentation import Block, blocks, calls, check_options
from sqlmesh.cli.main import cli
from sqlmesh.core.config import Config, load_configs
from sqlmesh.core.dialect import Model, parse

from sqlmesh_runner.cli import _parser

SQL = blocks("sql")
CONFIGS = [block for block in blocks("yaml") if block.title == "config.yaml"]


def test_documented_commands_of_the_runner_parse(capsys: pytest.CaptureFixture[str]) -> None:
    documented = calls("sqlmesh-runner")
    assert documented
    for where, arguments in documented:
        try:
            _parser().parse_args(arguments)
        except SystemExit:
            pytest.fail(f"{where}: {capsys.readouterr().err}")


def test_documented_commands_of_sqlmesh_exist() -> None:
    documented = calls("sqlmesh")
    assert documented
    for where, arguments in documented:
        check_options(cli, arguments, where)


@pytest.mark.parametrize("block", CONFIGS, ids=str)
def test_config_blocks_are_loaded_by_sqlmesh(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in re.findall(r"env_var\('(\w+)'\)", block.text):
        monkeypatch.setenv(variable, variable.lower())
    (tmp_path / "config.yaml").write_text(block.text)
    configs = load_configs(None, Config, [tmp_path])
    assert configs[tmp_path].gateways


@pytest.mark.parametrize("block", SQL, ids=str)
def test_sql_blocks_are_parsed_by_sqlmesh(block: Block) -> None:
    model, query = parse(block.text, default_dialect="duckdb")
    assert isinstance(model, Model)
    assert query.named_selects
