"""Bad input: each time the error says what, where, and what to do next."""

import json
import shutil
import sys
import textwrap
from pathlib import Path

import pytest
from acceptance.local.conftest import Deploy
from acceptance.local.deployment import Deployment, Run

from dagster_sqlmesh_pipes import SQLMeshProject, SubprocessLauncher
from dagster_sqlmesh_pipes.errors import LaunchError


def prepare(deployment: Deployment, **settings: str) -> str:
    """Make the manifest as `dagster dev` would, and give the error."""
    launcher = SubprocessLauncher(executable=deployment.environ()["SQLMESH_RUNNER"])
    with pytest.raises(LaunchError) as error:
        SQLMeshProject(deployment.project, launcher=launcher, **settings).prepare()  # type: ignore[arg-type]
    assert "exit code 2" in str(error.value)
    assert "Traceback" not in str(error.value)
    return str(error.value)


def failed(run: Run) -> str:
    assert not run.success, run.output
    assert run.materialized == {}
    return run.error


def test_no_project_there(deploy: Deploy) -> None:
    deployment = deploy("slow_model")
    shutil.rmtree(deployment.project)
    deployment.project.mkdir()
    assert f"Error: There is no SQLMesh project in {deployment.project}" in prepare(deployment)


def test_a_model_with_invalid_sql_is_named_with_its_file(deploy: Deploy) -> None:
    deployment = deploy("slow_model")
    (deployment.project / "models" / "early.sql").write_text(
        "MODEL (name late.early, kind FULL); SELECT FROM WHERE"
    )
    assert "early.sql" in prepare(deployment)


def test_an_unknown_gateway_is_named(deploy: Deploy) -> None:
    assert "'nowhere'" in prepare(deploy("slow_model"), gateway="nowhere")


def test_unplanned_environment_is_not_created_by_the_run(deploy: Deploy) -> None:
    deployment = deploy("slow_model", environment="staging")
    deployment.assets["name"] = "sqlmesh_prod"
    deployment.write()
    error = failed(deployment.materialize("*"))
    assert "'staging'" in error
    assert "sqlmesh plan staging" in error
    assert "staging" not in deployment.sqlmesh("environments")


def test_a_selected_model_that_was_not_planned_needs_a_plan(deploy: Deploy) -> None:
    deployment = deploy("slow_model")
    (deployment.project / "models" / "brand_new.sql").write_text(
        "MODEL (name late.brand_new, kind FULL); SELECT 1 AS id"
    )
    deployment.make_manifest()
    error = failed(deployment.materialize("key:late/late/brand_new"))
    assert '"late"."late"."brand_new"' in error
    assert "sqlmesh plan" in error


def test_a_warehouse_that_is_down_and_no_password(deploy: Deploy) -> None:
    """Neither the storage, compute logs included, nor the manifest has the password."""
    deployment = deploy("slow_model")
    config = deployment.project / "config.yaml"
    down = "type: postgres, host: 127.0.0.1, port: 1, user: u, password: s3same, database: late"
    config.write_text(
        config.read_text().replace("gateways:", f"gateways:\n  down:\n    connection: {{{down}}}")
    )
    deployment.write(gateway="down")
    error = failed(deployment.materialize("*"))
    assert "127.0.0.1" in error
    assert "Connection refused" in error
    stored = {path: path.read_bytes() for path in files_of(deployment.home)}
    assert any("compute_logs" in path.parts for path in stored)
    assert any(b"Connection refused" in text for text in stored.values())
    manifest = deployment.project / ".sqlmesh-pipes" / "manifest.json"
    for path, text in [*stored.items(), (manifest, manifest.read_bytes())]:
        assert b"s3same" not in text, path


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def load_error(deployment: Deployment) -> str:
    done = deployment.dagster("definitions", "validate", "-f", str(deployment.definitions))
    assert done.returncode != 0
    return done.stdout + done.stderr


def test_a_manifest_of_a_newer_schema(deploy: Deploy) -> None:
    deployment = deploy("slow_model")
    path = deployment.project / ".sqlmesh-pipes" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 2}))
    error = load_error(deployment)
    assert "schema version 2, this dagster-sqlmesh-pipes reads version 1" in error
    assert str(path) in error


def test_a_missing_manifest(deploy: Deploy) -> None:
    deployment = deploy("slow_model")
    (deployment.project / ".sqlmesh-pipes" / "manifest.json").unlink()
    assert "sqlmesh-runner manifest --project-dir" in load_error(deployment)


@pytest.mark.parametrize(
    ("executable", "said"),
    [
        ("/nowhere/sqlmesh-runner", "There is no executable '/nowhere/sqlmesh-runner'"),
        (sys.executable, "has no SQLMesh runner: install it there"),
    ],
    ids=["missing", "a Python without sqlmesh"],
)
def test_a_runner_that_cannot_run(deploy: Deploy, executable: str, said: str) -> None:
    deployment = deploy("slow_model", launcher=f"executable={executable!r}")
    assert said in failed(deployment.materialize("*"))


def test_a_runner_that_crashes_before_it_says_anything(deploy: Deploy, tmp_path: Path) -> None:
    crashing = tmp_path / "crashing"
    crashing.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        "print('about to crash', file=sys.stderr)\nos.abort()\n"
    )
    crashing.chmod(0o755)
    error = failed(deploy("slow_model", launcher=f"executable={str(crashing)!r}").materialize("*"))
    assert "exit code 134 (killed by SIGABRT) before its first message" in error
    assert "about to crash" in error


def test_two_models_on_one_key_do_not_load(deploy: Deploy) -> None:
    deployment = deploy("slow_model")
    deployment.write_definitions(
        textwrap.dedent(f"""\
        import dagster as dg
        from dagster_sqlmesh_pipes import SQLMeshResource, SQLMeshTranslator, sqlmesh_assets_factory

        class One(SQLMeshTranslator):
            def get_asset_key(self, model):
                return dg.AssetKey("one")

        resource = SQLMeshResource(project_dir={str(deployment.project)!r}, translator=One())
        defs = dg.Definitions(assets=sqlmesh_assets_factory(sqlmesh_resource=resource))
        """)
    )
    error = load_error(deployment)
    assert "several models one asset key" in error
    assert '"late"."late"."early"' in error
