"""Observations of the models that failed or were skipped behind a failure, for their assets' pages.

They change no status in Dagster, and nothing downstream runs because of them.
"""

import datetime
from collections.abc import Iterator

import dagster as dg

from dagster_sqlmesh_pipes.contract import (
    FAILED_KEY,
    INTERVAL_END_KEY,
    INTERVAL_START_KEY,
    MODEL_KEY,
    list_names,
)
from dagster_sqlmesh_pipes.run.event_log import describe_failure, describe_skip
from dagster_sqlmesh_pipes.run.messages import ModelFailed, ModelSkipped
from dagster_sqlmesh_pipes.run.report import RunReport
from dagster_sqlmesh_pipes.run.results import RunResult

__all__ = ["failure_observations"]

_MAX = 200  # observations of a run; each costs the event log


def failure_observations(report: RunReport) -> Iterator[RunResult]:
    """Yield an observation of each failed model, then of each that was skipped behind it."""
    failed = [each for each in report.failed.values() if each.asset_key]
    behind = [
        each
        for each in report.skipped.values()
        if each.reason == "upstream_failed" and each.asset_key
    ]
    for model in failed[:_MAX]:
        yield RunResult(result=_failed(model), message=model.raw)
    for skipped in behind[: max(0, _MAX - len(failed))]:
        yield RunResult(result=_skipped(skipped), message=skipped.raw)


def _failed(failed: ModelFailed) -> dg.AssetObservation:
    assert failed.asset_key is not None
    values = {
        MODEL_KEY: failed.model,
        "sqlmesh/error": failed.error,
        "sqlmesh/error_type": failed.error_type,
        "sqlmesh/audit": failed.audit,
        "sqlmesh/path": failed.path,
        "sqlmesh/query": failed.query and dg.MetadataValue.md(f"```sql\n{failed.query}\n```"),
        INTERVAL_START_KEY: _timestamp(failed.interval_start),
        INTERVAL_END_KEY: _timestamp(failed.interval_end),
    }
    return dg.AssetObservation(
        dg.AssetKey.from_escaped_user_string(failed.asset_key),
        description=f"Failed: {describe_failure(failed, with_query=False)}",
        metadata={key: value for key, value in values.items() if value},
    )


def _timestamp(text: str | None) -> dg.TimestampMetadataValue | None:
    return dg.MetadataValue.timestamp(datetime.datetime.fromisoformat(text)) if text else None


def _skipped(skipped: ModelSkipped) -> dg.AssetObservation:
    assert skipped.asset_key is not None
    return dg.AssetObservation(
        dg.AssetKey.from_escaped_user_string(skipped.asset_key),
        description=f"Skipped: {describe_skip(skipped)}.",
        metadata={
            MODEL_KEY: skipped.model,
            FAILED_KEY: list_names(skipped.upstream),
        },
    )
