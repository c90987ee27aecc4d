"""Every kind of model on DuckDB, side by side with SQLMesh's own run on an identical copy."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from integration.runner.harness import (
    PROJECTS,
    SQLMESH,
    Finished,
    ProjectCopy,
    asset_key,
    extras,
    plan_kinds,
    run_without_the_runner,
)

DATABASE = "model_kinds.duckdb"
# In each table after the run (by_partition replaces partitions by what is due); None: not counted.
ROWS = {
    "by_key": 2,
    "by_partition": 6,
    "by_time": 8,
    "history_by_column": 8,
    "history_by_time": 8,
    "in_pieces": 8,
    "inserted_whole": 8,
    "north_orders": 8,
    "reads_by_time": 4,
    "shown": None,
    "south_orders": 8,
    "unmanaged": 8,
    "whole": 2,
}
SEED = '"model_kinds"."seeds"."names"'


def _fqn(name: str) -> str:
    return f'"model_kinds"."marts"."{name}"'


def _key(name: str) -> str:
    return asset_key(_fqn(name))


EXTRAS = extras([*map(_fqn, ROWS), SEED], selection="all", standalone_audits={}, adopt=True)
BY_TIME, READS_BY_TIME, WHOLE, SHOWN = map(_fqn, ("by_time", "reads_by_time", "whole", "shown"))
EXTRAS["models"][BY_TIME]["checks"] = {"not_null:549ef709": "not_null"}
EXTRAS["models"][WHOLE]["checks"] = {"number_of_rows:9131ca39": "number_of_rows"}
EXTRAS["models"][SEED]["checks"] = {"unique_values:591b4941": "unique_values"}


@pytest.fixture(scope="session")
def planned_kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("planned") / "model_kinds"
    shutil.copytree(PROJECTS / "model_kinds", path)
    return plan_kinds(path)


def _copy(planned: Path, to: Path) -> ProjectCopy:
    return ProjectCopy(Path(shutil.copytree(planned, to)), DATABASE)


@pytest.fixture
def kinds(planned_kinds: Path, tmp_path: Path) -> ProjectCopy:
    return _copy(planned_kinds, tmp_path / "project")


@pytest.fixture(scope="module")
def ran(
    planned_kinds: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ProjectCopy, Finished]:
    """A run of everything, for the tests that only look at it."""
    project = _copy(planned_kinds, tmp_path_factory.mktemp("ran") / "project")
    return project, project.run("--row-counts", extras=EXTRAS)


def _contents(project: ProjectCopy) -> dict[str, list[Any]]:
    """Return all rows of all models, of histories without the times of evaluation."""
    columns = {
        "history_by_column": "id, customer, valid_from IS NULL, valid_to IS NULL",
        "history_by_time": "id, customer, valid_from, valid_to",
    }
    return {
        name: project.sql(f"SELECT {columns.get(name, '*')} FROM marts.{name} ORDER BY ALL")
        for name in ROWS
    }


def _intervals(project: ProjectCopy) -> list[Any]:
    return project.sql(
        "SELECT name, start_ts, end_ts, is_dev FROM sqlmesh._intervals "
        "WHERE NOT is_removed ORDER BY ALL"
    )


def test_every_kind_is_materialized_with_its_rows_counted(
    ran: tuple[ProjectCopy, Finished],
) -> None:
    _, run = ran

    assert (run.code, run.end["outcome"], run.end["unknown_models"]) == (0, "success", [])
    assert {
        key: metadata.get("dagster/row_count") for key, metadata in run.materialized.items()
    } == {_key(name): rows for name, rows in ROWS.items()}
    assert {metadata["sqlmesh/complete"] for metadata in run.materialized.values()} == {True}
    assert all(check["passed"] for check in run.checks.values())


def test_a_loaded_seed_has_nothing_due_and_no_next_time(ran: tuple[ProjectCopy, Finished]) -> None:
    _, run = ran

    assert (run.skipped(SEED)["reason"], run.skipped(SEED)["next_due"]) == ("nothing_due", None)
    assert [event["model"] for event in run.events("model_skipped")] == [SEED]


def test_the_manifest_and_the_state_agree_on_every_model_s_hash(
    ran: tuple[ProjectCopy, Finished],
) -> None:
    """Else each run would warn of models that differ from the manifest."""
    project, run = ran
    manifest = json.loads(project.command("manifest").stdout)

    (started,) = run.events("run_started")
    assert started["environment_models"] == {
        model["fqn"]: model["data_hash"] for model in manifest["models"]
    }


def test_physical_tables_have_the_reported_names(
    ran: tuple[ProjectCopy, Finished],
) -> None:
    project, run = ran

    tables = {metadata["sqlmesh/physical_table"] for metadata in run.materialized.values()}
    there = {
        ".".join(row)
        for row in project.sql(
            "SELECT table_catalog, table_schema, table_name FROM information_schema.tables"
        )
    }
    assert len(tables) == len(ROWS)
    assert tables <= there


@pytest.mark.parametrize(
    ("damage", "failed"),
    [
        pytest.param("SELECT 1", [], id="nothing fails"),
        pytest.param(
            "UPDATE raw.orders SET id = NULL WHERE id = 7; "
            "UPDATE raw.orders SET customer = NULL WHERE id = 8",
            ["by_time"],
            id="a blocking audit fails",
        ),
        pytest.param(
            "ALTER TABLE raw.orders RENAME amount TO amounts",
            ["by_key", "by_time"],
            id="a column is gone",
        ),
    ],
)
def test_run_leaves_data_and_intervals_of_sqlmesh_run(
    planned_kinds: Path, tmp_path: Path, damage: str, failed: list[str]
) -> None:
    ours, theirs = (
        _copy(planned_kinds, tmp_path / "ours"),
        _copy(planned_kinds, tmp_path / "theirs"),
    )
    for project in (ours, theirs):
        project.sql(damage)

    run = ours.run(extras=EXTRAS)
    run_without_the_runner(theirs)

    assert run.end["failed"] == [_fqn(name) for name in failed]
    assert _contents(ours) == _contents(theirs)
    assert _intervals(ours) == _intervals(theirs)


def test_auto_restated_models_name_their_trigger(kinds: ProjectCopy) -> None:
    # The cron of restatements counts from when the model was made, which is now: let it be due.
    kinds.sql(
        "INSERT INTO sqlmesh._auto_restatements SELECT name, version, 1 FROM sqlmesh._snapshots "
        f"WHERE name = '{BY_TIME}'"
    )

    run = kinds.run(extras=EXTRAS)

    restated = {
        event["model"]: event
        for event in run.events("batch_finished")
        if event["model"] in {BY_TIME, READS_BY_TIME}
    }
    assert restated.keys() == {BY_TIME, READS_BY_TIME}
    assert restated[BY_TIME]["interval_start"] == "2026-01-01T00:00:00+00:00", (
        "the planned day, too"
    )
    if SQLMESH >= (0, 210):  # older ones don't tell
        assert [restated[name]["auto_restated_by"] for name in (BY_TIME, READS_BY_TIME)] == [
            [BY_TIME],
            [BY_TIME],
        ]
        assert run.materialized[_key("reads_by_time")]["sqlmesh/auto_restated_by"] == [BY_TIME]


@pytest.mark.skipif(
    SQLMESH < (0, 220), reason="SQLMesh refused to leave out the backfill of prod then"
)
def test_seed_without_backfill_is_loaded_by_next_run(
    kinds: ProjectCopy,
) -> None:
    with (kinds.path / "seeds" / "names.csv").open("a") as seed:
        seed.write("cid,Cid Cole\n")
    kinds.plan("--skip-backfill")

    run = kinds.run("--row-counts", extras=EXTRAS)

    assert run.materialized[asset_key(SEED)]["dagster/row_count"] == 3
    assert run.checks[asset_key(SEED), "unique_values"]["passed"]
    assert kinds.sql("SELECT full_name FROM seeds.names WHERE customer = 'cid'") == [("Cid Cole",)]


def test_state_lists_seeds_and_no_symbolic_models(
    ran: tuple[ProjectCopy, Finished],
) -> None:
    project, _ = ran

    listed = {
        model["model"]: model for model in json.loads(project.command("state").stdout)["models"]
    }

    assert listed.keys() == {*map(_fqn, ROWS), SEED}
    assert listed[SEED]["complete"]
    if SQLMESH >= (0, 236):  # older ones lose it when their janitor compacts
        assert listed[SEED]["recorded_at"] < listed[WHOLE]["recorded_at"]


def test_seed_is_reported_as_recorded_before_the_run(ran: tuple[ProjectCopy, Finished]) -> None:
    _, run = ran

    (event,) = run.events("models_recorded")
    assert [model["model"] for model in event["models"]] == [SEED]
    assert event["models"][0]["asset_key"] == asset_key(SEED)


def test_seeds_alone_may_be_selected(kinds: ProjectCopy) -> None:
    run = kinds.run(extras=extras([SEED], standalone_audits={}, adopt=True))

    assert (run.code, run.end["outcome"]) == (0, "nothing_to_do")
    assert run.skipped(SEED)["reason"] == "nothing_due"
    assert [model["model"] for model in run.events("models_recorded")[0]["models"]] == [SEED]
