"""Models' optimized queries: in memory while their models run, and not before or after.

SQLMesh loads them with the snapshots, renders further queries while a model runs, and keeps all of
them to the end. They are three quarters of what a model takes in memory.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from sqlmesh.core.model import Model
from sqlmesh.core.model.cache import OptimizedQueryCache
from sqlmesh.core.snapshot import Snapshot
from sqlmesh.core.state_sync import StateSync

__all__ = ["OptimizedQueries", "load_queries_late"]

_KEPT: Final = 50
"""Models that keep their queries, of those that ran last: one may have many batches."""

_RENDERER: Final = "_query_renderer"  # a `cached_property`; SQLMesh's pickled models lack it, too


def load_queries_late(state: StateSync | None) -> "OptimizedQueries | None":
    """Let a state load its snapshots without optimized queries, and return what loads them later.

    A state that is stored in another way is left as it is: None.
    """
    snapshots: Any = getattr(getattr(state, "snapshot_state", None), "_snapshot_cache", None)
    queries = getattr(snapshots, "_optimized_query_cache", None)
    if isinstance(queries, OptimizedQueryCache):
        queries = OptimizedQueries(queries)
        snapshots._optimized_query_cache = queries  # noqa: SLF001 - there, as was asked
    return queries


class OptimizedQueries:
    """SQLMesh's cache of optimized queries, which loads them when their models run."""

    def __init__(self, on_disk: OptimizedQueryCache) -> None:
        self._on_disk = on_disk
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Model] = OrderedDict()

    def with_optimized_query(self, _model: Model, _name: str | None = None) -> bool:
        """Load nothing, when SQLMesh loads a snapshot."""
        return False

    def put(self, _model: Model) -> None:
        """Store nothing, when SQLMesh loads a snapshot."""

    def loaded_for(self, evaluate: Callable[..., Any]) -> Callable[..., Any]:
        """Return `Scheduler.evaluate` such that the model has its optimized query."""

        def evaluate_with_query(snapshot: Snapshot, *args: Any, **kwargs: Any) -> Any:
            if snapshot.is_model:
                self._load(snapshot.model)
            return evaluate(snapshot, *args, **kwargs)

        return evaluate_with_query

    def _load(self, model: Model) -> None:
        """Load a model's query, and drop those of the model that has not run for longest."""
        with self._lock:
            is_loaded = self._kept.pop(model.fqn, None) is model  # after a plan, it is another one
            self._kept[model.fqn] = model
            oldest = self._kept.popitem(last=False)[1] if len(self._kept) > _KEPT else None
        if oldest is not None:
            oldest.__dict__.pop(_RENDERER, None)
        if not is_loaded:
            with suppress(Exception):  # it is rendered anew then, and an error is the model's
                self._on_disk.with_optimized_query(model)
