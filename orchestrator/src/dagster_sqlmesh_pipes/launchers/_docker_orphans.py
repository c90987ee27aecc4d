"""Containers whose Dagster step died before it could remove them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg
from docker.models.containers import Container

from dagster_sqlmesh_pipes.launchers._docker_engine import MARK, RUN_ID, STEP_KEY, connect, explained, stop_and_remove

__all__ = ["Orphan", "remove_orphans"]


@dataclass(frozen=True, kw_only=True)
class Orphan:
    """A container of ours that nobody waits for any more."""

    container: str
    status: str
    """As the engine says: `running`, `exited`, …"""
    created: datetime
    run_id: str | None
    step_key: str | None
    why: str


def remove_orphans(
    instance: dg.DagsterInstance,
    *,
    older_than: timedelta | None = None,
    labels: Mapping[str, str] | None = None,
    dry_run: bool = False,
    base_url: str | None = None,
    stop_grace: float = 30.0,
) -> list[Orphan]:
    """Find the containers that dead steps left behind, stop them in order, remove them, and tell which they were.

    A container is an orphan when `instance` says that its run is over. Containers of runs that the instance does not know may belong to another Dagster
    on the same engine, and those that `keep` left there are kept: both go only if they are older than `older_than`.
    With `labels` (`{"dagster/code_location": "shop"}`, say) only containers that have them are looked at. `stop_grace` is in seconds, per container.

    Raises:
        LaunchError: the engine cannot be reached, or refuses.
    """
    client = connect(base_url)
    try:
        with explained("list and remove containers", base_url):
            orphans = []
            wanted = [MARK, *(f"{name}={value}" for name, value in (labels or {}).items())]
            for container in client.containers.list(all=True, filters={"label": wanted}, ignore_removed=True):
                orphan = _judge(container, instance, older_than)
                if orphan is None:
                    continue
                orphans.append(orphan)
                if not dry_run:
                    stop_and_remove(container, grace=stop_grace)
            return orphans
    finally:
        client.close()


def _judge(container: Container, instance: dg.DagsterInstance, older_than: timedelta | None) -> Orphan | None:
    created = datetime.fromisoformat(container.attrs["Created"][:19]).replace(tzinfo=UTC)
    run_id = container.labels.get(RUN_ID)
    run = instance.get_run_by_id(run_id) if run_id else None
    kept = container.status == "exited" and container.labels[MARK] != "never"
    if run is not None and not run.is_finished:
        return None
    if run is not None and not kept:
        why = f"its run is over ({run.status.value})"
    elif older_than is not None and datetime.now(UTC) - created > older_than:
        why = f"it was made at {created.isoformat()}"
    else:
        return None
    return Orphan(
        container=container.name or container.short_id,
        status=container.status,
        created=created,
        run_id=run_id,
        step_key=container.labels.get(STEP_KEY),
        why=why,
    )
