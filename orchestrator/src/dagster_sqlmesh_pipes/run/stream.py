"""The results of a run for user code: to yield as they are, or one by one with their models."""

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg

from dagster_sqlmesh_pipes.errors import ConfigurationError
from dagster_sqlmesh_pipes.manifest import Model
from dagster_sqlmesh_pipes.options import ResourceOptions
from dagster_sqlmesh_pipes.run.results import Result, RunResult

__all__ = ["RunItem", "RunStream"]


@dataclass(frozen=True, kw_only=True)
class RunItem:
    """One result of a run, with its model."""

    result: Result
    """What to yield: a materialization, a check's result, or an observation."""
    model: Model | None
    """None for a result on a table that SQLMesh only reads."""
    message: Mapping[str, Any]
    """The runner's Pipes message that the result was made from (docs/reference/messages.md): its
    `method` and `params`, those of a custom message with a `payload`."""

    @property
    def is_failed_audit(self) -> bool:
        """Whether it is the result of an audit that failed."""
        return isinstance(self.result, dg.AssetCheckResult) and not self.result.passed

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the runner reported (docs/reference/metadata.md), by metadata key."""
        return self.result.metadata or {}

    def with_metadata(self, metadata: Mapping[str, Any]) -> "RunItem":
        """Return the item with more metadata on its result."""
        return replace(self, result=_with_metadata(self.result, {**self.metadata, **metadata}))


class RunStream(Generator[Result, None, None]):
    """The results of a run, which begins when the first is asked for.

    Yield it as it is (`yield from sqlmesh.run(context)`), or item by item:

    ```python
    for item in sqlmesh.run(context).fetch_row_counts().items():
        yield item.with_metadata({"team": "data"}).result
    ```

    Every materialization has to be yielded: what SQLMesh recorded and Dagster is not told of would
    be missing there.
    """

    def __init__(
        self,
        start: Callable[[ResourceOptions], Iterator[RunResult]],
        *,
        options: ResourceOptions,
        models: Mapping[dg.AssetKey, Model],
    ) -> None:
        self._start = start
        self._options = options
        self._models = models
        self._results: Any = None

    def fetch_row_counts(self) -> "RunStream":
        """Return the stream of a run that counts the rows of each materialized table.

        Raises:
            ConfigurationError: this one has begun.
        """
        if self._results is not None:
            msg = "fetch_row_counts() comes too late: the run has begun. Call it before iterating."
            raise ConfigurationError(msg)
        options = self._options.model_copy(update={"fetch_row_counts": True})
        return RunStream(self._start, options=options, models=self._models)

    def items(self) -> Iterator[RunItem]:
        """Yield each result with its model and the runner's message."""
        for each in self._begun():
            key = each.result.asset_key
            model = self._models.get(key) if key else None
            yield RunItem(result=each.result, model=model, message=each.message)

    def send(self, value: None) -> Result:
        """Return the next result; see `Generator.send`."""
        item: RunResult = self._begun().send(value)
        return item.result

    def throw(self, *exception: Any) -> Result:
        """Raise an exception where the run is; see `Generator.throw`."""
        item: RunResult = self._begun().throw(*exception)
        return item.result

    def close(self) -> None:
        """Stop the run, if it has begun."""
        if self._results is not None:
            self._results.close()

    def _begun(self) -> Any:
        if self._results is None:
            self._results = self._start(self._options)
        return self._results


def _with_metadata(result: Result, metadata: Mapping[str, Any]) -> Result:
    match result:
        case dg.MaterializeResult():
            return dg.MaterializeResult(
                asset_key=result.asset_key,
                metadata=metadata,
                check_results=list(result.check_results or ()),
                data_version=result.data_version,
                tags=result.tags,
            )
        case dg.AssetCheckResult():
            return dg.AssetCheckResult(
                asset_key=result.asset_key,
                check_name=result.check_name,
                passed=result.passed,
                severity=result.severity,
                description=result.description,
                metadata=metadata,
            )
    return result.with_metadata(metadata)
