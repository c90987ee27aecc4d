"""Each code block of README and documentation is run, loaded or parsed.

The runner's side is in `tests/unit/runner/test_documentation.py`, types are in `make check`.
"""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml  # type: ignore[import-untyped]
from dagster._cli import create_dagster_cli
from dagster_dg_cli.cli import create_dg_cli
from documentation import (
    PAGES,
    ROOT,
    Block,
    as_module,
    blocks,
    calls,
    check_options,
    commands,
    pages_with,
    simple_commands,
)
from unit.orchestrator.shop import audit, manifest, model

import dagster_sqlmesh_pipes
from dagster_sqlmesh_pipes import sqlmesh_definitions_factory

# Dagster's own, where it parses YAML.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")

MODELS = [
    model("staging.events", tags=["daily"]),
    model("marts.orders", audits=[audit("not_null")]),
    model("marts.old_orders"),
]
SHOP = manifest(MODELS)
MANIFESTS = {
    "manifest.json": SHOP,
    "manifest/manifest.json": SHOP,
    "staging.json": manifest(MODELS, project={"environment": "staging", "dialect": "duckdb"}),
    "finance/.sqlmesh-pipes/manifest.json": manifest([model("ledger.entries")]),
    "shop/.sqlmesh-pipes/manifest.json": SHOP,
    "sqlmesh_project/.sqlmesh-pipes/manifest.json": SHOP,
    "warehouse/.sqlmesh-pipes/manifest.json": SHOP,
}
"""The projects that pages speak of."""

LANGUAGES = {"console", "dockerfile", "json", "python", "sql", "text", "yaml"}
"""`text` is output and drawings; tests/acceptance/docker builds the `dockerfile`."""

TITLES = {
    "compose.yaml",
    "config.yaml",
    "dagster.yaml",
    "defs.yaml",
    "run config",
    "sources.yml",  # tests/acceptance/beside
}

CHECKED = {"make", "dagster", "dg", "sqlmesh", "sqlmesh-runner"}
"""Programs of which the arguments are parsed, here or in the runner's environment."""

UNCHECKED = {
    "cd": "the shell's own",
    "cp": "every system has it; its files are looked for",
    "export": "the shell's own",
    "docker": "needs an engine: tests/acceptance/docker builds these images",
    "jq": "its filter is no concern of ours",
    "kind": "needs a cluster",
    "kubectl": "needs a cluster: tests/acceptance/kubernetes applies these files",
    "kustomize": "needs a cluster",
    "mkdir": "every system has it",
    "pip": "tests/quickstart.py installs",
    "python": "the script of the example, which `make demo` runs",
    "python3": "tests/quickstart.py makes these environments",
}
"""Programs of which the arguments are not parsed, and why."""


FOREIGN_MESSAGES = {
    'namespaces "…" not found',
    "CreateContainerConfigError",
    "ImagePullBackOff",
    "StartError",
    "exceeded quota",
    "max-buffer-size option is only supported with …",
    "pods is forbidden: User … cannot create resource",
}
"""Messages of Docker and Kubernetes, which errors of ours contain."""


def titled(title: str) -> list[Any]:
    """Return the YAML blocks that show a file, as parameters."""
    found = [block for block in blocks("yaml") if block.title == title]
    return [pytest.param(block, id=str(block)) for block in found]


def in_language(language: str) -> list[Any]:
    return [pytest.param(block, id=str(block)) for block in blocks(language)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change into a folder with the projects' manifests."""
    for name, content in MANIFESTS.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_block_has_a_language_that_is_checked() -> None:
    assert [str(block) for block in blocks() if block.language not in LANGUAGES] == []
    assert [str(block) for block in blocks("yaml") if block.title not in TITLES] == []


@pytest.mark.parametrize("page", pages_with("python"))
def test_python_blocks_run(page: str, folder: Path) -> None:
    """In order: a block may use what those above it on its page define."""
    text = as_module(pages_with("python")[page])
    text = text.replace('manifest_path="/', f'manifest_path="{folder}/')
    found: dict[str, Any] = {"__file__": str(folder / "definitions.py"), "__name__": "documented"}
    exec(compile(text, ROOT / page, "exec"), found)
    for value in found.values():
        if isinstance(value, dg.Definitions):
            dg.Definitions.validate_loadable(value)


@pytest.mark.parametrize("block", titled("defs.yaml"))
def test_defs_yaml_blocks_make_assets(
    block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in re.findall(r"\{\{ env\.(\w+) \}\}", block.text):
        monkeypatch.setenv(variable, variable.lower())
    of_component = folder / "project/src/location/defs/warehouse"  # as `dg` lays projects out
    of_component.mkdir(parents=True)
    monkeypatch.chdir(of_component)
    content = yaml.safe_load(block.text)
    package, _, name = content["type"].rpartition(".")
    assert package == dagster_sqlmesh_pipes.__name__
    component = getattr(dagster_sqlmesh_pipes, name)
    made = component.resolve_from_yaml(yaml.safe_dump(content["attributes"]))
    defs = made.build_defs_from_state(None, folder / "manifest.json")
    assert len(list(defs.resolve_all_asset_specs())) >= len(MODELS)


@pytest.mark.parametrize("block", titled("dagster.yaml"))
def test_dagster_yaml_blocks_make_an_instance(block: Block, tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text(block.text)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.get_runs_count() == 0


@pytest.mark.parametrize("block", titled("run config"))
def test_run_config_blocks_fit_the_job(block: Block, folder: Path) -> None:
    defs = sqlmesh_definitions_factory(project_dir="warehouse", allow_restate=True)
    job = defs.resolve_job_def("sqlmesh_adaptive_schedule_job")
    assert dg.validate_run_config(job, yaml.safe_load(block.text))


@pytest.mark.parametrize("block", titled("compose.yaml"))
def test_compose_blocks_are_valid(block: Block, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(block.text)
    command = [Path(sys.executable).with_name("check-jsonschema"), tmp_path / "compose.yaml"]
    checked = subprocess.run(
        [*command, "--builtin-schema", "vendor.compose-spec"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("block", in_language("json"))
def test_json_blocks_are_json(block: Block) -> None:
    assert json.loads(block.text)


@pytest.mark.parametrize("block", in_language("console"))
def test_console_blocks_are_valid_in_a_shell(block: Block) -> None:
    script = "\n".join(commands(block))
    assert script
    checked = subprocess.run(
        ["bash", "-n"], input=script, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("block", in_language("console"))
def test_console_blocks_call_programs_that_are_checked(block: Block) -> None:
    programs = {Path(words[0]).name for words in simple_commands(block)}
    assert programs <= {*CHECKED, *UNCHECKED}


def test_documented_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for where, arguments in calls("make"):
        assert set(arguments) <= targets, where


def test_documented_commands_of_dagster_exist() -> None:
    for where, arguments in calls("dagster"):
        check_options(create_dagster_cli(), arguments, where)  # type: ignore[no-untyped-call]  # Dagster's
    for where, arguments in calls("dg"):
        check_options(create_dg_cli(), arguments, where)  # type: ignore[no-untyped-call]  # Dagster's


def test_files_that_commands_name_exist() -> None:
    named = [(str(block), path) for block in blocks("console") for path in paths_in(block)]
    assert named
    # Passwords are made from their examples.
    known = [path for _, path in named if path.exists() or Path(f"{path}.example").exists()]
    assert [(where, path) for where, path in named if path not in known] == []


def paths_in(block: Block) -> Iterator[Path]:
    """Yield the paths in a block that are this repository's, as their first part says."""
    directory = ROOT
    for program, *arguments in simple_commands(block):
        own = [word for word in arguments if (directory / word.split("/")[0]).is_dir()]
        paths = [directory / word for word in own if not word.startswith(".")]
        yield from paths
        if program == "cd" and paths:
            directory = paths[0]


def quoted_messages() -> Iterator[str]:
    """Yield the messages that tables of errors quote; `…` stands for what varies."""
    for page in PAGES:
        heading = None
        for line in page.read_text(encoding="utf-8").splitlines():
            first = line.split("|")[1].strip() if line.startswith("|") else None
            heading = first if heading is None else heading if first is not None else None
            if first is not None and heading in {"message", "the step says"}:
                yield from re.findall(r"`([^`]+)`", first)


def texts_in_code() -> str:
    sources = [
        path for side in ("orchestrator", "runner") for path in (ROOT / side / "src").rglob("*.py")
    ]
    nodes = [node for path in sources for node in ast.walk(ast.parse(path.read_text()))]
    return "\n".join(
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def test_quoted_messages_are_in_the_code() -> None:
    texts = texts_in_code()
    quoted = set(quoted_messages()) - FOREIGN_MESSAGES
    assert len(quoted) > 20
    parts = {(message, part.strip(" .")) for message in quoted for part in message.split("…")}
    assert [message for message, part in parts if part not in texts] == []
