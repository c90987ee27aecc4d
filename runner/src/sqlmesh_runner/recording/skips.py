"""Why a selected model has no result."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlmesh_runner.recording.aggregation import ModelRun
from sqlmesh_runner.recording.events import ModelSkipped
from sqlmesh_runner.recording.recorded import Interval
from sqlmesh_runner.recording.scope import RunScope

__all__ = ["SkipClassifier", "UnexplainedSkipError"]


class UnexplainedSkipError(Exception):
    """SQLMesh planned a model that neither ran nor failed, and nothing upstream of it failed."""


@dataclass(frozen=True, kw_only=True)
class SkipClassifier:
    """Find the reason for each model without a result, from what is known at the run's end."""

    scope: RunScope
    runs: Mapping[str, ModelRun]  # by FQN
    planned: Mapping[str, Collection[Interval]]
    """Batches of the last attempt, by FQN; none where a signal held them back."""
    blocking_signals: Mapping[str, Collection[str]]  # by FQN
    stopped: bool
    has_plan: bool  # SQLMesh reported what it planned

    def candidates(self) -> list[str]:
        """Return the names of all models and audits that might have been skipped, sorted."""
        return sorted({*self.scope.snapshots, *self.scope.unplanned})

    def skip_of(self, name: str) -> ModelSkipped | None:
        """Return the event for a model that was skipped; None for any other model.

        Raises:
            UnexplainedSkipError: there is no reason.
        """
        if name in self.scope.unplanned:
            # A plan may have removed what had run before.
            run = self.runs.get(name)
            has_run = run is not None and run.materialized
            return None if has_run else ModelSkipped(model=name, reason="not_planned")
        snapshot = self.scope.snapshots[name]
        is_out_of_scope = not self.scope.is_selected(name)
        if is_out_of_scope or snapshot.is_audit or snapshot.is_symbolic or self._has_result(name):
            return None
        return self._audit_skip(name) if self.scope.audit_only else self._model_skip(name)

    def _has_result(self, name: str) -> bool:
        run = self.runs.get(name)
        if run is None:
            return False
        if run.failed or (run.planned and run.is_complete):
            return True
        # A discarded attempt recorded a part of it; the last attempt had nothing to add.
        return run.materialized and name not in self.planned

    def _audit_skip(self, name: str) -> ModelSkipped | None:
        is_cut_off = self.stopped and name not in self.runs
        return ModelSkipped(model=name, reason="interrupted") if is_cut_off else None

    def _model_skip(self, name: str) -> ModelSkipped:
        if name not in self.planned:
            if self.stopped and not self.has_plan:
                return ModelSkipped(model=name, reason="interrupted")
            return self._nothing_due(name)
        if not self.planned[name]:
            return self._waiting(name)
        upstream = self._failed_upstream(name)
        if upstream:
            return ModelSkipped(model=name, reason="upstream_failed", upstream=upstream)
        if self.stopped:
            return ModelSkipped(model=name, reason="interrupted")
        msg = (
            f"SQLMesh planned {name}, but neither evaluated it nor reported a failure of it "
            "or of a model upstream"
        )
        raise UnexplainedSkipError(msg)

    def _nothing_due(self, name: str) -> ModelSkipped:
        next_due = self.scope.next_due_of(self.scope.snapshots[name])
        return ModelSkipped(model=name, reason="nothing_due", next_due=next_due)

    def _waiting(self, name: str) -> ModelSkipped:
        """Return the event for a model that signals hold back: its own, or of models it reads."""
        holding = self._signals_holding(name)
        if not holding:  # no signal: what it reads has nothing new for it
            return self._nothing_due(name)
        return ModelSkipped(
            model=name,
            reason="signal_not_ready",
            upstream=sorted(holding.keys() - {name}),
            signals=sorted({signal for signals in holding.values() for signal in signals}),
        )

    def _signals_holding(self, name: str) -> dict[str, Collection[str]]:
        """Return the signals that hold a model back, by the FQN of the model they belong to."""
        # Before 0.199 the console has no callback for signals: use those that the models declare.
        blocking = self.blocking_signals or {
            other: self._declared_signals(other)
            for other, batches in self.planned.items()
            if not batches
        }
        holders = self.scope.upstream(name, until=lambda other: bool(blocking.get(other)))
        return {holder: blocking[holder] for holder in holders if blocking.get(holder)}

    def _declared_signals(self, name: str) -> list[str]:
        snapshot = self.scope.snapshots.get(name)
        signals = getattr(snapshot.node, "signals", None) if snapshot else None
        return [str(signal[0]) for signal in signals or ()]

    def _failed_upstream(self, name: str) -> list[str]:
        failed = {other for other, run in self.runs.items() if run.failed}
        return sorted({*self.scope.upstream(name, until=failed.__contains__)} & failed)
