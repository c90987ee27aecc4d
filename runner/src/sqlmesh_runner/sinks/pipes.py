"""Events as numbered Pipes messages for the orchestrator.

See docs/reference/messages.md.
"""

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from io import FileIO
from typing import Any, Final

from dagster_pipes import (
    DAGSTER_PIPES_CONTEXT_ENV_VAR,
    DAGSTER_PIPES_MESSAGES_ENV_VAR,
    DagsterPipesError,
    PipesContext,
    PipesContextData,
    PipesContextLoader,
    PipesMappingParamsLoader,
    PipesMessage,
    PipesMessageWriter,
    PipesMessageWriterChannel,
    PipesParams,
    decode_param,
    encode_param,
)

from sqlmesh_runner.errors import ConfigurationError
from sqlmesh_runner.recording import events
from sqlmesh_runner.recording.events import Event
from sqlmesh_runner.recording.recorded import ModelsRecorded
from sqlmesh_runner.sinks.base import Sink
from sqlmesh_runner.sinks.framing import message_lines
from sqlmesh_runner.sinks.metadata import check_metadata, materialization_metadata
from sqlmesh_runner.sinks.model_pipes import ModelPipesContext
from sqlmesh_runner.sinks.stdio import take_stdout

__all__ = ["PipesSink", "is_pipes_process", "open_pipes"]

_STDERR: Final = 2


def is_pipes_process(environ: Mapping[str, str]) -> bool:
    """Return whether an orchestrator started this process.

    To be called before SQLMesh loads a project, whose `.env` overrides the environment.
    """
    return DAGSTER_PIPES_CONTEXT_ENV_VAR in environ


def open_pipes(environ: Mapping[str, str]) -> "PipesSink":
    """Read the context that the orchestrator passed, and write `opened`.

    Raises:
        ConfigurationError: the bootstrap variables can't be read.
    """
    try:
        params = {
            DAGSTER_PIPES_CONTEXT_ENV_VAR: encode_param(_context_params(environ)),
            DAGSTER_PIPES_MESSAGES_ENV_VAR: environ[DAGSTER_PIPES_MESSAGES_ENV_VAR],
        }
        writer = _NumberedWriter()
        context = PipesContext(PipesMappingParamsLoader(params), _ContextLoader(), writer)
    except Exception as exc:
        msg = (
            f"The orchestrator's Pipes variables can't be used: {type(exc).__name__}: {exc}. "
            "Start the runner through a launcher, or without them."
        )
        raise ConfigurationError(msg) from exc
    return PipesSink(context, writer.opened)


def _context_params(environ: Mapping[str, str]) -> PipesParams:
    """Decode where the context is. Joins a context that was cut over several variables."""
    params: PipesParams = decode_param(environ[DAGSTER_PIPES_CONTEXT_ENV_VAR])
    if "chunks" not in params:
        return params
    names = [f"{DAGSTER_PIPES_CONTEXT_ENV_VAR}_{number}" for number in range(int(params["chunks"]))]
    whole: PipesParams = decode_param("".join(environ[name] for name in names))
    return whole if "data" in whole or "path" in whole else {"data": whole}


class _ContextLoader(PipesContextLoader):
    """Load the context. The assets in scope are those that the extras name."""

    @contextmanager
    def load_context(self, params: PipesParams) -> Iterator[PipesContextData]:
        if "path" in params:
            with open(params["path"], encoding="utf-8") as file:  # noqa: PTH123 - may be /dev/fd/N
                data: PipesContextData = json.load(file)
        else:
            data = params["data"]
        data["asset_keys"] = sorted(_asset_keys(data["extras"]))
        yield data


def _models(extras: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is reported under an asset key, EXTERNAL models with audits included."""
    return {**(extras.get("models") or {}), **(extras.get("externals") or {})}


def _asset_keys(extras: Mapping[str, Any]) -> set[str]:
    keys = {model["asset_key"] for model in _models(extras).values()}
    return keys | {
        check["asset_key"]
        for checks in (extras.get("standalone_audits") or {}).values()
        for check in checks
    }


class _NumberedWriter(PipesMessageWriter["_NumberedChannel"]):
    """Write messages to a file, a pipe or a standard stream, each with its number."""

    opened: "_NumberedChannel"

    @contextmanager
    def open(self, params: PipesParams) -> Iterator["_NumberedChannel"]:
        if "path" in params:
            stream = open(params["path"], "ab", buffering=0)  # noqa: SIM115, PTH123 - may be /dev/fd/N; closed below
        elif params.get("stdio") == "stderr":
            stream = os.fdopen(os.dup(_STDERR), "wb", buffering=0)
        elif params.get("stdio") == "stdout":
            stream = take_stdout()
        else:
            msg = f"messages can go to a `path` or to `stdio`, not to {params}"
            raise ValueError(msg)
        with stream:
            self.opened = _NumberedChannel(stream, params.get("max_line"))
            yield self.opened


class _NumberedChannel(PipesMessageWriterChannel):
    """Write each message at once, whole, ASCII only, with the next `seq`; long ones in parts.

    A failed write does not raise: a Python model that reports something itself would fail by it.
    """

    def __init__(self, stream: FileIO, max_line: int | None) -> None:
        self.error: Exception | None = None
        """The first failed write. Messages are missing from then on."""
        self._process = os.getpid()
        self._stream = stream
        self._max_line = max_line
        self._lock = threading.Lock()
        self._next = 0

    def write_message(self, message: PipesMessage) -> None:
        if os.getpid() != self._process:
            return  # a forked child would repeat numbers
        with self._lock:
            lines = message_lines(message, self._next, self._max_line)
            self._next += 1
            try:
                for line in lines:
                    self._write(line)
            except (OSError, ValueError) as exc:
                self.error = self.error or exc

    def _write(self, line: bytes) -> None:
        rest = memoryview(line)
        while rest:  # a pipe may take some of it only
            rest = rest[self._stream.write(rest) :]


_LEVELS: Final = {"INFO": 20, "WARNING": 30, "ERROR": 40}


class PipesSink(Sink):
    """Report results under Dagster's names, and everything else as custom messages.

    Results of models and audits that the extras do not name are not reported: Dagster did not
    select them.
    """

    def __init__(self, context: PipesContext, channel: _NumberedChannel) -> None:
        self._context = context
        self._channel = channel
        self.extras: Mapping[str, Any] = context.extras
        self._models: Mapping[str, Any] = _models(self.extras)
        self._standalone: Mapping[str, Any] = self.extras.get("standalone_audits") or {}
        self._unknown: set[str] = set()
        asset_keys = {fqn: model["asset_key"] for fqn, model in self._models.items()}
        self._model_context = ModelPipesContext(context, channel, asset_keys)
        PipesContext.set(self._model_context)  # what `open_dagster_pipes()` returns from now on

    def emit(self, event: Event) -> None:
        """Write the event as the messages that the contract has for it."""
        match event:
            case events.ModelMaterialized():
                self._materialization(event)
            case events.AuditFinished():
                self._check(event)
            case events.AuditSkipped():
                self._audit_skipped(event)
            case events.Log():
                self._context.log.log(_LEVELS[event.level], event.message)
            case ModelsRecorded():
                self._models_recorded(event)
            case _:
                self._custom(event)
        if self._channel.error is not None:
            msg = f"Messages to the orchestrator can't be written: {self._channel.error}"
            raise ConnectionError(msg) from self._channel.error

    def close(self) -> None:
        """Write `closed`."""
        self._context.close()

    def _materialization(self, event: events.ModelMaterialized) -> None:
        model = self._models.get(event.model)
        if model is None:
            return
        key, metadata = model["asset_key"], materialization_metadata(event)
        report = partial(
            self._context.report_asset_materialization,
            data_version=event.data_version,
            asset_key=key,
        )
        try:
            report({**self._model_context.metadata_of(key), **metadata})
        except (DagsterPipesError, TypeError, ValueError) as exc:
            report(metadata)
            self._context.log.warning(f"Metadata that {event.model} reported is left out: {exc}")

    def _check(self, event: events.AuditFinished) -> None:
        fails_model = event.blocking or event.error
        checks = self._checks(event.model, event.audit_id)
        if event.standalone and not checks and not event.passed:
            found = event.error or f"{event.failing_rows} rows"
            self._context.log.warning(
                f"Standalone audit {event.audit}, which has no check in this run, failed: {found}."
            )
        for asset_key, name in checks:
            self._context.report_asset_check(
                name,
                event.passed,
                "ERROR" if fails_model else "WARN",
                check_metadata(event),
                asset_key=asset_key,
            )

    def _checks(self, model: str, audit_id: str) -> list[tuple[str, str]]:
        """Return the asset keys and check names that an audit is reported under."""
        if model in self._standalone:
            return [(check["asset_key"], check["check_name"]) for check in self._standalone[model]]
        named = self._models.get(model) or {}
        name = (named.get("checks") or {}).get(audit_id)
        return [(named["asset_key"], name)] if name else []

    def _audit_skipped(self, event: events.AuditSkipped) -> None:
        for asset_key, name in self._checks(event.model, event.audit_id):
            payload = {
                "type": event.type,
                "model": event.model,
                "asset_key": asset_key,
                "check_name": name,
                "audit": event.audit,
            }
            self._context.report_custom_message(payload)

    def _models_recorded(self, event: ModelsRecorded) -> None:
        payload = event.payload()
        payload["models"] = [
            {**entry, "asset_key": self._models[entry["model"]]["asset_key"]}
            for entry in payload["models"]
            if entry["model"] in self._models
        ]
        if payload["models"]:
            self._context.report_custom_message(payload)

    def _custom(self, event: Event) -> None:
        payload = event.payload()
        model = payload.get("model")
        if model is not None:
            payload["asset_key"] = (self._models.get(model) or {}).get("asset_key")
        if isinstance(event, events.ModelStarted) and model not in self._models:
            self._unknown.add(event.model)
        if isinstance(event, events.RunFinished):
            payload["unknown_models"] = sorted(self._unknown)
        self._context.report_custom_message(payload)
