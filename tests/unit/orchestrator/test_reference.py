"""The reference pages name what the code has: no more, and nothing less."""

import re
from pathlib import Path
from typing import Any

from reference import first_names, load_generator, names, rows
from unit.orchestrator.shop import Make, run

from dagster_sqlmesh_pipes import contract, specs
from dagster_sqlmesh_pipes.launchers import labels
from dagster_sqlmesh_pipes.run import messages
from dagster_sqlmesh_pipes.run.messages import RecordedEntry
from dagster_sqlmesh_pipes.run.recorded import RecordedModel
from dagster_sqlmesh_pipes.state.reading import RecordedState
from dagster_sqlmesh_pipes.testing import FakeLauncher

ROOT = Path(__file__).parents[3]
ORCHESTRATOR = ROOT / "orchestrator/src/dagster_sqlmesh_pipes"
RUNNER_METADATA = ROOT / "runner/src/sqlmesh_runner/sinks/metadata.py"

KEY = r"(?:sqlmesh/|sqlmesh_model_|audit_)\w+"
KEY_IN_CODE = re.compile(rf'"({KEY})"[:\]]')
TYPED_KEY = re.compile(r'"([\w/]+)": \("(\w+)", ')


def test_options_page_is_current() -> None:
    """`make reference` writes it."""
    generator = load_generator("generate_options")
    assert generator.PAGE.read_text(encoding="utf-8") == generator.page()


def test_messages_page_has_every_event_with_its_keys() -> None:
    documented = {names(kind)[0]: set(names(keys)) for kind, _, keys in rows("messages", "Events")}
    assert documented == {name: set(each.model_fields) for name, each in messages._TYPES.items()}


def test_messages_page_has_every_key_of_extras(make_resource: Make) -> None:
    launcher = FakeLauncher()
    run(make_resource(launcher))
    extras: Any = launcher.requests[0].context["extras"]
    assert sorted(first_names("messages", "Extras")) == sorted(extras)


def test_state_page_has_every_key() -> None:
    document = first_names("state", "State document")
    assert set(document) == set(RecordedState.model_fields)
    assert set(first_names("state", "A recorded model")) == set(RecordedModel.model_fields)
    assert (
        set(first_names("messages", "`models_recorded`"))
        == RecordedEntry.model_fields.keys() - RecordedModel.model_fields.keys()
    )


def test_metadata_page_has_every_key_and_tag() -> None:
    page = (ROOT / "docs/reference/metadata.md").read_text()
    documented = set(re.findall(f"`({KEY})`", page))
    sources = [RUNNER_METADATA, *ORCHESTRATOR.rglob("*.py")]
    written = {
        key
        for source in sources
        if source.name != "testing.py"
        for key in KEY_IN_CODE.findall(source.read_text())
    }
    constants = {value for name, value in vars(contract).items() if name.endswith(("_KEY", "_TAG"))}
    of_assets = {f"sqlmesh/{key}" for key in specs._METADATA_KEYS}
    assert documented == written | constants | of_assets


def test_metadata_page_has_the_types_of_results() -> None:
    documented = {
        key: kind
        for heading in ("Materializations", "Checks")
        for keys, kind, _ in rows("metadata", heading)
        for key in names(keys)
    }
    written = dict(TYPED_KEY.findall(RUNNER_METADATA.read_text()))
    assert documented == {**written, contract.RECORDED_BY_KEY: "text"}


def test_metadata_page_has_the_tags_of_runs_and_labels() -> None:
    tags = {value for name, value in vars(contract).items() if name.endswith("_TAG")}
    assert set(first_names("metadata", "Tags of a run")) == tags
    assert set(first_names("metadata", "Labels of containers and pods")) == {
        getattr(labels, name) for name in labels.__all__
    }
