"""Results as Pipes metadata: raw values with explicit types, under the contract's keys."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from dagster_pipes import PipesMetadataType, PipesMetadataValue

from sqlmesh_runner.recording.events import AuditFinished, ModelMaterialized

__all__ = ["check_metadata", "materialization_metadata"]


def materialization_metadata(event: ModelMaterialized) -> dict[str, PipesMetadataValue]:
    """Return a materialization's metadata. Keys without a value are absent."""
    return _typed(
        {
            "sqlmesh/model": ("text", event.model),
            "sqlmesh/environment": ("text", event.environment),
            "sqlmesh/duration": ("float", event.duration),
            "sqlmesh/batches": ("int", event.batches),
            "sqlmesh/batches_planned": ("int", event.batches_planned),
            "sqlmesh/complete": ("bool", event.complete),
            "sqlmesh/interval_start": ("timestamp", event.interval_start),
            "sqlmesh/interval_end": ("timestamp", event.interval_end),
            "sqlmesh/recorded_at": ("timestamp", event.recorded_at),
            "sqlmesh/recorded_begin": ("timestamp", event.recorded_begin),
            "sqlmesh/recorded_end": ("timestamp", event.recorded_end),
            "sqlmesh/gaps": ("int", event.gaps),
            "sqlmesh/rows_processed": ("int", event.rows_processed),
            "sqlmesh/bytes_processed": ("int", event.bytes_processed),
            "dagster/row_count": ("int", event.row_count),
            "sqlmesh/physical_table": ("text", event.physical_table),
            "sqlmesh/fingerprint": ("text", event.fingerprint),
            "sqlmesh/plan_id": ("text", event.plan_id),
            "sqlmesh/auto_restated_by": ("json", list(event.auto_restated_by) or None),
        }
    )


def check_metadata(event: AuditFinished) -> dict[str, PipesMetadataValue]:
    """Return a check's metadata. Keys without a value are absent."""
    return _typed(
        {
            "sqlmesh_model_name": ("text", event.model),
            "audit_name": ("text", event.audit),
            "audit_query": ("md", f"```sql\n{event.query}\n```" if event.query else None),
            "audit_blocking": ("bool", event.blocking),
            "audit_dialect": ("text", event.dialect or None),
            "audit_args": ("json", dict(event.args)),
            "audit_failing_rows": ("int", event.failing_rows),
            "audit_duration": ("float", event.duration),
            "audit_batches": ("int", event.batches),
            "audit_interval_start": ("timestamp", event.interval_start),
            "audit_interval_end": ("timestamp", event.interval_end),
            "audit_error": ("text", event.error),
            "audit_note": ("text", event.note),
        }
    )


def _typed(values: Mapping[str, tuple[PipesMetadataType, Any]]) -> dict[str, PipesMetadataValue]:
    return {
        key: {"type": kind, "raw_value": _raw(value)}
        for key, (kind, value) in values.items()
        if value is not None
    }


def _raw(value: Any) -> Any:
    # Dagster's timestamps are seconds since the epoch.
    return value.timestamp() if isinstance(value, datetime) else value
