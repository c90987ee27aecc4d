"""A context whose run loads no more of an environment than it needs."""

from sqlmesh.core.scheduler import Scheduler
from sqlmesh.core.snapshot import SnapshotEvaluator

from sqlmesh_runner.sqlmesh_api.gateways import ProjectContext
from sqlmesh_runner.sqlmesh_api.needed_snapshots import RunRequest, needed_snapshots

__all__ = ["RunContext"]


class RunContext(ProjectContext):
    """A context whose scheduler has the snapshots that a run needs (`Context.run` asks for it)."""

    _request: RunRequest | None = None

    def limit_to(self, request: RunRequest) -> None:
        """Limit the scheduler of the next run to what a request needs."""
        self._request = request

    def scheduler(
        self,
        environment: str | None = None,
        snapshot_evaluator: SnapshotEvaluator | None = None,
    ) -> Scheduler:
        """Return SQLMesh's scheduler, with the snapshots that the request needs."""
        needed = None
        if environment and self._request:
            stored = self.state_sync.get_environment(environment)
            needed = stored and needed_snapshots(self, stored, self._request)
        if needed:
            evaluator = snapshot_evaluator or self.snapshot_evaluator
            return self.create_scheduler(needed.values(), evaluator)
        # SQLMesh before 0.200 has no `snapshot_evaluator`.
        options = {"snapshot_evaluator": snapshot_evaluator} if snapshot_evaluator else {}
        return super().scheduler(environment=environment, **options)
