"""The manifest of a project with one of everything."""

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from unit.runner.sqlmesh_projects import (
    copy_project,
    manifest_by_itself,
    opened_from_state,
    plan_kinds,
)

from sqlmesh_runner.manifest.build import build_manifest, dump
from sqlmesh_runner.manifest.schema import Manifest, ModelEntry

EVENTS = '"kinds"."staging"."events"'


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_project("manifest_models", tmp_path_factory.mktemp("manifest"))


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plan_kinds(tmp_path_factory.mktemp("planned"))


@pytest.fixture(scope="module")
def manifest(project: Path) -> Manifest:
    return build_manifest(paths=[project])


@pytest.fixture(scope="module")
def models(manifest: Manifest) -> dict[str, ModelEntry]:
    return {model["name"]: model for model in manifest["models"]}


def test_symbolic_models_are_listed_not_materialized(
    manifest: Manifest,
) -> None:
    fqns = [model["fqn"] for model in manifest["models"]]
    assert fqns == sorted(fqns)
    symbolic = {
        model["name"]: model["kind"]["name"]
        for model in manifest["models"]
        if not model["materialized"]
    }
    assert symbolic == {"raw.events": "EXTERNAL", "staging.lookup": "EMBEDDED"}
    assert len(fqns) == 11


def test_a_model_is_described_by_all_that_its_file_says(models: dict[str, ModelEntry]) -> None:
    events: dict[str, Any] = dict(models["staging.events"])
    expected = {
        "fqn": EVENTS,
        "view_name": "events",
        "catalog": "kinds",
        "schema_name": "staging",
        "path": "models/events.sql",
        "project_dir_index": 0,
        "cron": "@hourly",
        "cron_tz": None,
        "interval_unit": "hour",
        "allow_partials": False,
        "start": "2024-01-05",
        "end": "2024-01-06",
        "owner": "data",
        "tags": ["finance", "dagster:group_name:money"],
        "description": "Every event, once.",
        "partitioned_by": ["DATE_TRUNC('DAY', \"happened_at\")"],
        "clustered_by": [],
        "grains": ["id", "(id, happened_at)"],
        "depends_on": ['"kinds"."raw"."events"'],
        "signals": ["events_arrived"],
        "enabled": True,
        "relation": "kinds.staging.events",
    }
    assert {key: events[key] for key in expected} == expected
    assert events["columns"][0] == {
        "name": "id",
        "type": "INT",
        "description": "the event's number",
    }
    assert [column["name"] for column in events["columns"]] == [
        "id",
        "amount",
        "taxed_amount",
        "happened_at",
    ]


def test_a_kind_has_its_properties(models: dict[str, ModelEntry]) -> None:
    kind = models["staging.events"]["kind"]
    assert kind["name"] == "INCREMENTAL_BY_TIME_RANGE"
    assert (kind["time_column"], kind["batch_size"], kind["lookback"]) == ("happened_at", 12, 2)
    assert models["mart.countries"]["kind"]["unique_key"] == ["code"]


def test_a_query_about_an_interval_is_as_it_was_written(models: dict[str, ModelEntry]) -> None:
    query = models["staging.events"]["query"]
    assert query is not None
    assert "happened_at BETWEEN @start_ts AND @end_ts AND amount >= @least_amount" in query


def test_audits_by_time_range_cover_the_whole_model(
    manifest: Manifest, models: dict[str, ModelEntry]
) -> None:
    queries = [audit["query"] for audit in models["staging.events"]["audits"]]
    assert 'FROM "kinds"."staging"."events" AS "events"\nWHERE\n  (\n    "id" IS NULL' in queries[0]
    assert "1970-01-01" not in dump(manifest)


@pytest.mark.parametrize("name", ["staging.countries", "raw.events", "mart.from_python"])
def test_a_model_without_sql_has_no_query(models: dict[str, ModelEntry], name: str) -> None:
    assert models[name]["query"] is None


def test_columns_come_from_upstream_where_they_can_be_known(models: dict[str, ModelEntry]) -> None:
    assert [column["name"] for column in models["mart.everything"]["columns"]] == [
        "id",
        "amount",
        "taxed_amount",
        "happened_at",
    ]
    assert [column["name"] for column in models["mart.visible"]["columns"]] == [
        "id",
        "taxed_amount",
        "happened_at",
    ]
    assert models["mart.everything_again"]["columns"] == []  # reads a table that nobody declared


def test_undeclared_external_tables_are_dependencies(models: dict[str, ModelEntry]) -> None:
    assert models["mart.everything_again"]["depends_on"] == [
        '"kinds"."mart"."everything"',
        '"kinds"."raw"."undeclared"',
    ]


def test_crons_have_their_time_zone(models: dict[str, ModelEntry]) -> None:
    assert models["mart.everything"]["cron_tz"] == "Europe/Zurich"
    assert models["mart.everything"]["interval_unit"] == "hour"


def test_a_use_of_an_audit_may_overrule_whether_it_blocks(models: dict[str, ModelEntry]) -> None:
    blocking = {
        (audit["name"], tuple(audit["args"].values())): audit["blocking"]
        for audit in models["staging.events"]["audits"]
    }
    assert blocking["not_null", ("(id, amount)",)] is True
    assert blocking["not_null", ("(happened_at)",)] is True, (
        "of two uses that only differ in this, the one that blocks"
    )
    assert blocking["amounts_above", ("amount", "0")] is False


def test_identical_uses_of_an_audit_are_one_and_others_are_not(
    models: dict[str, ModelEntry],
) -> None:
    ids = [audit["id"] for audit in models["staging.events"]["audits"]]
    assert len(ids) == len(set(ids)) == 7  # eight uses, two of them not_null on happened_at
    assert sum(name.startswith("amounts_above:") for name in ids) == 2


def test_an_audit_has_its_query_with_its_arguments(models: dict[str, ModelEntry]) -> None:
    queries = {audit["name"]: audit["query"] for audit in models["mart.bigquery_flavour"]["audits"]}
    assert "`select` IN ('a', 'b')" in queries["accepted_values"]
    defaults = [
        audit["query"]
        for audit in models["staging.events"]["audits"]
        if audit["args"] == {"column": "amount"}
    ]
    assert '"amount" < 1' in defaults[0]


def test_an_audit_that_is_switched_off_says_so(models: dict[str, ModelEntry]) -> None:
    skipped = [audit["name"] for audit in models["staging.events"]["audits"] if audit["skip"]]
    assert skipped == ["never_looked_at"]


def test_a_standalone_audit_is_not_among_the_models(manifest: Manifest) -> None:
    (audit,) = manifest["standalone_audits"]
    assert audit["query"].startswith("SELECT")
    assert {key: value for key, value in audit.items() if key != "query"} == {
        "fqn": "countries_known",
        "name": "countries_known",
        "id": "countries_known:4f53cda1",
        "dialect": "duckdb",
        "blocking": False,
        "skip": False,
        "cron": "@weekly",
        "cron_tz": None,
        "owner": "analysts",
        "tags": [],
        "description": None,
        "depends_on": ['"kinds"."mart"."countries"'],
        "path": "audits/countries_known.sql",
        "project_dir_index": 0,
    }


def test_same_files_make_the_same_bytes(
    tmp_path: Path,
) -> None:
    one, two = (copy_project("manifest_models", tmp_path / name) for name in ("one", "two"))
    first = dump(manifest_by_itself(one))
    assert (one / ".cache").is_dir()
    assert dump(manifest_by_itself(one)) == first
    assert dump(manifest_by_itself(two)) == first


def test_the_text_is_json_and_names_no_place_of_this_machine(
    project: Path, manifest: Manifest
) -> None:
    text = dump(manifest)
    assert json.loads(text) == manifest
    assert text.endswith("}\n")
    assert str(project) not in text


def test_manifest_names_the_engine_of_the_state(manifest: Manifest) -> None:
    assert manifest["project"]["state_engine"] == "duckdb"


def test_no_database_file_is_made(project: Path, manifest: Manifest) -> None:
    assert manifest["project"]["default_catalog"] == "kinds"
    assert list(project.glob("*.db*")) == []


def test_relations_can_be_queried_once_planned(planned: Path) -> None:
    relations = {
        model["kind"]["name"]: model["relation"] for model in manifest_by_itself(planned)["models"]
    }
    assert relations.pop("EMBEDDED") is None
    assert len(relations) == 6
    with duckdb.connect(str(planned / "kinds.db"), read_only=True) as connection:
        for relation in relations.values():
            connection.execute(f"SELECT * FROM {relation} LIMIT 0")


def test_hashes_equal_those_of_the_environment(planned: Path) -> None:
    # The orchestrator compares them with a run's `environment_models`: what changed is not planned.
    models = {model["fqn"]: model for model in manifest_by_itself(planned)["models"]}
    with opened_from_state(planned) as (environment, _):
        held = {
            info.name: info.fingerprint for info in environment.snapshots if info.name in models
        }
    assert {fqn: fingerprint.data_hash for fqn, fingerprint in held.items()} == {
        fqn: each["data_hash"] for fqn, each in models.items()
    }
    assert {fqn: fingerprint.metadata_hash for fqn, fingerprint in held.items()} == {
        fqn: each["metadata_hash"] for fqn, each in models.items()
    }


def test_a_changed_file_changes_the_hash_of_its_model_alone(
    tmp_path: Path, manifest: Manifest
) -> None:
    project = copy_project("manifest_models", tmp_path)
    query = project / "models" / "lookup.sql"
    query.write_text(query.read_text().replace("UPPER", "LOWER"))
    before = {model["fqn"]: model["data_hash"] for model in manifest["models"]}
    after = {
        model["fqn"]: model["data_hash"] for model in build_manifest(paths=[project])["models"]
    }
    assert [fqn for fqn in before if before[fqn] != after[fqn]] == ['"kinds"."staging"."lookup"']
