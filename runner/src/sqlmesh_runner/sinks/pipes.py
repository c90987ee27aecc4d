"""Events as Pipes messages, numbered, for the orchestrator (docs/contract.md, sections 2 and 3)."""

import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from typing import Any, Final

from dagster_pipes import (
    DAGSTER_PIPES_CONTEXT_ENV_VAR,
    DAGSTER_PIPES_MESSAGES_ENV_VAR,
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

from sqlmesh_runner import events
from sqlmesh_runner.errors import ConfigurationError
from sqlmesh_runner.events import Event
from sqlmesh_runner.sinks.base import Sink
from sqlmesh_runner.sinks.metadata import check_metadata, materialization_metadata
from sqlmesh_runner.sinks.stdio import take_stdout

__all__ = ["PipesSink", "is_pipes_process", "open_pipes"]

_STDERR: Final = 2


def is_pipes_process(environ: Mapping[str, str]) -> bool:
    """Tell whether an orchestrator started this process. Ask before SQLMesh is there: a project's `.env` overrides the environment."""
    return DAGSTER_PIPES_CONTEXT_ENV_VAR in environ


def open_pipes(environ: Mapping[str, str]) -> "PipesSink":
    """Read what the orchestrator handed over, and say `opened`.

    Raises:
        ConfigurationError: the bootstrap variables can't be read.
    """
    try:
        params = {
            DAGSTER_PIPES_CONTEXT_ENV_VAR: encode_param(_context_params(environ)),
            DAGSTER_PIPES_MESSAGES_ENV_VAR: environ[DAGSTER_PIPES_MESSAGES_ENV_VAR],
        }
        context = PipesContext(PipesMappingParamsLoader(params), _ContextLoader(), _NumberedWriter())
    except Exception as exc:
        msg = f"The orchestrator's Pipes variables can't be used: {type(exc).__name__}: {exc}. Start the runner by a launcher, or without them."
        raise ConfigurationError(msg) from exc
    PipesContext.set(context)  # so that a Python model's `open_dagster_pipes()` gets this one, numbers and all
    return PipesSink(context)


def _context_params(environ: Mapping[str, str]) -> PipesParams:
    """Decode where the context is, putting together a context that was cut over several variables."""
    params: PipesParams = decode_param(environ[DAGSTER_PIPES_CONTEXT_ENV_VAR])
    if "chunks" not in params:
        return params
    names = [f"{DAGSTER_PIPES_CONTEXT_ENV_VAR}_{number}" for number in range(int(params["chunks"]))]
    whole: PipesParams = decode_param("".join(environ[name] for name in names))
    return whole if "data" in whole or "path" in whole else {"data": whole}


class _ContextLoader(PipesContextLoader):
    """Load the context. The assets in scope are those that extras name."""

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
    """Give what is reported under an asset key, EXTERNAL models with audits included."""
    return {**(extras.get("models") or {}), **(extras.get("externals") or {})}


def _asset_keys(extras: Mapping[str, Any]) -> set[str]:
    keys = {model["asset_key"] for model in _models(extras).values()}
    return keys | {check["asset_key"] for checks in (extras.get("standalone_audits") or {}).values() for check in checks}


class _NumberedWriter(PipesMessageWriter["_NumberedChannel"]):
    """Write messages to a file, a pipe or a standard stream, each with its number."""

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
            yield _NumberedChannel(stream)


class _NumberedChannel(PipesMessageWriterChannel):
    """Write each message at once, whole, ASCII only, with the next `seq`. Never raises: nobody may be there to read."""

    def __init__(self, stream: FileIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._next = 0
        self._broken = False

    def write_message(self, message: PipesMessage) -> None:
        with self._lock:
            rest = memoryview((json.dumps({**message, "seq": self._next}) + "\n").encode("ascii"))
            self._next += 1
            try:
                while rest:  # a pipe may take a part only
                    rest = rest[self._stream.write(rest) :]
            except (OSError, ValueError) as exc:
                if not self._broken:
                    print(f"Messages to the orchestrator can't be written any more: {exc}", file=sys.stderr)  # noqa: T201
                self._broken = True


_LEVELS: Final = {"INFO": 20, "WARNING": 30, "ERROR": 40}


class PipesSink(Sink):
    """Give results the names that Dagster knows; everything else is a custom message.

    Results of models and audits that extras do not name are not reported: Dagster did not select them.
    """

    def __init__(self, context: PipesContext) -> None:
        self._context = context
        self.extras: Mapping[str, Any] = context.extras
        self._models: Mapping[str, Any] = _models(self.extras)
        self._standalone: Mapping[str, Any] = self.extras.get("standalone_audits") or {}
        self._unknown: set[str] = set()

    def emit(self, event: Event) -> None:
        """Send the event as the message, or messages, that the contract has for it."""
        match event:
            case events.ModelMaterialized():
                self._materialization(event)
            case events.AuditFinished():
                self._check(event)
            case events.AuditSkipped():
                self._audit_skipped(event)
            case events.Log():
                self._context.log.log(_LEVELS[event.level], event.message)
            case _:
                self._custom(event)

    def close(self) -> None:
        """Say `closed`."""
        self._context.close()

    def _materialization(self, event: events.ModelMaterialized) -> None:
        model = self._models.get(event.model)
        if model is not None:
            metadata = materialization_metadata(event)
            self._context.report_asset_materialization(metadata, data_version=event.data_version, asset_key=model["asset_key"])

    def _check(self, event: events.AuditFinished) -> None:
        fails_model = event.blocking or event.error
        checks = self._checks(event.model, event.audit_id)
        if event.standalone and not checks and not event.passed:
            found = event.error or f"{event.failing_rows} rows"
            self._context.log.warning(f"Standalone audit {event.audit}, which has no check in this run, failed: {found}.")
        for asset_key, name in checks:
            self._context.report_asset_check(
                name, event.passed, "ERROR" if fails_model else "WARN", check_metadata(event), asset_key=asset_key
            )

    def _checks(self, model: str, audit_id: str) -> list[tuple[str, str]]:
        """Give asset key and check name of what is to be told of an audit."""
        if model in self._standalone:
            return [(check["asset_key"], check["check_name"]) for check in self._standalone[model]]
        named = self._models.get(model) or {}
        name = (named.get("checks") or {}).get(audit_id)
        return [(named["asset_key"], name)] if name else []

    def _audit_skipped(self, event: events.AuditSkipped) -> None:
        for asset_key, name in self._checks(event.model, event.audit_id):
            payload = {"type": event.type, "model": event.model, "asset_key": asset_key, "check_name": name, "audit": event.audit}
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
