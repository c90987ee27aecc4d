"""Reading manifests, and refusing what is none."""

import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from unit.orchestrator.shop import SHOP, fqn, manifest, model

from dagster_sqlmesh_pipes.errors import ManifestError
from dagster_sqlmesh_pipes.manifest import ModelKind, load_manifest

KINDS = json.loads((Path(__file__).parents[2] / "contract" / "kinds.json").read_text())


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_environment_variables_of_project_are_read(tmp_path: Path) -> None:
    variable = {
        "name": "REGION",
        "required": True,
        "path": "config.yaml",
        "project_dir_index": 0,
        "new": 1,
    }
    content = {"schema_version": 1, "models": [], "environment_variables": [variable]}
    manifest = load_manifest(write(tmp_path / "manifest.json", content))
    assert [(read.name, read.required) for read in manifest.environment_variables] == [
        ("REGION", True)
    ]


def test_models_have_sqlmeshs_attribute_names(tmp_path: Path) -> None:
    columns = [
        {"name": "id", "type": "BIGINT", "description": "the key"},
        {"name": "at", "type": "TIMESTAMP", "description": None},
    ]
    kind = {"name": "INCREMENTAL_BY_TIME_RANGE", "time_column": "at", "batch_size": 12}
    read = load_manifest(
        write(
            tmp_path / "m.json",
            manifest([model("marts.orders", columns=columns, kind=kind, tags=["a"])]),
        )
    )
    orders = read.get_model("marts.orders")
    assert orders is not None
    assert orders is read.get_model(fqn("marts.orders"))
    assert (orders.view_name, orders.schema_name, orders.catalog, orders.tags) == (
        "orders",
        "marts",
        "shop",
        ("a",),
    )
    assert orders.columns_to_types == {"id": "BIGINT", "at": "TIMESTAMP"}
    assert orders.column_descriptions == {"id": "the key"}
    assert (str(orders.kind), orders.kind.time_column, orders.kind.batch_size) == (
        "INCREMENTAL_BY_TIME_RANGE",
        "at",
        12,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_answers_sqlmeshs_questions_as_sqlmesh_does(kind: str) -> None:
    questions = sorted({*chain.from_iterable(KINDS.values())})
    assert [question for question in questions if getattr(ModelKind(name=kind), question)] == KINDS[
        kind
    ]


@pytest.mark.parametrize("question", ["is_incremntal", "is_table", "time_column"])
def test_a_kind_has_no_answer_to_what_sqlmesh_does_not_ask(question: str) -> None:
    with pytest.raises(AttributeError, match=question):
        getattr(ModelKind(name="FULL"), question)


def test_missing_model_is_none_or_error_as_in_sqlmesh(tmp_path: Path) -> None:
    read = load_manifest(write(tmp_path / "m.json", manifest(SHOP)))
    assert read.get_model("no.such", raise_if_missing=False) is None
    with pytest.raises(ManifestError, match=r"has no model no\.such"):
        read.get_model("no.such", raise_if_missing=True)


def test_behind_embedded_models_are_the_tables_that_they_read(tmp_path: Path) -> None:
    embedded = {"kind": {"name": "EMBEDDED"}, "materialized": False}
    models = [
        model("a.inner", **embedded, depends_on=[fqn("a.table"), fqn("raw.x")]),
        model("a.outer", **embedded, depends_on=[fqn("a.inner"), fqn("raw.x")]),
        model("a.table", depends_on=[fqn("raw.y")]),
    ]
    read = load_manifest(write(tmp_path / "m.json", manifest(models)))
    assert read.tables([fqn("a.outer"), fqn("raw.z")]) == [
        fqn("a.table"),
        fqn("raw.x"),
        fqn("raw.z"),
    ]


def test_keys_of_a_newer_runner_are_passed_over(tmp_path: Path) -> None:
    newer = {**manifest([{**model("a.b"), "brand_new": 1}]), "also_new": {}}
    assert list(load_manifest(write(tmp_path / "m.json", newer)).models) == [fqn("a.b")]


def test_a_file_is_parsed_once_until_it_changes(tmp_path: Path) -> None:
    path = write(tmp_path / "m.json", manifest(SHOP))
    first = load_manifest(path)
    assert load_manifest(path) is first
    write(path, manifest(SHOP[:1]))
    assert list(load_manifest(path).models) == [SHOP[0]["fqn"]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            {**manifest(SHOP), "schema_version": 2},
            "has schema version 2, this dagster-sqlmesh-pipes reads version 1. Upgrade dagster-",
        ),
        (
            {**manifest(SHOP), "schema_version": 0},
            "Upgrade sqlmesh-runner and make the manifest again",
        ),
        ({"models": []}, "no `schema_version`"),
        ([], "no `schema_version`"),
        ("{", "is not JSON"),
        ({"schema_version": 1}, "the manifest is damaged"),
        ({**manifest([{"name": "x"}])}, "fqn"),
        (manifest([*SHOP, SHOP[0]]), f"has these models more than once: {fqn('staging.events')}"),
        (
            manifest([model("a.b", cron_tz="Mars/Olympus")]),
            'the time zone \'Mars/Olympus\' (cron_tz) of the model "shop"."a"."b"',
        ),
        (manifest([model("a.b", cron_tz="../etc/passwd")]), "the time zone '../etc/passwd'"),
        ('{"schema_version": 1, "models": ' + "[" * 100_000, "is not JSON that can be read"),
        (
            '{"schema_version": 1, "models": [' + '{"a":' * 5_000 + "1" + "}" * 5_000 + "]}",
            "is not JSON that can be read",
        ),
    ],
    ids=[
        "newer",
        "older",
        "no version",
        "a list",
        "not JSON",
        "no models",
        "a model without fqn",
        "a model twice",
        "unknown time zone",
        "time zone outside",
        "nested and cut",
        "nested",
    ],
)
def test_file_that_is_no_manifest_is_refused_with_path(
    tmp_path: Path, content: Any, said: str
) -> None:
    path = write(tmp_path / "m.json", content)
    with pytest.raises(ManifestError) as error:
        load_manifest(path)
    assert str(path) in str(error.value)
    assert said in str(error.value)


def test_a_missing_manifest_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(
        ManifestError,
        match=r"no SQLMesh manifest at .*m\.json.*`sqlmesh-runner manifest --project-dir P",
    ):
        load_manifest(tmp_path / "m.json")
