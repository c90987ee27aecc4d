"""The manifest as the orchestrator reads it: frozen values under SQLMesh's own attribute names.

`sqlmesh-runner manifest` writes it (docs/contract.md, section 1). Reading it is all that importing a user's definitions
costs: no SQLMesh, no project files, no process.
"""

import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dagster_sqlmesh_pipes.errors import ManifestError

__all__ = [
    "SCHEMA_VERSION",
    "Audit",
    "Column",
    "ColumnReference",
    "Manifest",
    "Model",
    "ModelKind",
    "StandaloneAudit",
    "load_manifest",
]

SCHEMA_VERSION = 1
"""The one manifest schema this package reads."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ModelKind(_Value):
    """A model's kind: its SQLMesh name (`INCREMENTAL_BY_TIME_RANGE`) and scalar properties (`kind.time_column`)."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str

    def __str__(self) -> str:
        return self.name

    def __getattr__(self, item: str) -> Any:
        # The `is_…` properties of SQLMesh's ModelKindMixin; translators written against it ask for those.
        kinds = _KINDS_THAT.get(item)
        return super().__getattr__(item) if kinds is None else self.name in kinds  # type: ignore[misc]  # pydantic's: extra fields

    @property
    def is_materialized(self) -> bool:
        """Tell whether it has a table of its own, as SQLMesh does: a VIEW has none."""
        return self.name not in {"EMBEDDED", "EXTERNAL", "VIEW"}


_SINGLE_KINDS = (
    "INCREMENTAL_BY_TIME_RANGE", "INCREMENTAL_BY_UNIQUE_KEY", "INCREMENTAL_BY_PARTITION", "INCREMENTAL_UNMANAGED", "FULL", "VIEW",
    "SCD_TYPE_2_BY_COLUMN", "EMBEDDED", "SEED", "EXTERNAL", "CUSTOM", "MANAGED", "DBT_CUSTOM",
)  # fmt: skip
_SCD_TYPE_2 = {"SCD_TYPE_2", "SCD_TYPE_2_BY_TIME", "SCD_TYPE_2_BY_COLUMN"}
_KINDS_THAT = {
    **{f"is_{kind.lower()}": {kind} for kind in _SINGLE_KINDS},
    "is_incremental": {kind for kind in _SINGLE_KINDS if kind.startswith("INCREMENTAL_")} | _SCD_TYPE_2,
    "is_scd_type_2": _SCD_TYPE_2,
    "is_scd_type_2_by_time": {"SCD_TYPE_2", "SCD_TYPE_2_BY_TIME"},
    "is_symbolic": {"EMBEDDED", "EXTERNAL"},
}


class Column(_Value):
    """A column of a model. `type` is SQL text, `UNKNOWN` where SQLMesh can't tell."""

    name: str
    type: str
    description: str | None = None


class ColumnReference(_Value):
    """A column of some model: what a column of another one is made from."""

    fqn: str
    column: str


class Audit(_Value):
    """One use of an audit on a model. `args` are SQL text; `blocking` is what holds for this use."""

    id: str
    name: str
    args: Mapping[str, str] = Field(default_factory=dict)
    blocking: bool = True
    skip: bool = False
    query: str | None = None
    dialect: str | None = None
    description: str | None = None


class StandaloneAudit(_Value):
    """An audit of its own, over the models that it reads (`depends_on`)."""

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

    `relation` is the environment's view, dotted, quoted only where it must be; None for EMBEDDED models. `materialized` is false for EMBEDDED
    and EXTERNAL models, which no run executes.
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
        """Give the columns' SQL types by name."""
        return {column.name: column.type for column in self.columns}

    @property
    def column_descriptions(self) -> dict[str, str]:
        """Give the descriptions of the columns that have one, by name."""
        return {column.name: column.description for column in self.columns if column.description}

    @property
    def is_external(self) -> bool:
        """Tell whether SQLMesh only reads this table."""
        return self.kind.name == "EXTERNAL"


class _ProjectFacts(_Value):
    gateway: str | None = None
    environment: str = "prod"
    default_catalog: str | None = None
    dialect: str | None = None


class Manifest(_Value):
    """A project's models and standalone audits. Translators get it as their `context`."""

    gateway: str | None
    environment: str
    default_catalog: str | None
    dialect: str
    sqlmesh_version: str | None
    models: Mapping[str, Model]
    """By FQN, EXTERNAL and EMBEDDED ones included."""
    standalone_audits: tuple[StandaloneAudit, ...]

    @functools.cached_property
    def _by_name(self) -> Mapping[str, Model]:
        return {model.name: model for model in self.models.values()}

    def get_model(self, name_or_fqn: str, raise_if_missing: bool = False) -> Model | None:  # noqa: FBT001, FBT002 - as SQLMesh's Context
        """Find a model by FQN or name; None when the project has none.

        Raises:
            ManifestError: it has none, and `raise_if_missing`.
        """
        model = self.models.get(name_or_fqn) or self._by_name.get(name_or_fqn)
        if model is None and raise_if_missing:
            msg = f"The manifest has no model {name_or_fqn}. If the project has it, make the manifest again with `sqlmesh-runner manifest`."
            raise ManifestError(msg)
        return model

    def tables(self, fqns: Iterable[str]) -> list[str]:
        """Give the FQNs of the tables behind these, sorted: in place of an EMBEDDED model, which is only a part of queries, what it reads."""
        ahead, seen = list(fqns), set[str]()
        while ahead:
            fqn = ahead.pop()
            if fqn not in seen:
                seen.add(fqn)
                ahead.extend(self.models[fqn].depends_on if self._is_embedded(fqn) else ())
        return sorted(fqn for fqn in seen if not self._is_embedded(fqn))

    def _is_embedded(self, fqn: str) -> bool:
        return fqn in self.models and self.models[fqn].kind.name == "EMBEDDED"


def load_manifest(path: str | Path) -> Manifest:
    """Read a manifest file, once per process and state of the file.

    Raises:
        ManifestError: it is missing, no manifest, or of a schema version this package does not read.
    """
    path = Path(path)
    try:
        status = path.stat()
    except OSError as exc:
        msg = (
            f"There is no SQLMesh manifest at {path} ({exc.strerror}). Make it where SQLMesh is installed: "
            f"`sqlmesh-runner manifest --project-dir PROJECT -o {path}`."
        )
        raise ManifestError(msg) from exc
    return _load(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=32)
def _load(path: Path, _mtime_ns: int, _size: int) -> Manifest:
    try:
        return parse_manifest(json.loads(path.read_bytes()))
    except ManifestError as exc:
        msg = f"{path}: {exc}"
        raise ManifestError(msg) from exc
    except ValueError as exc:
        msg = f"{path} is not JSON ({exc}). Make the manifest again with `sqlmesh-runner manifest`."
        raise ManifestError(msg) from exc


def parse_manifest(raw: Any) -> Manifest:
    """Check the schema version and turn parsed JSON into a manifest.

    Raises:
        ManifestError: it is no manifest, or of another schema version.
    """
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if version is None:
        msg = "it has no `schema_version`, so it is no manifest of `sqlmesh-runner manifest`."
        raise ManifestError(msg)
    if version != SCHEMA_VERSION:
        older = isinstance(version, int) and version < SCHEMA_VERSION
        upgrade = "sqlmesh-runner and make the manifest again" if older else "dagster-sqlmesh-pipes"
        msg = f"the manifest has schema version {version}, this dagster-sqlmesh-pipes reads version {SCHEMA_VERSION}. Upgrade {upgrade}."
        raise ManifestError(msg)
    try:
        project = _ProjectFacts.model_validate(raw.get("project", {}))
        models = [Model.model_validate(model) for model in raw["models"]]
        return Manifest(
            gateway=project.gateway,
            environment=project.environment,
            default_catalog=project.default_catalog,
            dialect=project.dialect or "",
            sqlmesh_version=raw.get("generator", {}).get("sqlmesh_version"),
            models={model.fqn: model for model in models},
            standalone_audits=tuple(StandaloneAudit.model_validate(a) for a in raw.get("standalone_audits", ())),
        )
    except (KeyError, TypeError, AttributeError, ValidationError) as exc:
        msg = f"the manifest is damaged: {exc}. Make it again with `sqlmesh-runner manifest`."
        raise ManifestError(msg) from exc
