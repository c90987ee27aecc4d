"""The runner guard: however a step ends, its runner is stopped and what it reported is stored.

Results come from a generator, which is suspended while Dagster stores them; in a run of many small
models that is most of the time. A termination that arrives then, or an error in storing, is raised
outside of the generator (`dagster._utils.iterate_with_context`), and Dagster neither resumes nor
closes it: the runner would go on, and the lock would stay. But resources are torn down however a
step ends, before its run does; so a resource closes the generator.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import dagster as dg

from dagster_sqlmesh_pipes.errors import ConfigurationError
from dagster_sqlmesh_pipes.mapping import ProjectMapping
from dagster_sqlmesh_pipes.run.publisher import ResultPublisher
from dagster_sqlmesh_pipes.run.results import RunResult
from dagster_sqlmesh_pipes.run.session import INTERRUPTS

__all__ = ["RESOURCES", "RunnerGuard", "requires_runner_guard", "runner_guard_of"]

_KEY = "sqlmesh_runner_guard"

_Event = dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.AssetObservation

_STORED = {
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    dg.DagsterEventType.ASSET_OBSERVATION,
}


class RunnerGuard:
    """Guard the results of the steps in this process, which come one after the other."""

    mapping: ProjectMapping
    """What the step's assets were made with."""

    def __init__(self) -> None:
        self._context: dg.AssetExecutionContext
        self._results: Generator[RunResult, None, None] = (_ for _ in ())
        self._publisher: ResultPublisher | None = None
        self._last: RunResult

    def guard(
        self, context: dg.AssetExecutionContext, results: Generator[RunResult, None, None]
    ) -> Iterator[RunResult]:
        """Yield a step's results."""
        self.close()  # in the in-process executor: an earlier step whose result was not stored
        self._context, self._results = context, results
        self._publisher = ResultPublisher(context)
        for self._last in results:
            yield self._last

    def publish(self, result: Any) -> Any:
        """Return what a step yields to Dagster for a result."""
        return self._publisher.publish(result) if self._publisher else result

    def close(self) -> None:
        """Stop the runner if it still runs, and store what it still reports.

        An interrupt that comes meanwhile is raised after that.
        """
        if inspect.getgeneratorstate(self._results) == inspect.GEN_SUSPENDED:
            _run_uninterrupted(self._store_the_rest)

    def _store_the_rest(self) -> None:
        assert self._publisher is not None
        as_event = self._publisher.as_event
        with contextlib.closing(self._results):
            last = as_event(self._last.result)
            if not _is_stored(self._context, last):
                self._context.log_event(last)
            with contextlib.suppress(StopIteration, dg.DagsterExecutionInterruptedError):
                more = self._results.throw(dg.DagsterExecutionInterruptedError())
                while True:
                    self._context.log_event(as_event(more.result))
                    more = next(self._results)


@dg.resource(description="Stops a step's SQLMesh runner however the step ends.")
def _runner_guard(_context: dg.InitResourceContext) -> Iterator[RunnerGuard]:
    guard = RunnerGuard()
    try:
        yield guard
    finally:
        guard.close()


RESOURCES = {_KEY: _runner_guard}
"""The resources of assets that run SQLMesh. One definition for all: several projects can merge."""


def requires_runner_guard(
    compute: Callable[..., Iterator[Any]], mapping: ProjectMapping
) -> Callable[..., Iterator[Any]]:
    """Return an asset's function that requires the guard as a resource, and publishes by it.

    The guard gets the mapping that the assets were made with.

    By one more argument, because Dagster refuses requirements in the decorator where the function
    has resources among its arguments.
    """

    @functools.wraps(compute)
    def with_guard(*args: Any, **kwargs: Any) -> Iterator[Any]:
        guard: RunnerGuard = kwargs.pop(_KEY)
        guard.mapping = mapping
        for result in compute(*args, **kwargs):
            yield guard.publish(result)

    parameter = inspect.Parameter(
        _KEY, inspect.Parameter.KEYWORD_ONLY, annotation=dg.ResourceParam[RunnerGuard]
    )
    signature = inspect.signature(compute)
    parameters = sorted([*signature.parameters.values(), parameter], key=lambda each: each.kind)
    with_guard.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # inspect reads it
    with_guard.__annotations__ = {**compute.__annotations__, _KEY: parameter.annotation}
    return with_guard


def runner_guard_of(context: dg.AssetExecutionContext) -> RunnerGuard:
    """Return the guard of a context's step.

    Raises:
        ConfigurationError: its assets were not made by this package.
    """
    guard = getattr(context.resources, _KEY, None)
    if not isinstance(guard, RunnerGuard):
        msg = (
            "SQLMesh is run by assets that @sqlmesh_assets or sqlmesh_assets_factory made: use one "
            "of them in place of Dagster's own decorators."
        )
        raise ConfigurationError(msg)
    return guard


def _is_stored(context: dg.AssetExecutionContext, event: _Event) -> bool:
    """Return whether the run's log has an event: the last one may have been stored, or not."""
    for entry in context.instance.all_logs(context.run.run_id, of_type=_STORED):
        assert entry.dagster_event is not None
        stored = (
            entry.asset_materialization
            or entry.asset_observation
            or entry.dagster_event.asset_check_evaluation_data
        )
        if (
            _subject(stored) == _subject(event)
            and event.metadata.items() <= stored.metadata.items()
        ):
            return True
    return False


def _subject(event: _Event) -> tuple[object, ...]:
    return type(event), event.asset_key, getattr(event, "check_name", None)


def _run_uninterrupted(work: Callable[[], None]) -> None:
    """Do some work in a thread, because interrupts are raised in the main thread only."""
    interrupt: BaseException | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="sqlmesh-runner-guard") as pool:
        future = pool.submit(work)
        while not future.done():
            try:
                wait([future])
            except INTERRUPTS as exc:
                interrupt = exc
    future.result()
    if interrupt is not None:
        raise interrupt
