"""What SQLMesh's state has recorded. No model is loaded: its table and its intervals are enough."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from sqlglot import exp
from sqlmesh import Context
from sqlmesh.core.environment import Environment
from sqlmesh.core.snapshot import SnapshotIntervals
from sqlmesh.core.snapshot.definition import merge_intervals
from sqlmesh.core.state_sync.db.utils import fetchall, snapshot_name_version_filter

from sqlmesh_runner.recording.recorded import Interval, RecordedModel

__all__ = ["read_cursor", "read_recorded"]

_MODELS_PER_QUERY: Final = 1000


def read_cursor(context: Context, environment: Environment) -> str:
    """Return a text that changes with the environment and whenever an interval is recorded.

    Of rows written by several machines, the newest need not be the last: they are counted as well.
    """
    state = _interval_state(context)
    newest = exp.func("MAX", exp.column("created_ts"))
    query = exp.select(newest, exp.func("COUNT", exp.Star())).from_(state.intervals_table)
    ((created_ts, rows),) = fetchall(state.engine_adapter, query)
    return f"{environment.plan_id}:{environment.finalized_ts}:{created_ts or 0}:{rows}"


def read_recorded(
    context: Context, snapshots: Iterable[Any], *, is_representative: Callable[[Any], bool]
) -> dict[str, RecordedModel]:
    """Return what is recorded of each model that has a table, by FQN, in the given order.

    Args:
        context: an open project.
        snapshots: snapshots, or the `SnapshotTableInfo` of an environment.
        is_representative: whether the environment reads a snapshot's table of production; otherwise
            it reads the one that SQLMesh makes for development. (`DeployabilityIndex`; what is not
            deployable may still be read from production, such as a model with an
            `auto_restatement_cron` that a plan of dev did not change.)
    """
    models = [each for each in snapshots if each.is_model and not each.is_symbolic]
    state = _interval_state(context)
    tables = _merged(state.get_snapshot_intervals(models))
    times = _recording_times(state, models)
    return {
        model.name: _recorded(model, tables, times, in_production=is_representative(model))
        for model in models
    }


class _Table(NamedTuple):
    """A table of a model. The development tables of one version have versions of their own."""

    model: str
    version: str
    dev_version: str | None = None


@dataclass
class _Intervals:
    recorded: list[Interval] = field(default_factory=list)
    pending_restatement: list[Interval] = field(default_factory=list)


def _interval_state(context: Context) -> Any:
    state = context.state_sync
    while hasattr(state, "state_sync"):  # a `CachingStateSync`
        state = state.state_sync
    return state.interval_state


def _merged(found: Iterable[SnapshotIntervals]) -> Mapping[_Table, _Intervals]:
    """Merge what several snapshots of one version recorded, as `Snapshot.merge_intervals` does."""
    tables: dict[_Table, _Intervals] = {}
    for each in found:
        table = tables.setdefault(_Table(each.name, each.version), _Intervals())
        table.recorded += each.intervals
        table.pending_restatement += each.pending_restatement_intervals
        development = _Table(each.name, each.version, each.dev_version)
        tables.setdefault(development, _Intervals()).recorded += each.dev_intervals
    for table in tables.values():
        table.recorded = merge_intervals(table.recorded) if table.recorded else []
    return tables


def _recording_times(state: Any, models: Collection[Any]) -> Mapping[_Table, int]:
    """Return when each table was recorded last, in epoch milliseconds.

    SQLMesh keeps `last_altered_ts` when it compacts rows, and writes a new `created_ts`.
    """
    altered = _maximum("last_altered_ts") if _has_last_altered(state) else exp.null()
    created = _maximum("created_ts", unless="is_compacted")
    times: dict[_Table, int] = {}
    for condition in _conditions(state, models):
        query = (
            exp.select("name", "version", "dev_version", "is_dev", altered, created)
            .from_(state.intervals_table)
            .where(condition, exp.column("is_removed").not_())
            .where(exp.column("is_pending_restatement").not_())
            .group_by("name", "version", "dev_version", "is_dev")
        )
        for name, version, dev_version, is_dev, altered_ts, created_ts in fetchall(
            state.engine_adapter, query
        ):
            table = _Table(name, version, dev_version if is_dev else None)
            times[table] = max(times.get(table, 0), altered_ts or created_ts or 0)
    return times


def _has_last_altered(state: Any) -> bool:
    # Old SQLMesh does not have it.
    return "last_altered_ts" in state._interval_columns_to_types  # noqa: SLF001


def _maximum(column: str, *, unless: str | None = None) -> exp.Expression:
    value: exp.Expression = exp.column(column)
    if unless is not None:
        value = exp.case().when(exp.column(unless).not_(), value)
    return exp.func("MAX", value)


def _conditions(state: Any, models: Collection[Any]) -> Iterable[exp.Condition]:
    conditions: Iterable[exp.Condition] = snapshot_name_version_filter(
        state.engine_adapter, models, alias=None, batch_size=_MODELS_PER_QUERY
    )
    return conditions


def _recorded(
    model: Any,
    tables: Mapping[_Table, _Intervals],
    times: Mapping[_Table, int],
    *,
    in_production: bool,
) -> RecordedModel:
    table = _Table(model.name, model.version, None if in_production else model.dev_version)
    found = tables.get(table, _Intervals())
    return RecordedModel(
        model=model.name,
        version=model.version if in_production else model.dev_version,
        fingerprint=model.fingerprint.to_identifier(),
        physical_table=model.table_name(is_deployable=in_production),
        intervals=found.recorded,
        recorded_at=times.get(table) or None,
        pending_restatement=in_production and bool(found.pending_restatement),
    )
