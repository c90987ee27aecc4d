"""Read an environment from state once for each plan, instead of once for each batch.

SQLMesh reads the environment before each batch, to notice a plan (the circuit breaker in
`Context.run`). The record holds every snapshot: parsing it takes 0.2 s for 1,000 models, so that
1,000 batches spend more time on it than on anything else.
"""

import threading
from typing import Any

from sqlglot import exp
from sqlmesh.core.environment import Environment
from sqlmesh.core.state_sync import StateSync

__all__ = ["cache_environments"]


def cache_environments(state: StateSync) -> None:
    """Let `state.get_environment` parse a record only after a plan changed it.

    Each plan has an id of its own, and clears the time of finalization until it has ended: those
    two are read each time. A state that is stored in another way is left as it is.
    """
    environment_state = getattr(state, "environment_state", None)
    table = getattr(environment_state, "environments_table", None)
    adapter = getattr(state, "engine_adapter", None)
    if table is not None and adapter is not None:
        state.get_environment = _EnvironmentCache(state, adapter, table).get_environment


class _EnvironmentCache:
    def __init__(self, state: StateSync, adapter: Any, table: exp.Table) -> None:
        self._read = state.get_environment
        self._adapter = adapter
        self._table = table
        self._lock = threading.Lock()
        self._parsed: dict[str, tuple[tuple[Any, ...], Environment | None]] = {}

    def get_environment(self, environment: str) -> Environment | None:
        revision = self._revision(environment)
        if revision is None or revision[1] is None:  # unknown, or a plan is changing it
            return self._read(environment)
        with self._lock:
            known, parsed = self._parsed.get(environment, (None, None))
            if known != revision:
                # A plan that comes in between has another revision, and is read the next time.
                parsed = self._read(environment)
                self._parsed[environment] = revision, parsed
            return parsed

    def _revision(self, environment: str) -> tuple[Any, ...] | None:
        query = (
            exp.select("plan_id", "finalized_ts")
            .from_(self._table)
            .where(exp.column("name").eq(exp.Literal.string(environment)))
        )
        row: tuple[Any, ...] | None = self._adapter.fetchone(query, quote_identifiers=True)
        return row
