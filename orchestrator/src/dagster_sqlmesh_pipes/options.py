"""The options of this package: each one's type, default, description and runner flag, once.

The factories, the resource, the launchpad and the component inherit these classes or take them as
keyword arguments (signatures.py), so that an option that is added here is an option there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import dagster as dg
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf

from dagster_sqlmesh_pipes.manifest import Model

__all__ = [
    "AssetsOptions",
    "FreshnessPolicyFunction",
    "LaunchpadOptions",
    "LocationOptions",
    "OpOptions",
    "Options",
    "OwnershipOptions",
    "ProjectOptions",
    "ResourceOptions",
    "RunOptions",
    "RunnerFlag",
    "ScheduleOptions",
    "SelectionOptions",
    "SensorOptions",
    "SourceOptions",
    "SpecOptions",
    "TickOptions",
    "as_folders",
    "as_names",
    "changed_options",
    "option_values",
    "runner_arguments",
    "spec_options",
]


def as_folders(value: Any) -> Any:
    """Return one folder, or several, as a list of strings."""
    if value is None or (isinstance(value, str) and not value):
        return None
    return [_as_text(each) for each in ([value] if isinstance(value, str | Path) else value)]


def as_names(value: str | Sequence[str]) -> list[str]:
    """Return one name, or several, as a list."""
    return [value] if isinstance(value, str) else list(value)


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


if TYPE_CHECKING:
    Folders = str | Path | Sequence[str | Path] | None
    File = str | Path | None
    Names = str | Sequence[str]
else:
    # What Dagster's config schema can express.
    Folders = Annotated[list[str] | None, BeforeValidator(as_folders)]
    File = Annotated[str | None, BeforeValidator(_as_text)]
    Names = Annotated[list[str], BeforeValidator(as_names)]

FreshnessPolicyFunction = Callable[[Model], dg.FreshnessPolicy | None]


@dataclass(frozen=True)
class RunnerFlag:
    """The command-line flag of `sqlmesh-runner` that an option becomes."""

    name: str
    command: str | None = None
    """The only command that has it; None: each has."""


class Options(BaseModel):
    """A group of options."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class SourceOptions(Options):
    """Which SQLMesh project."""

    project_dir: Annotated[Folders, RunnerFlag("--project-dir")] = Field(
        examples=["../../warehouse", "/sqlmesh/project"],
        default=None,
        description="The project's folder, or the folders of a multi-project setup, as the runner "
        "sees them. None where the runner has its own: an image with the project in it.",
    )
    gateway: Annotated[str | None, RunnerFlag("--gateway")] = Field(
        examples=["snowflake"],
        default=None,
        description="SQLMesh's gateway. Default: the project's.",
    )
    environment: Annotated[str, RunnerFlag("--environment")] = Field(
        examples=["prod"],
        default="prod",
        description="The SQLMesh environment to run. It must be planned (`sqlmesh plan`).",
    )
    config_name: Annotated[str | None, RunnerFlag("--config")] = Field(
        default=None,
        description="The variable of the project's `config.py` that is its configuration, as in "
        "`sqlmesh --config`. Default: `config`.",
        examples=["config"],
    )
    dotenv: Annotated[File, RunnerFlag("--dotenv")] = Field(
        default=None,
        description="A file of environment variables for SQLMesh, as the runner sees it, in place "
        "of the project's `.env`, as in `sqlmesh --dotenv`.",
        examples=["/etc/warehouse/prod.env"],
    )
    working_directory: Annotated[File, RunnerFlag("--working-directory")] = Field(
        default=None,
        description="Where relative paths of the project's configuration start, such as a DuckDB "
        "file's: the directory in which SQLMesh planned. Default: the project's folder, or the "
        "runner's current directory if the file is only there.",
        examples=["/srv/analytics"],
    )
    column_lineage: bool = Field(
        examples=[True],
        default=True,
        description="Whether a manifest made in development has column lineage.",
    )
    keep_last_manifest: bool = Field(
        default=True,
        description="Whether, in development, a project that can't be loaded keeps its last "
        "manifest, with a warning. Else it is an error.",
        examples=[False],
    )


class ProjectOptions(SourceOptions):
    """Which SQLMesh project, and where its manifest is."""

    manifest_path: File = Field(
        default=None,
        description="The manifest's file, as Dagster's processes see it. Default: `manifest.json` "
        "in the folder `.sqlmesh-pipes` of the (first) project folder.",
    )


class RunOptions(Options):
    """What a project and each single run may set."""

    ignore_cron: Annotated[bool, RunnerFlag("--ignore-cron", command="run")] = Field(
        examples=[False],
        default=False,
        description="Run what has missing intervals, even if the model's cron has not ticked.",
    )
    skip_janitor: Annotated[bool, RunnerFlag("--skip-janitor", command="run")] = Field(
        examples=[False],
        default=False,
        description="Leave the cleaning of expired environments and snapshots to another run.",
    )


class ResourceOptions(RunOptions):
    """How a project is run."""

    fetch_row_counts: Annotated[bool, RunnerFlag("--row-counts", command="run")] = Field(
        examples=[True],
        default=False,
        description="Count the rows of each materialized table (one query for each model).",
    )
    allowed_environments: Names = Field(
        examples=[["dev"]],
        default=[],
        description="Other environments that a single run's config may name.",
    )
    allow_restate: bool = Field(
        examples=[True],
        default=False,
        description="Whether a single run may restate models: evaluate recorded intervals again.",
    )
    lock_key: str | None = Field(
        examples=["warehouse/snowflake"],
        default=None,
        description="A name shared by exactly the runs that use one SQLMesh state. Needed where "
        "code locations with different folder names run one project, or where folders of one name "
        "hold different projects. Default: the folder's name and the gateway.",
    )
    lock_timeout: Annotated[float | None, RunnerFlag("--lock-timeout")] = Field(
        examples=[3600],
        default=None,
        ge=0,
        description="Seconds to wait for other runs: first for those of this Dagster instance, "
        "then for any on the same SQLMesh state. 0 fails at once; None waits as long as they take.",
    )
    adopt: bool = Field(
        examples=[False],
        default=True,
        description="Whether a run first reports what SQLMesh recorded outside of Dagster, by a "
        "plan or in a shell, of the models that it leaves alone.",
    )
    concurrency_limit: int = Field(
        examples=[1],
        default=1,
        ge=1,
        description="Runs on the project at a time, in whatever environments. Above 1, runs that "
        "meet at a model double its rows, and the lock on the SQLMesh state is not taken.",
    )


class LaunchpadOptions(RunOptions):
    """What a single run may set, in the launchpad or a schedule's run config."""

    start: Annotated[str | None, RunnerFlag("--start")] = Field(
        default=None,
        description="Look at intervals from here on: a date, a time in UTC, or '1 week ago'.",
    )
    end: Annotated[str | None, RunnerFlag("--end")] = Field(
        default=None, description="Look at intervals up to here."
    )
    execution_time: Annotated[str | None, RunnerFlag("--execution-time")] = Field(
        default=None, description="The time that SQLMesh uses as now."
    )
    restate: bool = Field(
        default=False,
        description="Evaluate the intervals from start to end again, of the selected models and of "
        "all that are downstream, although they are recorded. The resource must have "
        "allow_restate, and the runner the files that were planned.",
    )
    environment: str | None = Field(
        default=None,
        description="Another SQLMesh environment to run, one of the resource's "
        "allowed_environments.",
    )


class OwnershipOptions(Options):
    """Whose the assets are."""

    group_name: str | None = Field(
        examples=["warehouse"],
        default=None,
        description="The group of models whose tags don't name one. Default: the model's schema.",
    )
    owners: Sequence[str] | None = Field(
        examples=[["team:data", "data@example.com"]],
        default=None,
        description="Owners of every asset, besides the model's own.",
    )


class SpecOptions(OwnershipOptions):
    """What the asset specs have besides what the translator gives them."""

    freshness_policy: FreshnessPolicyFunction | None = Field(
        default=None,
        description="A function that returns a model's freshness policy; `freshness_from_cron` "
        "derives it from the cron.",
    )


class SelectionOptions(Options):
    """Which of a project's models."""

    select: Names = Field(
        default=[],
        description="Models to include, in SQLMesh's selector syntax: names with wildcards, "
        "`tag:`, `+` for what is upstream or downstream, `&`, `|`, `^` (not). Several are united. "
        "Default: all.",
        examples=[["marts.*", "+tag:finance"]],
    )
    exclude: Names = Field(
        default=[],
        description="Models to leave out, in the same syntax.",
        examples=[["tag:deprecated"]],
    )


class OpOptions(Options):
    """What the op has that runs the models."""

    op_tags: Mapping[str, Any] | None = Field(
        default=None, description="Tags of the op, for executors and launchers."
    )
    retry_policy: InstanceOf[dg.RetryPolicy] | None = Field(
        default=None,
        description="What to do when the step fails. A retry runs SQLMesh again, which goes on "
        "where it stopped.",
    )
    pool: str | None = Field(default=None, description="The concurrency pool of the op.")
    hooks: frozenset[InstanceOf[dg.HookDefinition]] | None = Field(
        default=None, description="Success and failure hooks of the op."
    )


class AssetsOptions(OpOptions, SpecOptions, SelectionOptions):
    """The assets of a project."""

    name: str | None = Field(
        default=None, description="The op's name. Default: `sqlmesh_<environment>`."
    )


class SensorOptions(Options):
    """How the state sensor reports what SQLMesh recorded outside of Dagster."""

    enable_sensor: bool | None = Field(
        default=None,
        description="Whether the state sensor runs without being switched on in the UI. Default: "
        "unless the manifest says that the state is in DuckDB, or does not say where it is.",
        examples=[True],
    )
    minimum_interval_seconds: int = Field(
        default=300,
        ge=1,
        description="Seconds between two evaluations of the state sensor. Each starts a runner.",
        examples=[300],
    )


class TickOptions(Options):
    """How the adaptive schedule asks for runs."""

    enable_schedule: bool = Field(
        examples=[True],
        default=False,
        description="Whether the schedule runs without being switched on in the UI.",
    )
    selection: Literal["due", "all"] = Field(
        examples=["due"],
        default="due",
        description="`due`: a tick asks for the models that are due. `all`: it asks for every "
        "model, and SQLMesh decides.",
    )
    run_tags: Mapping[str, str] | None = Field(
        examples=[{"team": "data"}],
        default=None,
        description="Tags of the runs of the job and the schedule.",
    )
    job_name: str | None = Field(
        examples=["nightly_job"],
        default=None,
        description="The job's name. Default: the schedule's, with `_job` added.",
    )


class ScheduleOptions(TickOptions):
    """The adaptive schedule and its job."""

    executor_def: InstanceOf[dg.ExecutorDefinition] | None = Field(
        default=None,
        description="The job's executor. Default: its one step runs in the run's own process.",
    )


class LocationOptions(Options):
    """How a project fits beside others into a code location."""

    external_asset_mapping: str | None = Field(
        default=None,
        description="A template for the keys of external tables, in place of a translator. It may "
        "use `{node.database}`, `{node.schema}`, `{node.name}` and `{node.fqn}`.",
        examples=["sling/{node.schema}/{node.name}"],
    )
    schedule_name: str | None = Field(
        default=None,
        description="The schedule's name, which also names its job. Default: "
        "`sqlmesh_adaptive_schedule`; for an op that isn't `sqlmesh_prod`, the op's name with "
        "`_adaptive_schedule` added, so that a code location may have several.",
        examples=["nightly"],
    )


def runner_arguments(options: BaseModel, command: str | None = None) -> list[str]:
    """Return a command's arguments for the options that have a flag there."""
    arguments: list[str] = []
    for name, field in type(options).model_fields.items():
        value = getattr(options, name)
        for flag in (each for each in field.metadata if isinstance(each, RunnerFlag)):
            if flag.command in (None, command):
                arguments += _flag_arguments(flag.name, value)
    return arguments


def _flag_arguments(flag: str, value: Any) -> list[str]:
    match value:
        case None | False | "":
            return []
        case True:
            return [flag]
        case float() | int():  # 0 is a value, too
            return [flag, f"{value:g}"]
        case str():
            return [flag, value]
    return [part for each in value for part in (flag, each)]


def spec_options(options: SpecOptions | None) -> SpecOptions:
    """Return a larger group's spec options alone, which can be compared with others."""
    return SpecOptions() if options is None else SpecOptions(**option_values(options, SpecOptions))


def option_values(options: BaseModel, *groups: type[BaseModel]) -> dict[str, Any]:
    """Return the values of the options of some groups, as keyword arguments."""
    return {name: getattr(options, name) for group in groups for name in group.model_fields}


def changed_options(options: BaseModel, *groups: type[BaseModel]) -> set[str]:
    """Return the names of the options of some groups that differ from their defaults."""
    defaults = {name: field.get_default() for name, field in type(options).model_fields.items()}
    values = option_values(options, *groups)
    return {name for name, value in values.items() if value != defaults[name]}
