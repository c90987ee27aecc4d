"""Runners whose Dagster step died before it could stop and remove them."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

from dagster_sqlmesh_pipes.launchers.base import Launcher, RunnerInfo
from dagster_sqlmesh_pipes.launchers.labels import LOCK_LABEL, RUN_ID_LABEL, STEP_LABEL

__all__ = ["Orphan", "remove_orphans", "stop_leftovers"]

_logger = logging.getLogger("dagster_sqlmesh_pipes")

_FOREIGN_RUNNER = (
    "Runner %s of run %s has the same lock key %s, and this Dagster instance does not know that "
    "run as finished: it is left running. If both work on one SQLMesh state, this run waits there "
    "until that one has ended; on an engine without such locks rows double, so let one instance "
    "run the project. If they only share the name, set a lock_key."
)


@dataclass(frozen=True, kw_only=True)
class Orphan:
    """A runner that no step waits for any more."""

    name: str
    """The container's or pod's name."""
    status: str
    created: datetime
    run_id: str | None
    step_key: str | None
    reason: str


def stop_leftovers(
    launcher: Launcher, labels: Mapping[str, str], instance: dg.DagsterInstance
) -> None:
    """Stop what a dead step left running with the same lock key, which would keep the state locked.

    That is: a runner of a finished run with the same `LOCK_LABEL`; and one of this run, with that
    label or of an earlier attempt at this very step. Those that have ended are removed as well,
    unless their launcher keeps them. Whatever else has the label may work for another Dagster
    instance on the same engine.

    Raises:
        LaunchError: the launcher's engine can't be reached, or refuses.
    """
    for runner in _runners_on_same_lock(launcher, labels):
        run_id = runner.labels.get(RUN_ID_LABEL, "")
        run = instance.get_run_by_id(run_id)
        if run_id == labels.get(RUN_ID_LABEL) or (run is not None and run.is_finished):
            if runner.is_running:
                _logger.warning(
                    "Stopping runner %s, left by a step of run %s.", runner.name, run_id
                )
            launcher.remove_runner(runner)
        elif runner.is_running:
            _logger.warning(_FOREIGN_RUNNER, runner.name, run_id, labels[LOCK_LABEL])


def _runners_on_same_lock(launcher: Launcher, labels: Mapping[str, str]) -> Iterator[RunnerInfo]:
    names = set()
    for wanted in ((LOCK_LABEL,), (RUN_ID_LABEL, STEP_LABEL)):
        if not all(label in labels for label in wanted):
            continue
        for runner in launcher.list_runners({label: labels[label] for label in wanted}):
            if runner.name not in names and not _is_kept(runner):
                names.add(runner.name)
                yield runner


def _is_kept(runner: RunnerInfo) -> bool:
    return not runner.is_running and runner.keep != "never"


def remove_orphans(
    instance: dg.DagsterInstance,
    launcher: Launcher,
    *,
    older_than: timedelta | None = None,
    labels: Mapping[str, str] | None = None,
    dry_run: bool = False,
) -> list[Orphan]:
    """Stop and remove the runners that dead steps left behind, and return which they were.

    A runner is an orphan when `instance` says that its run has finished. Runners of unknown runs
    may belong to another Dagster on the same engine, and those that `keep` left there are kept:
    both go only if they are older than `older_than`. With `labels` (`{"dagster/code_location":
    "shop"}`, say) only runners that have them are considered.

    Raises:
        LaunchError: the launcher's engine can't be reached, or refuses.
    """
    orphans = []
    for runner in launcher.list_runners(labels or {}):
        reason = _orphan_reason(runner, instance, older_than)
        if reason is None:
            continue
        orphans.append(
            Orphan(
                name=runner.name,
                status=runner.status,
                created=runner.created,
                run_id=runner.labels.get(RUN_ID_LABEL),
                step_key=runner.labels.get(STEP_LABEL),
                reason=reason,
            )
        )
        if not dry_run:
            launcher.remove_runner(runner)
    return orphans


def _orphan_reason(
    runner: RunnerInfo, instance: dg.DagsterInstance, older_than: timedelta | None
) -> str | None:
    run_id = runner.labels.get(RUN_ID_LABEL)
    run = instance.get_run_by_id(run_id) if run_id else None
    if run is not None and not run.is_finished:
        return None
    if run is not None and not _is_kept(runner):
        return f"its run has finished ({run.status.value})"
    if older_than is not None and datetime.now(UTC) - runner.created > older_than:
        return f"it was created at {runner.created.isoformat()}"
    return None
