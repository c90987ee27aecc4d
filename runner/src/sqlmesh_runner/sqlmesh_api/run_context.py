"""A context whose run does no more than it needs to."""

import inspect
from collections.abc import Mapping
from typing import Any

from sqlmesh.core.context import Context
from sqlmesh.core.scheduler import Scheduler
from sqlmesh.core.snapshot import Snapshot, SnapshotEvaluator
from sqlmesh.utils import CompletionStatus

from sqlmesh_runner.sqlmesh_api.gateways import ProjectContext
from sqlmesh_runner.sqlmesh_api.needed_snapshots import RunRequest, needed_snapshots
from sqlmesh_runner.sqlmesh_api.optimized_queries import load_queries_late

__all__ = ["RunContext"]


class RunContext(ProjectContext):
    """A context whose scheduler has the snapshots that a run needs (`Context.run` asks for it)."""

    _request: RunRequest | None = None

    def limit_to(self, request: RunRequest) -> None:
        """Limit the scheduler of the next run to what a request needs."""
        self._request = request

    def run(self, *args: Any, **kwargs: Any) -> CompletionStatus:
        """Run as `Context.run` does, without preparing a report of its use where that is off.

        Preparing one imports IPython and looks up the source of all that is on the stack, also
        where SQLMesh's configuration has `disable_anonymized_analytics`.
        """
        if self.config.disable_anonymized_analytics:
            return inspect.unwrap(Context.run)(self, *args, **kwargs)
        return super().run(*args, **kwargs)

    def scheduler(
        self,
        environment: str | None = None,
        snapshot_evaluator: SnapshotEvaluator | None = None,
    ) -> Scheduler:
        """Return SQLMesh's scheduler, with the snapshots that the request needs."""
        needed = self._needed_snapshots(environment)
        if needed:
            evaluator = snapshot_evaluator or self.snapshot_evaluator
            scheduler = self.create_scheduler(needed.values(), evaluator)
        else:
            # SQLMesh before 0.200 has no `snapshot_evaluator`.
            options = {"snapshot_evaluator": snapshot_evaluator} if snapshot_evaluator else {}
            scheduler = super().scheduler(environment=environment, **options)
        queries = load_queries_late(self._provided_state_sync)
        if queries is not None:
            scheduler.evaluate = queries.loaded_for(scheduler.evaluate)
        return scheduler

    def _needed_snapshots(self, environment: str | None) -> Mapping[str, Snapshot] | None:
        if not environment or not self._request:
            return None
        stored = self.state_sync.get_environment(environment)
        return stored and needed_snapshots(self, stored, self._request)
