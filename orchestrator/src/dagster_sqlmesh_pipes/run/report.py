"""What one runner has reported so far."""

from collections.abc import Mapping

import dagster as dg

from dagster_sqlmesh_pipes.launchers.base import LaunchRequest
from dagster_sqlmesh_pipes.manifest import Manifest
from dagster_sqlmesh_pipes.run.messages import (
    BatchFinished,
    Message,
    ModelFailed,
    ModelSkipped,
    RunFinished,
    RunRestarted,
    RunStarted,
)

__all__ = ["RunReport"]


class RunReport:
    """Collect a run's messages and the models that it materialized."""

    def __init__(self, manifest: Manifest, request: LaunchRequest) -> None:
        models = (request.context["extras"] or {}).get("models", {})
        self._fqns: Mapping[str, str] = {each["asset_key"]: fqn for fqn, each in models.items()}
        self.manifest = manifest
        self.started: RunStarted | None = None
        self.finished: RunFinished | None = None
        self.failed: dict[str, ModelFailed] = {}
        self.skipped: dict[str, ModelSkipped] = {}
        self.materialized: set[str] = set()
        """The FQNs of the requested models that a materialization was reported of."""
        self.unreported_batches: dict[str, list[BatchFinished]] = {}
        """Of the requested models without a materialization, by FQN."""

    def add(self, message: Message) -> None:
        """Add a custom message."""
        match message:
            case RunStarted():
                self.started = message
            case BatchFinished() if message.asset_key in self._fqns:
                if message.model not in self.materialized:
                    self.unreported_batches.setdefault(message.model, []).append(message)
            case ModelFailed():
                self.failed[message.model] = self._with_path(message)
            case ModelSkipped():
                self.skipped[message.model] = message
            case RunRestarted():  # SQLMesh plans again what failed or was skipped before
                self.failed.clear()
                self.skipped.clear()
            case RunFinished():
                self.finished = message

    def add_materialization(self, key: dg.AssetKey) -> None:
        """Add a reported materialization."""
        fqn = self._fqns.get(key.to_escaped_user_string())
        if fqn is not None:
            self.materialized.add(fqn)
            self.unreported_batches.pop(fqn, None)

    def unreported(self) -> list[str]:
        """Return the requested models that the outcome names as materialized, without a result."""
        finished = self.finished.materialized if self.finished else ()
        requested = set(self._fqns.values())
        return sorted((requested & set(finished)) - self.materialized)

    def unconfirmed(self) -> list[str]:
        """Return the models with a materialization that the outcome does not name."""
        finished = self.finished.materialized if self.finished else ()
        return sorted(self.materialized - set(finished))

    def _with_path(self, failed: ModelFailed) -> ModelFailed:
        # SQLMesh has the path from a cache of its own, which is empty in a new container.
        model = self.manifest.models.get(failed.model)
        if failed.path or model is None:
            return failed
        return failed.model_copy(update={"path": model.path})
