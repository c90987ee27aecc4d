"""Models of which batches are recorded and no result came, because the runner or a message is gone.

Of each a materialization is reported, as incomplete: the schedule requests the model again, and the
next run does the rest, or reports what SQLMesh recorded.
"""

import datetime
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from dagster_sqlmesh_pipes.contract import (
    COMPLETE_KEY,
    ENVIRONMENT_KEY,
    INTERVAL_END_KEY,
    INTERVAL_START_KEY,
    MODEL_KEY,
    PLAN_ID_KEY,
)
from dagster_sqlmesh_pipes.run.messages import BatchFinished
from dagster_sqlmesh_pipes.run.report import RunReport

__all__ = ["unfinished_results"]


def unfinished_results(
    report: RunReport,
) -> Iterator[tuple[dg.MaterializeResult[Any], BatchFinished]]:
    """Yield a result of each such model, and its last message."""
    for batches in report.unreported_batches.values():
        last = batches[-1]
        if last.asset_key is not None:
            key = dg.AssetKey.from_escaped_user_string(last.asset_key)
            yield dg.MaterializeResult(key, metadata=_metadata(report, batches)), last


def _metadata(report: RunReport, batches: Sequence[BatchFinished]) -> dict[str, Any]:
    started = report.started
    starts, ends = zip(*((each.interval_start, each.interval_end) for each in batches), strict=True)
    return {
        MODEL_KEY: batches[-1].model,
        **({ENVIRONMENT_KEY: started.environment, PLAN_ID_KEY: started.plan_id} if started else {}),
        INTERVAL_START_KEY: _timestamp(min(starts)),
        INTERVAL_END_KEY: _timestamp(max(ends)),
        "sqlmesh/batches": len(batches),
        "sqlmesh/batches_planned": batches[-1].batches,
        COMPLETE_KEY: False,
    }


def _timestamp(text: str) -> dg.MetadataValue[Any]:
    return dg.MetadataValue.timestamp(datetime.datetime.fromisoformat(text))
