"""Why a model that was asked for has no result."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlmesh_runner.environment import Environment, next_due
from sqlmesh_runner.events import ModelSkipped
from sqlmesh_runner.folding import Interval, ModelRun

__all__ = ["Skips"]


@dataclass(frozen=True, kw_only=True)
class Skips:
    """What is known of a run at its end, to tell reasons from."""

    environment: Environment
    runs: Mapping[str, ModelRun]
    planned: Mapping[str, Collection[Interval]]  # batches of the last attempt, by FQN; none where a signal held them back
    unready: Mapping[str, Collection[str]]  # signals that held intervals back, by FQN
    stopped: bool
    evaluating: bool  # SQLMesh has told what it planned

    def events(self) -> list[ModelSkipped]:
        """Give an event for each model without a result, sorted by name."""
        found = [self._skip_of(name) for name in sorted({*self.environment.snapshots, *self.environment.unplanned})]
        return [event for event in found if event is not None]

    def _skip_of(self, name: str) -> ModelSkipped | None:
        run = self.runs.get(name)
        if name in self.environment.unplanned:
            # A plan may have taken away what had run before.
            return None if run is not None and run.materialized else ModelSkipped(model=name, reason="not_planned")
        snapshot = self.environment.snapshots[name]
        if snapshot.is_audit or snapshot.is_symbolic or not self.environment.asks_for(name):
            return None
        if run is not None and (run.failed or len(run.recorded) >= run.planned > 0):
            return None
        if run is not None and run.materialized and name not in self.planned:
            return None  # an attempt that was given up recorded a part; the last one had nothing to add
        if self.environment.audits_alone:
            return ModelSkipped(model=name, reason="interrupted") if self.stopped and run is None else None
        if name in self.planned and not self.planned[name]:
            return ModelSkipped(model=name, reason="signal_not_ready", signals=self._signals_holding(name))
        if name in self.planned:
            upstream = self._failed_upstream(name)
            if upstream or not self.stopped:
                return ModelSkipped(model=name, reason="upstream_failed", upstream=upstream)
        if self.stopped and (name in self.planned or not self.evaluating):
            return ModelSkipped(model=name, reason="interrupted")
        return ModelSkipped(model=name, reason="nothing_due", next_due=next_due(snapshot))

    def _signals_holding(self, name: str) -> list[str]:
        """Name the signals that hold a model back: its own, or else those of the models it reads."""
        # Before 0.199 the console is not told of signals; then it is those that the models held back declare.
        unready = self.unready or {other: self._declared_signals(other) for other, batches in self.planned.items() if not batches}
        holding = [unready.get(each, []) for each in self.environment.upstream(name, until=lambda other: bool(unready.get(other)))]
        return sorted({signal for signals in holding for signal in signals})

    def _declared_signals(self, name: str) -> list[str]:
        snapshot = self.environment.snapshots.get(name)
        return [str(signal[0]) for signal in getattr(snapshot.node, "signals", None) or []] if snapshot else []

    def _failed_upstream(self, name: str) -> list[str]:
        failed = {name for name, run in self.runs.items() if run.failed}
        return sorted({*self.environment.upstream(name, until=lambda other: other in failed)} & failed)
