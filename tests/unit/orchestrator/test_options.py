"""Each option reaches what it is for, from the factory's argument on."""

import datetime
import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from unit.orchestrator.shop import SHOP, Make, manifest, run

import dagster_sqlmesh_pipes.project
import dagster_sqlmesh_pipes.resource
from dagster_sqlmesh_pipes import (
    SQLMeshProject,
    SQLMeshResource,
    SQLMeshRunConfig,
    SQLMeshTranslator,
    sqlmesh_adaptive_schedule_factory,
    sqlmesh_assets,
    sqlmesh_assets_factory,
    sqlmesh_definitions_factory,
)
from dagster_sqlmesh_pipes.errors import ConfigurationError
from dagster_sqlmesh_pipes.options import (
    AssetsOptions,
    LaunchpadOptions,
    OpOptions,
    ProjectOptions,
    ResourceOptions,
    RunOptions,
    ScheduleOptions,
    SpecOptions,
)
from dagster_sqlmesh_pipes.run.request import StepSettings
from dagster_sqlmesh_pipes.testing import FakeLauncher

EVENTS = dg.AssetKey(["shop", "staging", "events"])
FRESH = dg.FreshnessPolicy.time_window(fail_window=datetime.timedelta(hours=3))


class Renamed(SQLMeshTranslator):
    def get_asset_key(self, model: Any) -> dg.AssetKey:
        return super().get_asset_key(model).with_prefix("renamed")


@dg.success_hook
def celebrate(_context: dg.HookContext) -> None:
    """Do nothing."""


class Made:
    """What the definitions factory makes of its arguments."""

    def __init__(self, folder: Path, **options: Any) -> None:
        path = folder / "manifest.json"
        path.write_text(json.dumps(manifest(SHOP)))
        self.launcher = options.setdefault("launcher", FakeLauncher(manifest=manifest(SHOP)))
        options.setdefault("manifest_path", path)
        self.definitions = sqlmesh_definitions_factory(**options)

    @property
    def assets(self) -> dg.AssetsDefinition:
        (assets,) = self.definitions.assets or ()
        assert isinstance(assets, dg.AssetsDefinition)
        return assets

    @property
    def events(self) -> dg.AssetSpec:
        return self.assets.get_asset_spec(EVENTS)

    @property
    def schedule(self) -> dg.ScheduleDefinition:
        (schedule,) = self.definitions.schedules or ()
        assert isinstance(schedule, dg.ScheduleDefinition)
        return schedule

    @property
    def sensor(self) -> dg.SensorDefinition:
        (sensor,) = self.definitions.sensors or ()
        return sensor

    @property
    def job(self) -> dg.JobDefinition:
        return self.definitions.resolve_job_def(self.schedule.job_name)

    @property
    def settings(self) -> StepSettings:
        """What the run gets of the resource, which the assets are bound to."""
        found: list[StepSettings] = []

        def run_step(_context: object, settings: StepSettings, _config: object) -> Iterator[Any]:
            found.append(settings)
            return (_ for _ in ())

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dagster_sqlmesh_pipes.resource, "run_step", run_step)
            assert self.job.execute_in_process().success
        return found[0]


def in_settings(name: str) -> Callable[[Made], Any]:
    return lambda made: getattr(made.settings.options, name)


def has_flag(flag: str) -> Callable[[Made], bool]:
    def look(made: Made) -> bool:
        assert made.job.execute_in_process().success
        return flag in made.launcher.requests[-1].arguments

    return look


FAKE = FakeLauncher(manifest=manifest(SHOP))
TEMPLATE = "sling/{node.name}"
REACHES: dict[str, tuple[Any, Callable[[Made], Any], Any]] = {
    # option: value, where it is found, what is found there
    "project_dir": ("/in/the/image", lambda made: made.settings.project.project_dirs[0], ...),
    "manifest_path": (None, lambda made: made.settings.project.manifest_path.name, "manifest.json"),
    "gateway": ("pg", lambda made: made.settings.project.gateway, ...),
    "environment": ("dev", lambda made: made.settings.project.environment, ...),
    "config_name": ("staging", lambda made: made.settings.project.config_name, ...),
    "dotenv": ("/in/the/image.env", lambda made: made.settings.project.dotenv, ...),
    "working_directory": ("/in/it", lambda made: made.settings.project.working_directory, ...),
    "column_lineage": (False, lambda made: made.settings.project.column_lineage, ...),
    "keep_last_manifest": (False, lambda made: made.settings.project.keep_last_manifest, ...),
    "launcher": (FAKE, lambda made: made.settings.launcher, ...),
    "translator": (
        Renamed(),
        lambda made: {key.path[0] for key in made.assets.keys},
        {"renamed"},
    ),
    "external_asset_mapping": (
        TEMPLATE,
        lambda made: [dep.asset_key.to_user_string() for dep in made.events.deps],
        ["sling/events"],
    ),
    "ignore_cron": (True, has_flag("--ignore-cron"), True),
    "skip_janitor": (True, has_flag("--skip-janitor"), True),
    "fetch_row_counts": (True, has_flag("--row-counts"), True),
    "allowed_environments": (["dev"], in_settings("allowed_environments"), ...),
    "allow_restate": (True, in_settings("allow_restate"), ...),
    "lock_key": ("shared", lambda made: made.settings.lock_key, ...),
    "lock_timeout": (0, in_settings("lock_timeout"), ...),
    "adopt": (False, in_settings("adopt"), ...),
    "concurrency_limit": (2, in_settings("concurrency_limit"), ...),
    "name": ("stock", lambda made: made.assets.op.name, ...),
    "select": (["staging.*"], lambda made: made.assets.keys, {EVENTS}),
    "exclude": (["marts.*"], lambda made: made.assets.keys, {EVENTS}),
    "group_name": ("all", lambda made: made.events.group_name, ...),
    "owners": (["team:data"], lambda made: list(made.events.owners), ...),
    "freshness_policy": (lambda _model: FRESH, lambda made: made.events.freshness_policy, FRESH),
    "op_tags": ({"a": "b"}, lambda made: made.assets.op.tags["a"], "b"),
    "retry_policy": (dg.RetryPolicy(max_retries=7), lambda made: made.assets.op.retry_policy, ...),
    "pool": ("warehouse", lambda made: made.assets.op.pool, ...),
    "hooks": (frozenset({celebrate}), lambda made: made.assets.hook_defs, ...),
    "enable_schedule": (
        True,
        lambda made: made.schedule.default_status,
        dg.DefaultScheduleStatus.RUNNING,
    ),
    "selection": ("due", lambda _made: "due", ...),  # `all` is tried in test_tick.py
    "run_tags": ({"team": "data"}, lambda made: made.job.run_tags["team"], "data"),
    "job_name": ("nightly", lambda made: made.schedule.job_name, ...),
    "executor_def": (
        dg.multiprocess_executor,
        lambda made: made.job.executor_def,
        dg.multiprocess_executor,
    ),
    "enable_sensor": (
        True,
        lambda made: made.sensor.default_status,
        dg.DefaultSensorStatus.RUNNING,
    ),
    "minimum_interval_seconds": (60, lambda made: made.sensor.minimum_interval_seconds, ...),
    "schedule_name": ("nightly", lambda made: made.schedule.name, ...),
}


@pytest.mark.parametrize("option", REACHES)
def test_option_of_definitions_factory_reaches_its_use(option: str, tmp_path: Path) -> None:
    value, find, expected = REACHES[option]
    options = {} if option == "manifest_path" else {option: value}
    found = find(Made(tmp_path, **options))
    assert found == (value if expected is ... else expected)


def test_every_option_of_definitions_factory_is_tried_here() -> None:
    assert set(inspect.signature(sqlmesh_definitions_factory).parameters) == set(REACHES)


def test_option_groups_are_arguments_of_the_factories() -> None:
    def arguments(function: Callable[..., Any]) -> set[str]:
        return {*inspect.signature(function).parameters}

    everything = {
        name
        for group in (ProjectOptions, ResourceOptions, AssetsOptions, ScheduleOptions)
        for name in group.model_fields
    }
    assert everything <= arguments(sqlmesh_definitions_factory)
    assert {*AssetsOptions.model_fields} < arguments(sqlmesh_assets_factory)
    assert {*AssetsOptions.model_fields} < arguments(sqlmesh_assets)
    assert {*SpecOptions.model_fields, *OpOptions.model_fields, *ScheduleOptions.model_fields} < (
        arguments(sqlmesh_adaptive_schedule_factory)
    )


def test_project_and_resource_declare_options_alike() -> None:
    project = inspect.signature(SQLMeshProject).parameters
    for name, field in ProjectOptions.model_fields.items():
        assert project[name].default == field.get_default()
    for group in (ProjectOptions, ResourceOptions):
        for name, field in group.model_fields.items():
            assert SQLMeshResource.model_fields[name].description == field.description
    for name, field in LaunchpadOptions.model_fields.items():
        assert SQLMeshRunConfig.model_fields[name].description == field.description
    assert {*RunOptions.model_fields} < {*LaunchpadOptions.model_fields}


@pytest.mark.parametrize("function", [sqlmesh_assets, sqlmesh_definitions_factory])
def test_docstrings_describe_every_argument(function: Callable[..., Any]) -> None:
    documented = inspect.getdoc(function) or ""
    for name in inspect.signature(function).parameters:
        assert f"\n    {name}: " in documented
    assert max(map(len, documented.splitlines())) <= 100


def test_launchpad_options_are_the_runs_config(make_resource: Make) -> None:
    values = {
        "ignore_cron": True,
        "skip_janitor": True,
        "start": "2026-01-01",
        "end": "2026-01-02",
        "execution_time": "2026-01-03",
        "environment": "dev",
        "restate": False,  # tried in test_restatement.py
    }
    assert set(values) == {*LaunchpadOptions.model_fields}
    launcher = FakeLauncher()
    resource = make_resource(launcher, allowed_environments=["dev"])
    assert run(resource, run_config={"ops": {"sqlmesh_prod": {"config": values}}}).success
    asked = " ".join(launcher.requests[0].arguments)
    assert "--environment dev" in asked
    assert "--ignore-cron --skip-janitor" in asked
    assert "--start 2026-01-01 --end 2026-01-02 --execution-time 2026-01-03" in asked


def test_unknown_option_is_a_type_error_as_of_any_function(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'gatway'"):
        Made(tmp_path, gatway="duckdb")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"concurrency_limit": 0}, "concurrency_limit: Input should be greater than or equal to 1"),
        ({"selection": "some"}, "selection: Input should be 'due' or 'all'"),
        ({"retry_policy": 3}, "retry_policy: Input should be an instance of RetryPolicy"),
        (
            {"translator": Renamed(), "external_asset_mapping": TEMPLATE},
            "translator and external_asset_mapping exclude each other",
        ),
    ],
)
def test_option_that_cannot_work_is_a_configuration_error(
    options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError) as error:
        Made(tmp_path, **options)
    assert said in str(error.value)


def test_assets_with_options_of_assets_are_refused(make_resource: Make) -> None:
    resource = make_resource(FakeLauncher())
    assets = sqlmesh_assets_factory(sqlmesh_resource=resource)
    with pytest.raises(ConfigurationError, match="group_name, pool have no effect on assets that"):
        sqlmesh_adaptive_schedule_factory(
            sqlmesh_resource=resource, assets=assets, group_name="a", pool="b"
        )


def test_resource_maps_its_project_once(make_resource: Make) -> None:
    resource = make_resource(FakeLauncher())
    assets = sqlmesh_assets_factory(sqlmesh_resource=resource, group_name="all")
    assert resource.project is resource.project
    mapping = resource.mapping()
    assert mapping.options.group_name == "all"
    sqlmesh_adaptive_schedule_factory(sqlmesh_resource=resource, assets=assets)
    assert resource.mapping() is mapping


def test_resource_takes_paths_and_one_name_for_several(tmp_path: Path) -> None:
    resource = SQLMeshResource(
        project_dir=tmp_path,
        manifest_path=tmp_path / "manifest.json",
        dotenv=tmp_path / ".env",
        allowed_environments="dev",
    )
    assert resource.project.project_dirs == (str(tmp_path),)
    assert resource.project.manifest_path == tmp_path / "manifest.json"
    assert resource.project.dotenv == str(tmp_path / ".env")
    assert resource.allowed_environments == ["dev"]
