"""What Dagster's instance knows of the models: the runs that ticks requested, and their results."""

import datetime
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from dagster_sqlmesh_pipes.contract import (
    COMPLETE_KEY,
    ENVIRONMENT_KEY,
    ENVIRONMENT_TAG,
    FAILED_KEY,
    INTERVAL_END_KEY,
    LOCK_TAG,
    RECORDED_AT_KEY,
    SKIPPED_KEY,
    TICK_TAG,
)
from dagster_sqlmesh_pipes.run.lock import AT_WORK
from dagster_sqlmesh_pipes.schedule.due import LastMaterialization

__all__ = ["RunHistory", "unfinished_models"]

_BLOCKING = frozenset({*AT_WORK, dg.DagsterRunStatus.QUEUED})
_LATEST_RUNS = 25


class RunHistory:
    """The latest runs on a SQLMesh project, read once per tick.

    Args:
        instance: Dagster's instance.
        lock_key: what the project's runs exclude each other from.
    """

    def __init__(self, instance: dg.DagsterInstance, lock_key: str) -> None:
        self._instance = instance
        self._runs = instance.get_run_records(
            dg.RunsFilter(tags={LOCK_TAG: lock_key}), limit=_LATEST_RUNS
        )

    def blocking_run(self) -> dg.DagsterRun | None:
        """Return a run that is queued or in progress, in whatever environment."""
        runs = (record.dagster_run for record in self._runs)
        return next((run for run in runs if run.status in _BLOCKING), None)

    def requested_by_ticks(
        self, environment_key: str
    ) -> Iterator[tuple[dg.DagsterRun, datetime.datetime]]:
        """Return the runs that ticks requested and their start times, the latest first.

        Runs with options, such as another environment, are left out.
        """
        for record in self._runs:
            run = record.dagster_run
            is_of_tick = TICK_TAG in run.tags and not run.run_config
            is_of_environment = run.tags.get(ENVIRONMENT_TAG) == environment_key
            if is_of_tick and is_of_environment and record.start_time:
                yield run, _moment(record.start_time)

    def last_materializations(
        self, keys: Sequence[dg.AssetKey], environment: str
    ) -> Mapping[dg.AssetKey, LastMaterialization]:
        """Return the assets' last materializations in an environment, in one query."""
        runs = {record.dagster_run.run_id: record for record in self._runs}
        found = {}
        for record in self._instance.get_asset_records(keys):
            event = record.asset_entry.last_materialization
            if event and _metadata_value(event, ENVIRONMENT_KEY) in (None, environment):
                run = runs.get(event.run_id)
                found[record.asset_entry.asset_key] = _last_materialization(event, run)
        return found


def unfinished_models(instance: dg.DagsterInstance, run_id: str) -> Collection[str] | None:
    """Return the FQNs of the models that failed in a run or were skipped behind a failure.

    None if the run did not report them, because it broke off.
    """
    fqns: set[str] = set()
    events = instance.all_logs(
        run_id, of_type={dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.STEP_SKIPPED}
    )
    for entry in events:
        metadata = _failure_metadata(entry)
        if FAILED_KEY not in metadata:
            return None
        fqns.update(metadata[FAILED_KEY].value, metadata[SKIPPED_KEY].value)
    return fqns if events else None


def _failure_metadata(entry: dg.EventLogEntry) -> Mapping[str, Any]:
    event = entry.dagster_event
    failure = event.step_failure_data.user_failure_data if event and event.is_step_failure else None
    return failure.metadata if failure else {}


def _last_materialization(event: dg.EventLogEntry, run: dg.RunRecord | None) -> LastMaterialization:
    interval_end = _metadata_value(event, INTERVAL_END_KEY)
    is_complete = _metadata_value(event, COMPLETE_KEY) is not False
    return LastMaterialization(
        at=_recorded_at(event, run),
        interval_end=None if interval_end is None else _moment(interval_end),
        is_complete=is_complete and not (run and _has_start(run.dagster_run)),
    )


def _recorded_at(event: dg.EventLogEntry, run: dg.RunRecord | None) -> datetime.datetime:
    # SQLMesh looks for restatements when a run begins: what was restated while it ran is still due.
    # What was recorded outside of Dagster is older than its event, which a run or sensor reported.
    times = [_metadata_value(event, RECORDED_AT_KEY), run.start_time if run else None]
    return _moment(min((time for time in times if time), default=event.timestamp))


def _metadata_value(event: dg.EventLogEntry, name: str) -> Any:
    metadata = event.asset_materialization.metadata if event.asset_materialization else {}
    return metadata[name].value if name in metadata else None


def _has_start(run: dg.DagsterRun) -> bool:
    """Return whether a run was given a start: earlier intervals may still be missing then.

    A restatement has a start as well, and leaves the earlier intervals alone.
    """
    ops: Any = run.run_config.get("ops", {})
    configs = (op.get("config") for op in ops.values())
    return any(
        isinstance(config, Mapping) and config.get("start") and not config.get("restate")
        for config in configs
    )


def _moment(timestamp: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(timestamp, datetime.UTC)
