"""The manifest: a SQLMesh project as the runner described it, read without SQLMesh."""

from dagster_sqlmesh_pipes.manifest.inputs import inputs_digest
from dagster_sqlmesh_pipes.manifest.loading import (
    SCHEMA_VERSION,
    load_manifest,
    parse_manifest,
)
from dagster_sqlmesh_pipes.manifest.selection import select_models
from dagster_sqlmesh_pipes.manifest.values import (
    Audit,
    Column,
    ColumnReference,
    Manifest,
    Model,
    ModelKind,
    StandaloneAudit,
)

__all__ = [
    "SCHEMA_VERSION",
    "Audit",
    "Column",
    "ColumnReference",
    "Manifest",
    "Model",
    "ModelKind",
    "StandaloneAudit",
    "inputs_digest",
    "load_manifest",
    "parse_manifest",
    "select_models",
]
