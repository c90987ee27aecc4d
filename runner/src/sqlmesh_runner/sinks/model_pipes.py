"""The Pipes context that a Python model gets from `open_dagster_pipes()`."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from dagster_pipes import (
    DagsterPipesError,
    PipesContext,
    PipesContextData,
    PipesContextLoader,
    PipesException,
    PipesMessage,
    PipesMessageWriter,
    PipesMessageWriterChannel,
    PipesParams,
    PipesParamsLoader,
)

from sqlmesh_runner.recording import events
from sqlmesh_runner.recording.current import current_model

__all__ = ["ModelPipesContext"]

_RESERVED_TYPES: Final = frozenset(
    value.type
    for value in vars(events).values()
    if isinstance(value, type) and issubclass(value, events.Event) and "type" in vars(value)
)


class ModelPipesContext(PipesContext):
    """Pass a Python model's messages on, and keep those apart that are the runner's to send.

    - Closing does nothing: the runner's own messages follow.
    - A materialization of an asset of this run becomes metadata of the one that the runner
      reports, with SQLMesh's interval and data version, once SQLMesh has recorded the interval.
      Without a key it is of the model that reports it.
    - A check is not passed on: Dagster expects those of SQLMesh's audits, and no others.
    """

    def __init__(
        self,
        context: PipesContext,
        channel: PipesMessageWriterChannel,
        asset_keys: Mapping[str, str],
    ) -> None:
        self._keys = asset_keys  # by FQN
        self._reported: dict[str, dict[str, Any]] = {}
        super().__init__(_NoParams(), _SameData(_data_of(context)), _SameChannel(channel))

    def metadata_of(self, asset_key: str) -> Mapping[str, Any]:
        """Return what models reported as metadata of an asset."""
        return self._reported.get(asset_key, {})

    @property
    def asset_key(self) -> str:
        """Return the key of the model that this thread runs."""
        return self._own_key or super().asset_key

    @property
    def _own_key(self) -> str | None:
        return self._keys.get(current_model() or "")

    def close(self, exc: PipesException | None = None) -> None:
        """Do nothing: the runner closes its messages when the run is over."""

    def report_asset_materialization(
        self,
        metadata: Mapping[str, Any] | None = None,
        data_version: str | None = None,
        asset_key: str | None = None,
    ) -> None:
        """Keep the metadata for the runner's own report of the asset.

        Without a key, and for a model without an asset in this run, there is nothing to report.
        """
        key = asset_key or self._own_key
        if key in self._keys.values():
            self._reported.setdefault(str(key), {}).update(metadata or {})
        elif key is not None:
            super().report_asset_materialization(metadata, data_version, key)

    def report_asset_check(self, check_name: str, *_: Any, **arguments: Any) -> None:
        """Log that the check is not passed on."""
        key = arguments.get("asset_key") or self._own_key or "its asset"
        self.log.warning(
            f"A Python model reported the check {check_name} of {key}. It is not passed on: the "
            "checks of this run are SQLMesh's audits."
        )

    def report_custom_message(self, payload: Any) -> None:
        """Pass the payload on, unless it looks like one of the runner's own.

        Raises:
            DagsterPipesError: its `type` is that of an event.
        """
        if isinstance(payload, Mapping) and payload.get("type") in _RESERVED_TYPES:
            msg = (
                f"A message of type {payload['type']!r} is the runner's to send. Use another type."
            )
            raise DagsterPipesError(msg)
        super().report_custom_message(payload)


def _data_of(context: PipesContext) -> PipesContextData:
    return {
        "asset_keys": context.asset_keys,
        "code_version_by_asset_key": None,
        "provenance_by_asset_key": None,
        "partition_key": None,
        "partition_key_range": None,
        "partition_time_window": None,
        "run_id": context.run_id,
        "job_name": context.job_name,
        "retry_number": context.retry_number,
        "extras": context.extras,
    }


class _NoParams(PipesParamsLoader):
    def is_dagster_pipes_process(self) -> bool:
        return True

    def load_context_params(self) -> PipesParams:
        return {}

    def load_messages_params(self) -> PipesParams:
        return {}


class _SameData(PipesContextLoader):
    def __init__(self, data: PipesContextData) -> None:
        self._data = data

    @contextmanager
    def load_context(self, params: PipesParams) -> Iterator[PipesContextData]:  # noqa: ARG002
        yield self._data


class _SameChannel(PipesMessageWriter["_OpenChannel"]):
    def __init__(self, channel: PipesMessageWriterChannel) -> None:
        self._channel = channel

    @contextmanager
    def open(self, params: PipesParams) -> Iterator["_OpenChannel"]:  # noqa: ARG002
        yield _OpenChannel(self._channel)


class _OpenChannel(PipesMessageWriterChannel):
    """Write to a channel that was opened before, and stays open."""

    def __init__(self, channel: PipesMessageWriterChannel) -> None:
        self._channel = channel

    def write_message(self, message: PipesMessage) -> None:
        if message["method"] not in {"opened", "closed"}:
            self._channel.write_message(message)
