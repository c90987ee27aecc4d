"""The manifest as it is on the wire: docs/reference/manifest.md in types."""

from typing import Final, NotRequired, TypeAlias, TypedDict

__all__ = [
    "SCHEMA_VERSION",
    "AuditEntry",
    "ColumnEntry",
    "ColumnLineage",
    "ColumnSource",
    "EnvironmentVariableEntry",
    "GeneratorEntry",
    "KindProperty",
    "Manifest",
    "ModelEntry",
    "ProjectEntry",
    "StandaloneAuditEntry",
]

SCHEMA_VERSION: Final = 1

KindProperty: TypeAlias = str | int | float | bool | list[str]


class GeneratorEntry(TypedDict):
    """Who wrote the manifest."""

    name: str
    version: str
    sqlmesh_version: str


class ProjectEntry(TypedDict):
    """What holds for the project as a whole."""

    gateway: str | None
    environment: str
    default_catalog: str | None
    dialect: str | None
    state_engine: str | None
    """The engine that keeps SQLMesh's state (`duckdb`, `postgres`); None if unknown."""


class ColumnEntry(TypedDict):
    """A column of a model, with its type in the model's dialect."""

    name: str
    type: str
    description: str | None


class ColumnSource(TypedDict):
    """A column that another column is made from."""

    fqn: str
    column: str


ColumnLineage: TypeAlias = dict[str, list[ColumnSource]]


class AuditEntry(TypedDict):
    """One use of an audit on a model."""

    id: str
    name: str
    args: dict[str, str]
    blocking: bool
    skip: bool
    query: str
    dialect: str
    description: str | None


class ModelEntry(TypedDict):
    """A model, executable or not."""

    fqn: str
    name: str
    view_name: str
    catalog: str | None
    schema_name: str | None
    kind: dict[str, KindProperty]
    materialized: bool
    dialect: str
    gateway: str | None
    project: str
    path: str | None
    project_dir_index: int
    cron: str
    cron_tz: str | None
    interval_unit: str
    allow_partials: bool
    start: str | None
    end: str | None
    owner: str | None
    tags: list[str]
    description: str | None
    columns: list[ColumnEntry]
    partitioned_by: list[str]
    clustered_by: list[str]
    grains: list[str]
    depends_on: list[str]
    signals: list[str]
    enabled: bool
    query: str | None
    data_hash: str
    metadata_hash: str
    relation: str | None
    column_lineage: NotRequired[ColumnLineage]
    audits: list[AuditEntry]


class StandaloneAuditEntry(TypedDict):
    """An audit that belongs to no model and runs on a cron of its own."""

    fqn: str
    name: str
    id: str
    query: str
    dialect: str
    blocking: bool
    skip: bool
    cron: str
    cron_tz: str | None
    owner: str | None
    tags: list[str]
    description: str | None
    depends_on: list[str]
    path: str | None
    project_dir_index: int


class EnvironmentVariableEntry(TypedDict):
    """An environment variable that the project reads, and the first file that does."""

    name: str
    required: bool
    path: str
    project_dir_index: int


class Manifest(TypedDict):
    """Everything that the orchestrator shows or schedules."""

    schema_version: int
    generator: GeneratorEntry
    project: ProjectEntry
    models: list[ModelEntry]
    standalone_audits: list[StandaloneAuditEntry]
    environment_variables: list[EnvironmentVariableEntry]
