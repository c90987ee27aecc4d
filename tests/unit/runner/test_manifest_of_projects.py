"""The manifest of unusual projects: several folders, no warehouse, other environments, errors."""

import subprocess
import sys
from pathlib import Path

import pytest
from sqlmesh.utils.errors import ConfigError
from unit.runner.sqlmesh_projects import SQLMESH, write_project

from sqlmesh_runner.manifest.build import build_manifest
from sqlmesh_runner.manifest.schema import Manifest

DUCKDB = """
gateways: {local: {connection: {type: duckdb, database: one.db}}}
model_defaults: {dialect: duckdb, start: 2024-01-01}
"""
UNREACHABLE_POSTGRES = """
gateways:
  pg:
    connection: {type: postgres, host: 127.0.0.1, port: 1, user: u, password: p, database: shop}
    state_connection:
      {type: postgres, host: 127.0.0.1, port: 1, user: u, password: p, database: state}
  local: {connection: {type: duckdb, database: local.db}}
default_gateway: pg
model_defaults: {dialect: postgres, start: 2024-01-01}
project: shop
"""


def _relations(manifest: Manifest) -> list[str | None]:
    return [model["relation"] for model in manifest["models"]]


def test_several_folders_make_one_manifest(
    tmp_path: Path,
) -> None:
    one = write_project(
        tmp_path / "one", config=DUCKDB + "project: first\n", a="MODEL (name x.a); SELECT 1 AS id"
    )
    two = write_project(
        tmp_path / "two",
        config=DUCKDB + "project: second\n",
        sub__b="MODEL (name x.b); SELECT id FROM x.a",
    )
    manifest = build_manifest(paths=[one, two])
    places = [
        (model["name"], model["project"], model["path"], model["project_dir_index"])
        for model in manifest["models"]
    ]
    assert places == [("x.a", "first", "models/a.sql", 0), ("x.b", "second", "models/sub/b.sql", 1)]
    assert manifest["models"][1]["depends_on"] == ['"one"."x"."a"']
    assert list(tmp_path.glob("**/*.db")) == []


def test_macros_are_expanded_unless_they_need_a_time(
    tmp_path: Path,
) -> None:
    queries = {
        "plain": "SELECT @EACH([a, b], c -> c), start_date FROM raw.t",
        "by_name": "SELECT @{start_ds} AS day, @EACH([a, b], c -> c) FROM raw.t",
        "by_jinja": "JINJA_QUERY_BEGIN; SELECT '{{ execution_ds }}' AS day, "
        "'{{ 1 + 1 }}' AS two; JINJA_END;",
        "jinja": "JINJA_QUERY_BEGIN; SELECT '{{ 1 + 1 }}' AS two; JINJA_END;",
    }
    project = write_project(
        tmp_path / "p",
        config=DUCKDB,
        **{name: f"MODEL (name x.{name}); {sql}" for name, sql in queries.items()},
    )
    shown = {
        model["name"]: str(model["query"]) for model in build_manifest(paths=[project])["models"]
    }
    assert '"a" AS "a",\n  "b" AS "b"' in shown["x.plain"]
    assert "@EACH" in shown["x.by_name"]
    assert "{{ execution_ds }}" in shown["x.by_jinja"]
    assert "'2' AS \"two\"" in shown["x.jinja"]


def test_no_warehouse_and_no_state_is_asked(tmp_path: Path) -> None:
    # Of a project with a name, SQLMesh would read the models of other projects from the state.
    project = write_project(
        tmp_path / "p",
        config=UNREACHABLE_POSTGRES,
        a="MODEL (name x.a); SELECT 1 AS id, y FROM x.raw",
    )
    manifest = build_manifest(paths=[project])
    assert manifest["project"] == {
        "gateway": "pg",
        "environment": "prod",
        "default_catalog": "shop",
        "dialect": "postgres",
        "state_engine": "postgres",
    }
    assert _relations(manifest) == ["shop.x.a"]


def test_another_gateway_than_the_default_one_can_be_asked_for(tmp_path: Path) -> None:
    project = write_project(
        tmp_path / "p", config=UNREACHABLE_POSTGRES, a="MODEL (name x.a); SELECT 1 AS id"
    )
    manifest = build_manifest(paths=[project], gateway="local")
    assert (manifest["project"]["gateway"], manifest["project"]["default_catalog"]) == (
        "local",
        "local",
    )
    assert manifest["models"][0]["fqn"] == '"local"."x"."a"'


def test_a_database_that_another_process_holds_is_left_alone(tmp_path: Path) -> None:
    project = write_project(tmp_path / "p", config=DUCKDB, a="MODEL (name x.a); SELECT 1 AS id")
    hold = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1]); "
        "c.execute('CREATE TABLE t (i INT)'); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", hold, str(project / "one.db")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert _relations(build_manifest(paths=[project])) == ["one.x.a"]
        holder.communicate()


@pytest.mark.parametrize(
    ("setting", "environment", "relation"),
    [
        ("", "prod", "one.x.a"),
        ("", "PROD", "one.x.a"),
        ("", "Dev-1", "one.x__dev_1.a"),
        ("environment_suffix_target: schema", "dev", "one.x__dev.a"),
        ("environment_suffix_target: table", "dev", "one.x.a__dev"),
        ("environment_suffix_target: catalog", "dev", "one__dev.x.a"),
        ("environment_suffix_target: catalog", "prod", "one.x.a"),
        ("environment_catalog_mapping: {'^prod$': live, '.*': play}", "prod", "live.x.a"),
        ("environment_catalog_mapping: {'^prod$': live, '.*': play}", "dev", "play.x__dev.a"),
    ],
)
def test_relation_is_the_view_of_the_environment(
    tmp_path: Path, setting: str, environment: str, relation: str
) -> None:
    if setting.endswith("catalog") and SQLMESH < (0, 220):
        pytest.skip("SQLMesh had no catalog suffix then")
    project = write_project(
        tmp_path / "p", config=f"{DUCKDB}{setting}\n", a="MODEL (name x.a); SELECT 1 AS id"
    )
    assert _relations(build_manifest(paths=[project], environment=environment)) == [relation]


def test_names_that_need_quotes_keep_them(tmp_path: Path) -> None:
    project = write_project(
        tmp_path / "p", config=DUCKDB, a='MODEL (name x."my model"); SELECT 1 AS id'
    )
    assert _relations(build_manifest(paths=[project])) == ['one.x."my model"']


def test_too_fine_cron_is_refused_with_its_model(
    tmp_path: Path,
) -> None:
    project = write_project(
        tmp_path / "p",
        config=DUCKDB,
        hasty="MODEL (name x.hasty, cron '*/2 * * * *'); SELECT 1 AS id",
    )
    with pytest.raises(ConfigError) as caught:
        build_manifest(paths=[project])
    assert "x.hasty (*/2 * * * *)" in str(caught.value)
    assert "5 minutes or slower" in str(caught.value)
    assert "ignore_cron" in str(caught.value)


def test_any_other_error_is_sqlmesh_s_own(tmp_path: Path) -> None:
    project = write_project(
        tmp_path / "p", config=DUCKDB, broken="MODEL (name x.broken); SELECT FROM WHERE"
    )
    with pytest.raises(ConfigError) as caught:
        build_manifest(paths=[project])
    assert "broken.sql" in str(caught.value)
    assert "ignore_cron" not in str(caught.value)


@pytest.mark.skipif(SQLMESH < (0, 220), reason="SQLMesh refused such a project then")
def test_unrenderable_audit_is_listed_as_written(tmp_path: Path) -> None:
    model = (
        "MODEL (name x.a, audits (odd)); SELECT 1 AS id; "
        "AUDIT (name odd); SELECT * FROM @this_model WHERE @no_such_macro(id)"
    )
    project = write_project(tmp_path / "p", config=DUCKDB, a=model)
    (audit,) = build_manifest(paths=[project])["models"][0]["audits"]
    assert "@no_such_macro(id)" in audit["query"].lower()


def test_a_project_without_models_has_a_manifest(tmp_path: Path) -> None:
    manifest = build_manifest(paths=[write_project(tmp_path / "p", config=DUCKDB)])
    assert (manifest["models"], manifest["standalone_audits"]) == ([], [])


def test_a_model_that_takes_unfinished_intervals_says_so(tmp_path: Path) -> None:
    project = write_project(
        tmp_path / "p",
        config=DUCKDB,
        live="MODEL (name x.live, cron '*/5 * * * *', interval_unit 'day', allow_partials true); "
        "SELECT 1 AS id",
        whole="MODEL (name x.whole); SELECT 1 AS id",
    )
    models = build_manifest(paths=[project])["models"]
    assert {model["name"]: model["allow_partials"] for model in models} == {
        "x.live": True,
        "x.whole": False,
    }


@pytest.mark.skipif(SQLMESH < (0, 220), reason="SQLMesh refused audits with arguments of their own")
def test_blocking_of_an_audit_is_that_of_its_use(tmp_path: Path) -> None:
    model = (
        "MODEL (name x.a, audits (soft, hard, both(blocking := false), both(blocking := true), "
        "soft(of := 1, blocking := true), hard(of := 1, blocking := false))); SELECT 1 AS id; "
        "AUDIT (name soft, blocking false); SELECT * FROM @this_model WHERE id = @of; "
        "AUDIT (name hard); SELECT * FROM @this_model WHERE id = @of; "
        "AUDIT (name both); SELECT * FROM @this_model WHERE id = 2"
    )
    project = write_project(tmp_path / "p", config=DUCKDB, a=model)
    audits = build_manifest(paths=[project])["models"][0]["audits"]
    assert {(each["name"], len(each["args"])): each["blocking"] for each in audits} == {
        ("soft", 0): False,
        ("hard", 0): True,
        ("both", 0): True,  # of two equal uses, the blocking one counts
        ("soft", 1): True,
        ("hard", 1): False,
    }
