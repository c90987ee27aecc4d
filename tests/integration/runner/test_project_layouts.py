"""Unusual layouts: several directories or gateways, environments' own names, previews."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pytest
from integration.runner.harness import PLANNED_AT, SQLMESH, ProjectCopy, asset_key, extras, sqlmesh

DEFAULTS = "model_defaults: {dialect: duckdb, start: 2026-01-01, cron: '@daily'}\n"
ONE = "gateways: {local: {connection: {type: duckdb, database: one.duckdb}}}\n" + DEFAULTS
BY_DAY = "kind INCREMENTAL_BY_TIME_RANGE (time_column day, forward_only true)"
DAYS = "SELECT 1 AS id, day FROM raw.days WHERE day BETWEEN @start_date AND @end_date"
A = '"one"."x"."a"'


def _write(folder: Path, files: Mapping[str, str]) -> ProjectCopy:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return ProjectCopy(folder, "one.duckdb")


def _with_days(project: ProjectCopy) -> ProjectCopy:
    project.sql(
        "CREATE SCHEMA raw; CREATE TABLE raw.days AS "
        "SELECT DATE '2026-01-01' + i::INT AS day FROM RANGE(4) AS days(i)"
    )
    return project


def _plan_dev(project: ProjectCopy, *arguments: str) -> None:
    project.plan("dev", "--start", "2026-01-01", "--end", "2026-01-01", *arguments)


def _manifest(project: ProjectCopy, *arguments: str) -> dict[str, dict[str, Any]]:
    """Return models of the manifest by name."""
    return {
        model["name"]: model
        for model in json.loads(project.command("manifest", *arguments).stdout)["models"]
    }


@pytest.mark.parametrize(
    ("target", "view", "attached"),
    [
        ("schema", "one.x__dev.a", ()),
        ("table", "one.x.a__dev", ()),
        ("catalog", "one__dev.x.a", ("one__dev.db",)),
    ],
)
def test_environment_runs_in_its_own_views(
    tmp_path: Path, target: str, view: str, attached: tuple[str, ...]
) -> None:
    if target == "catalog" and SQLMESH < (0, 206):
        pytest.skip("SQLMesh had no catalog suffix then")
    config = f"{ONE}environment_suffix_target: {target}\n"
    project = _with_days(
        _write(
            tmp_path / "p",
            {"config.yaml": config, "models/a.sql": f"MODEL (name x.a, {BY_DAY}); {DAYS}"},
        )
    )
    _plan_dev(project)

    run = project.run("--environment", "dev", extras=extras([A]))

    assert (run.code, set(run.materialized)) == (0, {asset_key(A)})
    relation = _manifest(project, "--environment", "dev")["x.a"]["relation"]
    assert relation == view
    with duckdb.connect(str(project.database)) as connection:
        for file in attached:
            connection.execute(f"ATTACH '{project.path / file}'")
        assert connection.execute(f"SELECT COUNT(*) FROM {relation}").fetchall() == [(4,)]


def test_a_forward_only_change_is_previewed_in_tables_of_its_own(tmp_path: Path) -> None:
    project = _with_days(
        _write(
            tmp_path / "p",
            {"config.yaml": ONE, "models/a.sql": f"MODEL (name x.a, {BY_DAY}); {DAYS}"},
        )
    )
    project.plan()
    model = project.path / "models" / "a.sql"
    model.write_text(model.read_text().replace("SELECT 1", "SELECT 2"))
    _plan_dev(project, "--enable-preview")

    run = project.run("--environment", "dev", "--row-counts", extras=extras([A]))

    metadata = run.materialized[asset_key(A)]
    catalog, schema, table = metadata["sqlmesh/physical_table"].split(".")
    assert metadata["sqlmesh/environment"] == "dev"
    assert table.endswith(("__dev", "__temp"))
    assert project.sql(f'SELECT DISTINCT id FROM {catalog}.{schema}."{table}"') == [(2,)]
    assert metadata["dagster/row_count"] == len(project.sql("SELECT * FROM x__dev.a")) == 4
    assert project.sql("SELECT DISTINCT id FROM x.a") == [(1,)], "prod is as it was"


def test_models_of_two_gateways_run_in_their_own_databases(tmp_path: Path) -> None:
    config = (
        "gateways:\n"
        "  first: {connection: {type: duckdb, database: one.duckdb}}\n"
        "  second: {connection: {type: duckdb, database: two.duckdb}}\n"
        "default_gateway: first\n"
        "gateway_managed_virtual_layer: true\n" + DEFAULTS
    )
    audits = "audits (not_null(columns := (id), blocking := false))"
    b = f"MODEL (name x.b, kind FULL, gateway second, {audits})"
    files = {"config.yaml": config, "models/a.sql": "MODEL (name x.a, kind FULL); SELECT 1 AS id"}
    project = _write(
        tmp_path / "p", {**files, "models/b.sql": f"{b}; SELECT 2 AS id UNION ALL SELECT NULL"}
    )
    project.plan()
    other = '"two"."x"."b"'
    asked = extras([A, other])
    asked["models"][other]["checks"] = {"not_null:549ef709": "not_null"}

    run = project.run("--row-counts", extras=asked)

    assert (run.code, run.events("run_started")[0]["gateway"]) == (0, "first")
    assert {key: metadata["dagster/row_count"] for key, metadata in run.materialized.items()} == {
        asset_key(A): 1,
        asset_key(other): 2,
    }
    assert run.checks[asset_key(other), "not_null"]["audit_failing_rows"] == 1
    models = _manifest(project)
    assert {name: (model["relation"], model["gateway"]) for name, model in models.items()} == {
        "x.a": ("one.x.a", None),
        "x.b": ("two.x.b", "second"),
    }
    assert len(ProjectCopy(project.path, "two.duckdb").sql("FROM x.b")) == 2


def test_two_directories_run_as_one_project(
    tmp_path: Path,
) -> None:
    first = _with_days(
        _write(
            tmp_path / "first",
            {
                "config.yaml": f"{ONE}project: first\n",
                "models/a.sql": f"MODEL (name x.a, {BY_DAY}); {DAYS}",
            },
        )
    )
    reads = (
        "MODEL (name x.b, kind FULL); SELECT CAST(MAX(label) AS INT) AS label FROM raw.labels, x.a"
    )
    _write(
        tmp_path / "second", {"config.yaml": f"{ONE}project: second\n", "models/deep/b.sql": reads}
    )
    first.sql("CREATE TABLE raw.labels AS SELECT '1' AS label")
    directories = ("-p", ".", "-p", "../second")
    sqlmesh(
        first.path,
        *directories,
        "plan",
        "--auto-apply",
        "--no-prompts",
        "--skip-tests",
        "--execution-time",
        PLANNED_AT,
    )
    first.sql("UPDATE raw.labels SET label = 'one'")
    b = '"one"."x"."b"'

    run = first.run(
        "--project-dir",
        ".",
        "--project-dir",
        "../second",
        extras=extras([A, b], selection="all", standalone_audits={}),
    )

    assert (run.code, set(run.materialized)) == (1, {asset_key(A)})
    assert run.failed(b)["path"] == "models/deep/b.sql"
    assert "Could not convert string 'one'" in run.failed(b)["error"]
    models = _manifest(first, "--project-dir", ".", "--project-dir", "../second")
    assert [
        (name, model["project"], model["path"], model["project_dir_index"])
        for name, model in models.items()
    ] == [
        ("x.a", "first", "models/a.sql", 0),
        ("x.b", "second", "models/deep/b.sql", 1),
    ]
    assert run.events("run_started")[0]["environment_models"] == {
        model["fqn"]: model["data_hash"] for model in models.values()
    }


def test_manifest_on_stdout_is_only_json(tmp_path: Path) -> None:
    files = {
        "config.yaml": ONE,
        "models/a.sql": "MODEL (name x.a); SELECT 1 AS id",
        "macros/loud.py": "print('loaded')",
    }
    written = _write(tmp_path / "p", files).command("manifest")

    assert [model["name"] for model in json.loads(written.stdout)["models"]] == ["x.a"]
    assert "loaded" in written.stderr
