"""The manifest's values: frozen, and under SQLMesh's own attribute names."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from dagster_sqlmesh_pipes.errors import ManifestError

__all__ = [
    "Audit",
    "Column",
    "ColumnReference",
    "EnvironmentVariable",
    "Manifest",
    "Model",
    "ModelKind",
    "StandaloneAudit",
]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ModelKind(_Value):
    """A model's kind: its SQLMesh name and its properties (`kind.time_column`)."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str

    def __str__(self) -> str:
        return self.name

    def __getattr__(self, item: str) -> Any:
        # The `is_…` properties of SQLMesh's ModelKindMixin, for translators written against it.
        kinds = _KINDS_BY_PROPERTY.get(item)
        if kinds is None:
            return super().__getattr__(item)  # type: ignore[misc]  # pydantic's: extra fields
        return self.name in kinds

    @property
    def is_materialized(self) -> bool:
        """Whether the kind has a table of its own, as SQLMesh defines it: a VIEW has none."""
        return self.name not in {"EMBEDDED", "EXTERNAL", "VIEW"}


_SINGLE_KINDS = (
    "INCREMENTAL_BY_TIME_RANGE", "INCREMENTAL_BY_UNIQUE_KEY", "INCREMENTAL_BY_PARTITION",
    "INCREMENTAL_UNMANAGED", "FULL", "VIEW", "SCD_TYPE_2_BY_COLUMN", "EMBEDDED", "SEED",
    "EXTERNAL", "CUSTOM", "MANAGED", "DBT_CUSTOM",
)  # fmt: skip
_SCD_TYPE_2 = {"SCD_TYPE_2", "SCD_TYPE_2_BY_TIME", "SCD_TYPE_2_BY_COLUMN"}
_KINDS_BY_PROPERTY = {
    **{f"is_{kind.lower()}": {kind} for kind in _SINGLE_KINDS},
    "is_incremental": {kind for kind in _SINGLE_KINDS if kind.startswith("INCREMENTAL_")}
    | _SCD_TYPE_2,
    "is_scd_type_2": _SCD_TYPE_2,
    "is_scd_type_2_by_time": {"SCD_TYPE_2", "SCD_TYPE_2_BY_TIME"},
    "is_symbolic": {"EMBEDDED", "EXTERNAL"},
}


class Column(_Value):
    """A column of a model. `type` is SQL text, `UNKNOWN` where SQLMesh can't infer it."""

    name: str
    type: str
    description: str | None = None


class ColumnReference(_Value):
    """A column of a model that a column of another model is made from."""

    fqn: str
    column: str


class Audit(_Value):
    """One use of an audit on a model. `args` are SQL text; `blocking` is this use's."""

    id: str
    name: str
    args: Mapping[str, str] = Field(default_factory=dict)
    blocking: bool = True
    skip: bool = False
    query: str | None = None
    dialect: str | None = None
    description: str | None = None


class StandaloneAudit(_Value):
    """An audit that belongs to no model; it audits the models that it reads (`depends_on`)."""

    fqn: str
    name: str
    id: str
    query: str | None = None
    dialect: str | None = None
    blocking: bool = False
    skip: bool = False
    cron: str = "@daily"
    cron_tz: str | None = None
    depends_on: frozenset[str] = frozenset()
    owner: str | None = None
    tags: tuple[str, ...] = ()
    description: str | None = None
    path: str | None = None
    project_dir_index: int = 0


class Model(_Value):
    """A SQLMesh model, under SQLMesh's attribute names (`sqlmesh.core.model.Model`).

    `relation` is the environment's view, dotted, quoted only where necessary; None for EMBEDDED
    models. `materialized` is false for EMBEDDED and EXTERNAL models, which no run executes.
    """

    fqn: str
    name: str
    view_name: str
    catalog: str | None = None
    schema_name: str = ""
    kind: ModelKind
    materialized: bool = True
    dialect: str = ""
    gateway: str | None = None
    project: str = ""
    path: str | None = None
    project_dir_index: int = 0
    cron: str = "@daily"
    cron_tz: str | None = None
    interval_unit: str | None = None
    allow_partials: bool = False
    start: str | None = None
    end: str | None = None
    owner: str | None = None
    tags: tuple[str, ...] = ()
    description: str | None = None
    columns: tuple[Column, ...] = ()
    partitioned_by: tuple[str, ...] = ()
    clustered_by: tuple[str, ...] = ()
    grains: tuple[str, ...] = ()
    depends_on: frozenset[str] = frozenset()
    signals: tuple[str, ...] = ()
    enabled: bool = True
    query: str | None = None
    data_hash: str | None = None
    metadata_hash: str | None = None
    relation: str | None = None
    column_lineage: Mapping[str, tuple[ColumnReference, ...]] | None = None
    audits: tuple[Audit, ...] = ()

    @property
    def columns_to_types(self) -> dict[str, str]:
        """The columns' SQL types by name."""
        return {column.name: column.type for column in self.columns}

    @property
    def column_descriptions(self) -> dict[str, str]:
        """The descriptions of the columns that have one, by name."""
        return {column.name: column.description for column in self.columns if column.description}

    @property
    def is_external(self) -> bool:
        """Whether SQLMesh only reads this table."""
        return self.kind.name == "EXTERNAL"


class EnvironmentVariable(_Value):
    """An environment variable that the project reads, and the first file that does."""

    name: str
    required: bool = False
    path: str = ""
    project_dir_index: int = 0


class Manifest(_Value):
    """A project's models and standalone audits. Translators receive it as their `context`."""

    gateway: str | None
    environment: str
    default_catalog: str | None
    dialect: str
    state_engine: str | None = None
    """The engine that keeps SQLMesh's state: `duckdb`, `postgres`."""
    sqlmesh_version: str | None
    models: Mapping[str, Model]
    """By FQN, EXTERNAL and EMBEDDED ones included."""
    standalone_audits: tuple[StandaloneAudit, ...]
    environment_variables: tuple[EnvironmentVariable, ...] = ()
    """What the project's code and configuration read, as far as a static scan finds it."""

    @functools.cached_property
    def _by_name(self) -> Mapping[str, Model]:
        return {model.name: model for model in self.models.values()}

    def get_model(self, name_or_fqn: str, raise_if_missing: bool = False) -> Model | None:  # noqa: FBT001, FBT002 - as SQLMesh's Context
        """Return a model by its FQN or name; None if the project has no such model.

        Raises:
            ManifestError: there is no such model, and `raise_if_missing` is set.
        """
        model = self.models.get(name_or_fqn) or self._by_name.get(name_or_fqn)
        if model is None and raise_if_missing:
            msg = (
                f"The manifest has no model {name_or_fqn}. If the project has it, make the "
                "manifest again with `sqlmesh-runner manifest`."
            )
            raise ManifestError(msg)
        return model

    def tables(self, fqns: Iterable[str]) -> list[str]:
        """Return the FQNs of the tables behind these, sorted.

        An EMBEDDED model is only a part of queries; in its place come the tables that it reads.
        """
        pending, seen = list(fqns), set[str]()
        while pending:
            fqn = pending.pop()
            if fqn not in seen:
                seen.add(fqn)
                pending.extend(self.models[fqn].depends_on if self._is_embedded(fqn) else ())
        return sorted(fqn for fqn in seen if not self._is_embedded(fqn))

    def _is_embedded(self, fqn: str) -> bool:
        return fqn in self.models and self.models[fqn].kind.name == "EMBEDDED"
