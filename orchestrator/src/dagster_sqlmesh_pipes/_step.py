"""The end of a step, however it comes: its runner is stopped and waited for, and what it reported is stored.

Results come from a generator, which is suspended while Dagster stores them; in a run of many small models that is most of the time. A
termination that arrives then, or an error in storing, is raised outside of the generator (`dagster._utils.iterate_with_context`), and Dagster
neither resumes nor closes it: runner and turn would be left as they are. But resources are torn down however a step ends, before its run does;
so one of them holds the generator.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import dagster as dg

from dagster_sqlmesh_pipes._stream import INTERRUPTS, Result
from dagster_sqlmesh_pipes.errors import ConfigurationError

__all__ = ["RESOURCES", "Step", "requires_step", "step_of"]

_KEY = "sqlmesh_step"

_Event = dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.AssetObservation
_STORED = {
    dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_CHECK_EVALUATION, dg.DagsterEventType.ASSET_OBSERVATION,
}  # fmt: skip


class Step:
    """What a step has begun in this process. Steps in one process come one after the other."""

    def __init__(self) -> None:
        self._context: dg.AssetExecutionContext
        self._results: Generator[Result, None, None] = (_ for _ in ())
        self._last: Result

    def hold(self, context: dg.AssetExecutionContext, results: Generator[Result, None, None]) -> Iterator[Result]:
        """Yield results, and keep hold of those to come."""
        self.end()  # in the in-process executor, an earlier step whose result could not be stored
        self._context, self._results = context, results
        for self._last in results:
            yield self._last

    def end(self) -> None:
        """Stop what has not come to its end, and store what it still reports. An interrupt that comes meanwhile is raised after that."""
        if inspect.getgeneratorstate(self._results) == inspect.GEN_SUSPENDED:
            _uninterrupted(self._store_the_rest)

    def _store_the_rest(self) -> None:
        with contextlib.closing(self._results):
            last = _event(self._context, self._last)
            if not _is_stored(self._context, last):
                self._context.log_event(last)
            with contextlib.suppress(StopIteration, dg.DagsterExecutionInterruptedError):
                result = self._results.throw(dg.DagsterExecutionInterruptedError())
                while True:
                    self._context.log_event(_event(self._context, result))
                    result = next(self._results)


@dg.resource(description="Ends what a step of SQLMesh assets has begun.")
def _step(_context: dg.InitResourceContext) -> Iterator[Step]:
    step = Step()
    try:
        yield step
    finally:
        step.end()


RESOURCES = {_KEY: _step}
"""What assets are bound to whose function runs SQLMesh. One definition for all, so that those of several projects can be merged."""


def requires_step(compute: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """Make an asset's function require the resource.

    By one more argument, because Dagster refuses requirements in the decorator where the function has resources among its arguments.
    """

    @functools.wraps(compute)
    def with_step(*args: Any, **kwargs: Any) -> Iterator[Any]:
        del kwargs[_KEY]
        yield from compute(*args, **kwargs)

    parameter = inspect.Parameter(_KEY, inspect.Parameter.KEYWORD_ONLY, annotation=dg.ResourceParam[Step])
    signature = inspect.signature(compute)
    parameters = sorted([*signature.parameters.values(), parameter], key=lambda each: each.kind)
    with_step.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # inspect reads it
    with_step.__annotations__ = {**compute.__annotations__, _KEY: parameter.annotation}
    return with_step


def step_of(context: dg.AssetExecutionContext) -> Step:
    """Give the step that a context is of.

    Raises:
        ConfigurationError: its assets were not made by this package.
    """
    step = getattr(context.resources, _KEY, None)
    if not isinstance(step, Step):
        msg = "SQLMesh is run by assets that @sqlmesh_assets or sqlmesh_assets_factory made: use one of them in place of Dagster's own decorators."
        raise ConfigurationError(msg)
    return step


def _event(context: dg.AssetExecutionContext, result: Result) -> _Event:
    """Give the event that Dagster would make of a result."""
    if isinstance(result, dg.MaterializeResult):
        version = result.data_version
        tags = {"dagster/data_version": version.value, "dagster/data_version_is_user_provided": "true"} if version else {}
        assert result.asset_key is not None
        return dg.AssetMaterialization(asset_key=result.asset_key, metadata=result.metadata, tags=tags)
    if isinstance(result, dg.AssetCheckResult):
        return result.to_asset_check_evaluation(context.op_execution_context.get_step_execution_context())
    return result


def _is_stored(context: dg.AssetExecutionContext, event: _Event) -> bool:
    """Tell whether the run's log has an event: the last result may have been stored, or not, when the step was ended."""
    for entry in context.instance.all_logs(context.run.run_id, of_type=_STORED):
        assert entry.dagster_event is not None
        stored = entry.asset_materialization or entry.asset_observation or entry.dagster_event.asset_check_evaluation_data
        if _subject(stored) == _subject(event) and event.metadata.items() <= stored.metadata.items():
            return True
    return False


def _subject(event: _Event) -> tuple[object, ...]:
    return type(event), event.asset_key, getattr(event, "check_name", None)


def _uninterrupted(work: Callable[[], None]) -> None:
    """Do some work in a thread, because interrupts are raised in the main thread only; raise one that came after the work is done."""
    interrupt: BaseException | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="sqlmesh-step") as pool:
        future = pool.submit(work)
        while not future.done():
            try:
                wait([future])
            except INTERRUPTS as exc:
                interrupt = exc
    future.result()
    if interrupt is not None:
        raise interrupt
