"""Adoption: what SQLMesh recorded outside of Dagster is reported by the next run.

A plan, a shell, or a step that died recorded intervals of which Dagster has no materialization. The
runner reports what is recorded of the models that a run leaves alone (`models_recorded`), before
any result, so that a Dagster asset downstream in the same run runs.
"""

from collections.abc import Iterable, Iterator

import dagster as dg

from dagster_sqlmesh_pipes.run.messages import ModelsRecorded, RecordedEntry
from dagster_sqlmesh_pipes.run.recorded import data_version_of, is_news
from dagster_sqlmesh_pipes.run.results import Result

__all__ = ["adopted_results"]


def adopted_results(
    message: ModelsRecorded, instance: dg.DagsterInstance, requested: Iterable[dg.AssetKey]
) -> list[Result]:
    """Return a result for each recording that Dagster does not know, in topological order.

    It takes one query of the instance.
    """
    asked = set(requested)
    entries = {
        dg.AssetKey.from_escaped_user_string(each.asset_key): each for each in message.models
    }
    entries = {key: entry for key, entry in entries.items() if key in asked}
    records = instance.get_asset_records(list(entries)) if entries else []
    known = {
        record.asset_entry.asset_key: data_version_of(record.asset_entry.last_materialization)
        for record in records
    }
    news = {key: entry for key, entry in entries.items() if is_news(entry, known.get(key))}
    return list(_results(message, news.items()))


def _results(
    message: ModelsRecorded, news: Iterable[tuple[dg.AssetKey, RecordedEntry]]
) -> Iterator[Result]:
    for key, entry in news:
        assert entry.data_version is not None
        if entry.upstream_runs:  # an input of it is materialized later: Dagster wants no output
            yield entry.materialization(
                key, environment=message.environment, plan_id=message.plan_id
            )
        else:
            yield dg.MaterializeResult(
                key,
                metadata=entry.metadata(environment=message.environment, plan_id=message.plan_id),
                data_version=dg.DataVersion(entry.data_version),
            )
