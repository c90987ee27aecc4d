"""The component: what YAML says becomes definitions, by the same way as the factory's arguments."""

import asyncio
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster.components.resolved.errors import ResolutionException
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from pydantic import BaseModel, ValidationError
from unit.orchestrator.shop import SHOP, fqn, manifest, model
from yaml import safe_load  # type: ignore[import-untyped]

import dagster_sqlmesh_pipes
from dagster_sqlmesh_pipes import (
    DockerLauncher,
    KubernetesLauncher,
    SQLMeshProjectComponent,
    SQLMeshResource,
    SubprocessLauncher,
)
from dagster_sqlmesh_pipes.errors import ManifestError
from dagster_sqlmesh_pipes.testing import FakeLauncher, finished, materialization

# Dagster's own, where it parses YAML.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")

EVERYTHING = """
    project_dir: /in/the/image
    gateway: duckdb
    environment: prod
    column_lineage: false
    config_name: staging
    dotenv: /etc/warehouse/prod.env
    working_directory: /srv/analytics
    keep_last_manifest: false
    launcher: {type: docker, image: warehouse-runner, mem_limit: 2g, env: {REGION: EU}}
    translation:
      key: wh/{{ node.schema_name }}/{{ node.view_name }}
      group_name: "{{ spec.group_name }}_models"
    external_asset_mapping: sling/{node.name}
    op: {name: warehouse, tags: {team: data}, pool: duckdb}
    retry_policy: {max_retries: 2, delay: 60}
    freshness: {grace_minutes: 120}
    select: [marts.orders, staging.*]
    exclude: tag:none | staging.none | marts.customers
    group_name: all
    owners: [team:data]
    adopt: false
    allow_restate: true
    ignore_cron: true
    skip_janitor: true
    fetch_row_counts: true
    allowed_environments: [dev]
    allow_restate: true
    lock_key: shared
    lock_timeout: 60
    concurrency_limit: 2
    enable_schedule: true
    enable_sensor: true
    minimum_interval_seconds: 60
    selection: all
    run_tags: {team: data}
    job_name: nightly_job
    schedule_name: nightly
    defs_state: {management_type: VERSIONED_STATE_STORAGE}
"""


def component(yaml: str, of: type[SQLMeshProjectComponent] = SQLMeshProjectComponent) -> Any:
    return of.resolve_from_yaml(textwrap.dedent(yaml))


def definitions(made: Any, folder: Path, **content: Any) -> dg.Definitions:
    path = folder / "state"
    path.write_text(json.dumps({**manifest(SHOP), **content}))
    defs: dg.Definitions = made.build_defs_from_state(None, path)
    path.unlink()  # it may have been in a temporary folder
    return defs


def assets_of(defs: dg.Definitions) -> dg.AssetsDefinition:
    (assets,) = (each for each in defs.assets or () if isinstance(each, dg.AssetsDefinition))
    return assets


def test_yaml_has_every_field() -> None:
    written = {line.strip().partition(":")[0] for line in EVERYTHING.splitlines()}
    assert set(SQLMeshProjectComponent.model_fields) < written


def test_yaml_reaches_the_definitions(tmp_path: Path) -> None:
    made = component(EVERYTHING)
    assert made.launcher == DockerLauncher(
        image="warehouse-runner", mem_limit="2g", env={"REGION": "EU"}
    )
    assert made.defs_state_config.management_type.value == "VERSIONED_STATE_STORAGE"
    assert made.defs_state_config.key == "SQLMeshProjectComponent[image/duckdb/prod]"
    defs = definitions(made, tmp_path)
    assets = assets_of(defs)
    events = assets.get_asset_spec(dg.AssetKey(["wh", "staging", "events"]))
    assert events.group_name == "all_models"
    assert list(events.owners) == ["team:data"]
    assert [dep.asset_key.to_user_string() for dep in events.deps] == ["sling/events"]
    assert events.freshness_policy is not None
    orders = assets.get_asset_spec(dg.AssetKey(["wh", "marts", "orders"]))
    assert [dep.asset_key for dep in orders.deps] == [events.key]
    assert (assets.op.name, assets.op.tags["team"], assets.op.pool) == (
        "warehouse",
        "data",
        "duckdb",
    )
    assert assets.op.retry_policy == dg.RetryPolicy(max_retries=2, delay=60)
    (schedule,) = defs.schedules or ()
    assert isinstance(schedule, dg.ScheduleDefinition)
    assert (schedule.name, schedule.job_name) == ("nightly", "nightly_job")
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    (sensor,) = defs.sensors or ()
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    assert sensor.minimum_interval_seconds == 60
    assert defs.resolve_job_def("nightly_job").run_tags["team"] == "data"
    assert (made.lock_key, made.lock_timeout, made.concurrency_limit) == ("shared", 60, 2)
    assert (made.adopt, made.ignore_cron, made.skip_janitor, made.fetch_row_counts) == (
        False,
        True,
        True,
        True,
    )


def test_subprocess_is_the_default_launcher() -> None:
    assert component("project_dir: /in/the/image").launcher == SubprocessLauncher()


@pytest.mark.parametrize(
    ("yaml", "launcher"),
    [
        (
            "{type: subprocess, executable: /opt/runner, stop_grace: 5}",
            SubprocessLauncher(executable="/opt/runner", stop_grace=5),
        ),
        (
            "{type: kubernetes, image: wh, namespace: data, env_secrets: [warehouse]}",
            KubernetesLauncher(image="wh", namespace="data", env_secrets=["warehouse"]),
        ),
    ],
)
def test_type_names_the_launcher(yaml: str, launcher: object) -> None:
    assert component(f"launcher: {yaml}").launcher == launcher


@pytest.mark.parametrize(
    "yaml",
    [
        "launcher: {type: dokcer, image: x}",
        "launcher: {type: docker}",
        "launcher: {type: subprocess, image: x}",
        "gatway: duckdb",
        "concurrency_limit: 0",
    ],
)
def test_yaml_that_cannot_work_is_refused_by_its_schema(yaml: str) -> None:
    with pytest.raises(ValidationError, match=yaml.partition(":")[0]):
        component(yaml)


@pytest.mark.parametrize(
    ("yaml", "path", "said"),
    [
        ("launcher: {type: dokcer}", "launcher/type", "'dokcer' is not one of ['docker', "),
        ("launcher: {image: x}", "launcher", "'type' is a required property"),
        ("launcher: {type: docker}", "launcher", "'image' is a required property"),
        ("launcher: {type: docker, image: x, mem: 2g}", "launcher", "('mem' was unexpected)"),
        ("launcher: [docker]", "launcher", "is not of type 'object', 'string'"),
        ("op: {nam: x}", "op", "('nam' was unexpected)"),
        ("translation: {kee: x}", "translation", "('kee' was unexpected)"),
        ("concurrency_limit: 0", "concurrency_limit", "0 is less than the minimum of 1"),
        ("gatway: duckdb", "", "('gatway' was unexpected)"),
    ],
)
def test_schema_error_has_its_own_place_and_says_what_is_wrong(
    yaml: str, path: str, said: str
) -> None:
    schema = SQLMeshProjectComponent.model().model_json_schema()
    (error,) = Draft202012Validator(schema).iter_errors(safe_load(yaml))
    assert "/".join(map(str, error.absolute_path)) == path
    assert said in error.message


def test_schema_accepts_every_field() -> None:
    validator = Draft202012Validator(SQLMeshProjectComponent.model().model_json_schema())
    written = safe_load(EVERYTHING)
    templates = {"launcher": "{{ launchers.warehouse }}", "concurrency_limit": "{{ limit }}"}
    for attributes in (written, {**written, **templates}):
        assert not list(validator.iter_errors(attributes))


@pytest.mark.parametrize(
    ("yaml", "said"),
    [
        ("launcher: docker", "launcher: 'docker' is not a launcher. Write a mapping with a `type`"),
        (
            "launcher: {type: docker, image: '{{ env.NOT_SET }}'}",
            r"launcher.image: {{ env.NOT_SET }} is empty",
        ),
        ("gateway: '{{ env.NOT_SET }}'", "gateway: {{ env.NOT_SET }} is empty"),
        (
            "launcher: {type: subprocess, stop_grace: soon}",
            "launcher.stop_grace: Input should be a valid number",
        ),
        ("project_dir: ../nowhere", "project_dir: there is no folder"),
        ("selection: some", "selection: Input should be 'due' or 'all'"),
        ("concurrency_limit: '{{ 1 - 1 }}'", "concurrency_limit: Input should be greater than"),
    ],
)
def test_value_that_cannot_work_is_an_error_that_names_its_key(yaml: str, said: str) -> None:
    with pytest.raises(ResolutionException) as error:
        component(yaml)
    assert said in str(error.value)


def test_template_without_key_part_names_the_model(tmp_path: Path) -> None:
    made = component("translation: {key: 'a/{{ node.nothing }}'}")
    with pytest.raises(ResolutionException) as error:
        definitions(made, tmp_path)
    assert "translation.key: The translator returns the asset key 'a/' for" in str(error.value)


def test_translation_sets_automation_conditions(tmp_path: Path) -> None:
    made = component("translation: {automation_condition: '{{ dg.AutomationCondition.eager() }}'}")
    assets = assets_of(definitions(made, tmp_path))
    conditions = {spec.automation_condition for spec in assets.specs}
    assert conditions == {dg.AutomationCondition.eager()}


class Custom(SQLMeshProjectComponent):
    def get_asset_spec(self, context: Any, model: Any, base: dg.AssetSpec) -> dg.AssetSpec:
        return super().get_asset_spec(context, model, base).merge_attributes(tags={"custom": "1"})

    def get_asset_check_spec(
        self, context: Any, audit: Any, base: dg.AssetCheckSpec
    ) -> dg.AssetCheckSpec:
        return base._replace(description="custom")

    def execute(self, context: Any, sqlmesh: SQLMeshResource, config: Any) -> Iterator[Any]:
        yield dg.AssetObservation("landing")
        yield from super().execute(context, sqlmesh, config)


def test_subclass_overrides_specs_and_execution(tmp_path: Path) -> None:
    launcher = FakeLauncher(messages=[materialization("shop/marts/orders"), finished()])
    made = component("owners: [team:data]", of=Custom).model_copy(update={"launcher": launcher})
    defs = definitions(made, tmp_path)
    assets = assets_of(defs)
    assert {spec.tags["custom"] for spec in assets.specs} == {"1"}
    assert {spec.description for spec in assets.check_specs} == {"custom"}
    result = defs.resolve_job_def("sqlmesh_adaptive_schedule_job").execute_in_process()
    observed = [event.asset_key for event in result.get_asset_observation_events()]
    assert observed == [dg.AssetKey("landing")]
    assert len(result.get_asset_materialization_events()) == 1
    assert made.defs_state_config.key == "Custom[sqlmesh/prod]"


def test_missing_state_is_an_error_that_says_what_to_run() -> None:
    with pytest.raises(ManifestError, match="dg utils refresh-defs-state"):
        component("gateway: duckdb").build_defs_from_state(None, None)


def test_state_of_another_environment_is_an_error(tmp_path: Path) -> None:
    made = component("environment: dev")
    with pytest.raises(ManifestError, match="is of the environment prod, not dev"):
        definitions(made, tmp_path)


def test_state_is_the_manifest_that_the_launcher_makes(tmp_path: Path) -> None:
    launcher = FakeLauncher(manifest=manifest(SHOP))
    made = component("gateway: duckdb").model_copy(update={"launcher": launcher})
    made.write_state_to_path(tmp_path / "of" / "shop" / "state")
    assert json.loads((tmp_path / "of" / "shop" / "state").read_text()) == manifest(SHOP)
    assert launcher.requests[0].arguments[:3] == ["manifest", "--gateway", "duckdb"]


def test_state_in_development_is_made_when_files_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    launcher = FakeLauncher(manifest=manifest(SHOP))
    made = component(f"project_dir: {tmp_path}").model_copy(update={"launcher": launcher})
    made.write_state_to_path(tmp_path / "state")
    made.write_state_to_path(tmp_path / "state")
    assert len(launcher.requests) == 2, "as `dg utils refresh-defs-state` does"
    monkeypatch.setenv("DAGSTER_IS_DEV_CLI", "1")
    made.write_state_to_path(tmp_path / "state")
    assert len(launcher.requests) == 2
    (tmp_path / "models" / "orders.sql").write_text("SELECT 1")
    made.write_state_to_path(tmp_path / "state")
    assert len(launcher.requests) == 3


def test_versioned_state_is_replaced_without_a_new_image(tmp_path: Path) -> None:
    storage = {
        "module": "dagster._core.storage.defs_state.blob_storage_state_storage",
        "class": "UPathDefsStateStorage",
        "config": {"base_path": str(tmp_path / "storage")},
    }
    made = component("defs_state: {management_type: VERSIONED_STATE_STORAGE}")
    context: Any = SimpleNamespace(project_root=tmp_path)
    with dg.instance_for_test(overrides={"defs_state_storage": storage}):
        with pytest.raises(ManifestError, match="VERSIONED_STATE_STORAGE"):
            made.build_defs(context)
        for models in (SHOP, [*SHOP, model("marts.added")]):
            launcher = FakeLauncher(manifest=manifest(models))
            refreshed = made.model_copy(update={"launcher": launcher})
            asyncio.run(refreshed.refresh_state(tmp_path))
            assets = assets_of(made.build_defs(context))
    assert dg.AssetKey(["shop", "marts", "added"]) in assets.keys


def test_every_field_has_a_description_and_examples() -> None:
    schema = SQLMeshProjectComponent.model().model_json_schema()
    for name, field in schema["properties"].items():
        assert field.get("description"), name
        assert field.get("examples"), name
    for launcher in ("SubprocessLauncherModel", "DockerLauncherModel", "KubernetesLauncherModel"):
        for name, field in schema["$defs"][launcher]["properties"].items():
            assert field.get("description"), f"{launcher}.{name}"


def test_launcher_models_have_every_option_of_their_launchers() -> None:
    schema = SQLMeshProjectComponent.model().model_json_schema()
    launchers: list[type[BaseModel]] = [SubprocessLauncher, DockerLauncher, KubernetesLauncher]
    for launcher in launchers:
        fields = schema["$defs"][f"{launcher.__name__}Model"]["properties"]
        assert set(fields) == {"type", *launcher.model_fields}


def test_component_is_found_without_being_imported_by_others() -> None:
    assert "SQLMeshProjectComponent" in dir(dagster_sqlmesh_pipes)


def test_component_shows_embedded_models_too(tmp_path: Path) -> None:
    embedded = {"kind": {"name": "EMBEDDED"}, "materialized": False}
    models = [*SHOP, model("staging.lookup", **embedded, depends_on=[fqn("raw.events")])]
    defs = definitions(component("gateway: duckdb"), tmp_path, models=models)
    assert (
        dg.AssetKey(["shop", "staging", "lookup"])
        in defs.resolve_asset_graph().get_all_asset_keys()
    )
