"""The watch over a step's run: a run that Dagster has ended must not have a runner any more.

A run may be ended without its step: its worker was killed, or it was terminated with force while
nothing could interrupt the step. Its process goes on then, and nobody would see its results.
"""

import logging
import threading
from collections.abc import Callable
from typing import Self

import dagster as dg

from dagster_sqlmesh_pipes.errors import RunFailedError

__all__ = ["RunWatch"]

_INTERVAL = 5.0  # seconds; each look is one query

_logger = logging.getLogger("dagster_sqlmesh_pipes")


class RunWatch:
    """Call `on_end` once, in another thread, if the step's run ends in Dagster meanwhile.

    A context manager. An instance that does not answer ends nothing.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        on_end: Callable[[RunFailedError], None],
    ) -> None:
        self._instance = context.instance
        self._run_id = context.run.run_id
        self._on_end = on_end
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="sqlmesh-run-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._closed.wait(_INTERVAL):
            try:
                run = self._instance.get_run_by_id(self._run_id)
            except Exception:
                _logger.debug("Run %s could not be looked up", self._run_id, exc_info=True)
                continue
            if run is not None and run.is_finished:
                self._on_end(
                    RunFailedError(
                        f"Run {self._run_id} was ended in Dagster ({run.status.value}) while its "
                        "step was at work, so the runner was stopped. What SQLMesh recorded stays."
                    )
                )
                return
