"""The sensor that reports what SQLMesh recorded outside of Dagster's runs."""

import datetime
from collections.abc import Mapping

import dagster as dg
from pydantic import Field, SkipValidation

from dagster_sqlmesh_pipes.assets import Assets, executable_keys
from dagster_sqlmesh_pipes.contract import LOCK_TAG
from dagster_sqlmesh_pipes.mapping import ProjectMapping
from dagster_sqlmesh_pipes.options import SensorOptions
from dagster_sqlmesh_pipes.resource import SQLMeshResource
from dagster_sqlmesh_pipes.run.lock import AT_WORK
from dagster_sqlmesh_pipes.run.removals import RemovalRegister
from dagster_sqlmesh_pipes.signatures import keyword_arguments
from dagster_sqlmesh_pipes.state.news import News, compare
from dagster_sqlmesh_pipes.state.reading import read_state

__all__ = ["sqlmesh_state_sensor_factory"]

_TIMEOUT = 45.0  # seconds; Dagster gives an evaluation 60
_MAX_EVENTS = 500
_PRECISION = datetime.timedelta(seconds=2)
"""SQLite keeps whole seconds of when a run was updated."""
Request = dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest


class _Arguments(SensorOptions):
    sqlmesh_resource: SQLMeshResource = Field(description="What runs the models.")
    name: str = Field(default="sqlmesh_state_sensor", description="The sensor's name.")
    assets: SkipValidation[Assets | None] = Field(
        default=None,
        description="The result of `sqlmesh_assets_factory`, to report on these assets alone. "
        "Default: on those of all models.",
    )


@keyword_arguments(_Arguments)
def sqlmesh_state_sensor_factory(
    arguments: _Arguments,
) -> dg.SensorDefinition:
    """Return a sensor that shows in Dagster what a plan, a shell or a dead step recorded.

    It reads SQLMesh's state with a runner. What Dagster does not know becomes a materialization
    without a run, with the metadata `sqlmesh/recorded_by: outside` and SQLMesh's own time
    `sqlmesh/recorded_at`; intervals that were removed become an observation. Audits are not in the
    state, so checks are not evaluated.

    An evaluation reports at most 500 events, and the next one goes on. It is skipped while a run is
    in progress on the project, which reports its own results. A state in a DuckDB file can't be
    read while another process has it open.

    Raises:
        ManifestError: there is no manifest to read.
        TranslationError: models and asset keys do not fit together.
    """
    reporter = _StateReporter(arguments.sqlmesh_resource, arguments.assets)
    status = dg.DefaultSensorStatus
    is_enabled = arguments.enable_sensor
    if is_enabled is None:
        is_enabled = reporter.can_share_state

    @dg.sensor(
        name=arguments.name,
        minimum_interval_seconds=arguments.minimum_interval_seconds,
        default_status=status.RUNNING if is_enabled else status.STOPPED,
        description=(
            "Reports what SQLMesh recorded outside of Dagster in the environment "
            f"{reporter.environment_key}."
        ),
    )
    def state_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return reporter.report(context)

    return state_sensor


class _StateReporter:
    def __init__(self, resource: SQLMeshResource, assets: Assets | None) -> None:
        self.environment_key = resource.environment_key()
        self._removals = RemovalRegister(self.environment_key)
        self._lock_key = resource.effective_lock_key()
        self._asset_keys = _asset_keys(resource.mapping(), assets)
        self._project = resource.project
        state_engine = self._project.manifest().state_engine
        self.can_share_state = state_engine is not None and state_engine != "duckdb"
        """Whether a runner can read the state while another process has it open."""

    def report(self, context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """Return the news since the cursor."""
        began = datetime.datetime.now(datetime.UTC)
        run_id = self._run_in_progress(context.instance)
        if run_id:
            return self._skipped(run_id)
        state = read_state(self._project, since=context.cursor, timeout=_TIMEOUT)
        if not state.changed:
            return dg.SensorResult(
                skip_reason=f"SQLMesh's state of {self.environment_key} has not changed."
            )
        # What a run recorded meanwhile is not in the state as it was read.
        run_id = self._run_in_progress(context.instance) or self._run_since(context.instance, began)
        if run_id:
            return self._skipped(run_id)
        removals = self._removals.read(context.instance)
        news, left = compare(
            state, self._asset_keys, context.instance, removals, max_events=_MAX_EVENTS
        )
        # Until all is reported, the cursor stays: the next evaluation finds the rest.
        cursor = context.cursor if left else state.cursor
        requests: list[Request] = [
            *([self._removals.delete_request(news.obsolete)] if news.obsolete else []),
            *([self._removals.add_request(news.removals)] if news.removals else []),
        ]
        # Dagster calls an evaluation without run requests skipped, and shows this as its result.
        return dg.SensorResult(
            skip_reason=_summary(news, left, self.environment_key),
            asset_events=news.events,
            cursor=cursor,
            dynamic_partitions_requests=requests,
        )

    def _run_in_progress(self, instance: dg.DagsterInstance) -> str | None:
        records = instance.get_run_records(
            dg.RunsFilter(tags={LOCK_TAG: self._lock_key}, statuses=list(AT_WORK)), limit=1
        )
        return records[0].dagster_run.run_id if records else None

    def _run_since(self, instance: dg.DagsterInstance, moment: datetime.datetime) -> str | None:
        records = instance.get_run_records(
            dg.RunsFilter(tags={LOCK_TAG: self._lock_key}, updated_after=moment - _PRECISION),
            limit=1,
        )
        return records[0].dagster_run.run_id if records else None

    def _skipped(self, run_id: str) -> dg.SensorResult:
        return dg.SensorResult(
            skip_reason=(
                f"Run {run_id} (/runs/{run_id}) is in progress on the SQLMesh project "
                f"{self._lock_key}, or has just ended. It reports its own results."
            )
        )


def _asset_keys(mapping: ProjectMapping, assets: Assets | None) -> Mapping[str, dg.AssetKey]:
    """Return the assets to report on, by their model's FQN."""
    keys = {fqn: mapping.asset_keys[fqn] for fqn in mapping.materialized}
    if assets is None:
        return keys
    executable = executable_keys(assets)
    return {fqn: key for fqn, key in keys.items() if key in executable}


def _summary(news: News, left: int, environment_key: str) -> str:
    if not news.events:
        return f"Dagster knows all that is recorded in {environment_key}."
    removed = len(news.removals)
    recorded = len(news.events) - removed
    more = f" {left} more follow with the next evaluation." if left else ""
    return (
        f"Reported from {environment_key}: {recorded} assets were recorded, intervals of "
        f"{removed} were removed.{more}"
    )
