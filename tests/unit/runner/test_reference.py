"""The reference pages of the runner's side name what the code has."""

import json
import re

import pytest
from reference import first_names, load_generator, rows, section

from sqlmesh_runner.errors import EXIT_DONE, EXIT_FAILED, RunnerError
from sqlmesh_runner.manifest import schema


def test_command_line_page_is_current() -> None:
    """`make reference` writes it."""
    generator = load_generator("generate_cli")
    assert generator.PAGE.read_text(encoding="utf-8") == generator.page()


@pytest.mark.parametrize(
    ("heading", "entry"),
    [
        ("`project`", schema.ProjectEntry),
        ("A model", schema.ModelEntry),
        ("An audit of a model", schema.AuditEntry),
        ("A standalone audit", schema.StandaloneAuditEntry),
        ("An environment variable", schema.EnvironmentVariableEntry),
    ],
)
def test_manifest_page_has_every_key(heading: str, entry: type) -> None:
    assert sorted(first_names("manifest", heading)) == sorted(entry.__annotations__)


def test_manifest_page_begins_with_its_outer_keys() -> None:
    (block,) = re.findall(r"```json\n(.*?)```", section("manifest", "Manifest"), re.DOTALL)
    manifest = json.loads(block)
    assert list(manifest) == list(schema.Manifest.__annotations__)
    assert list(manifest["project"]) == list(schema.ProjectEntry.__annotations__)
    assert list(manifest["generator"]) == list(schema.GeneratorEntry.__annotations__)
    assert manifest["schema_version"] == schema.SCHEMA_VERSION


def test_exit_codes_page_has_every_code() -> None:
    documented = {int(code) for code, *_ in rows("exit-codes", "Exit codes")}
    of_errors = {error.exit_code for error in RunnerError.__subclasses__()}
    assert documented == {EXIT_DONE, EXIT_FAILED, *of_errors, 130, 143}
