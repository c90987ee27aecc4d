"""Test a code location without SQLMesh: a launcher whose runner sends the test's messages."""

import itertools
import json
import queue
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import dagster as dg
from pydantic import Field, PrivateAttr

from dagster_sqlmesh_pipes.contract import PROTOCOL_VERSION
from dagster_sqlmesh_pipes.launchers.base import ExitStatus, Invocation, Launcher, LaunchRequest

__all__ = ["FakeLauncher", "check", "custom", "finished", "materialization", "message"]

_END = None

Messages = Sequence[Mapping[str, Any] | bytes]
"""Messages, or raw lines."""


_TIMES = {
    "interval_start": "2026-01-01T00:00:00+00:00",
    "interval_end": "2026-01-02T00:00:00+00:00",
}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "run_started": {
        "protocol_version": PROTOCOL_VERSION,
        "runner_version": "0.0.0",
        "sqlmesh_version": "0.0.0",
        "environment": "prod",
        "gateway": None,
        "plan_id": "0" * 32,
        "environment_models": {},
    },
    "model_started": {"attempt": 1, "batches": 1, **_TIMES},
    "batch_finished": {
        "batch": 1,
        "batches": 1,
        "duration": 1.0,
        "rows": None,
        "bytes": None,
        "audits_passed": 0,
        "audits_failed": 0,
        "auto_restated_by": [],
        **_TIMES,
    },
    "model_skipped": {"reason": "nothing_due", "upstream": [], "signals": [], "next_due": None},
    "model_failed": {
        "error": "it failed",
        "error_type": "Error",
        "query": None,
        "path": None,
        "interval_start": None,
        "interval_end": None,
        "batches_done": 0,
        "batches": 1,
        "audit": None,
    },
    "audit_skipped": {},
    "run_restarted": {"attempt": 2, "reason": "a plan changed the environment"},
    "run_finished": {
        "outcome": "success",
        "exit_code": 0,
        "duration": 1.0,
        "materialized": None,  # what was reported: FakeLauncher fills it in
        "failed": [],
        "skipped": [],
        "unknown_models": [],
        "next_due": None,
        "error": None,
    },
}
"""The keys of custom messages that a test leaves out (docs/reference/messages.md)."""


def message(method: str, **params: Any) -> dict[str, Any]:
    """Return a Pipes message, without its number."""
    return {"__dagster_pipes_version": "0.1", "method": method, "params": params}


def custom(type: str, **payload: Any) -> dict[str, Any]:  # noqa: A002 - the key's name
    """Return one of the runner's own messages (`model_failed`, …); keys left out have defaults."""
    model = {"asset_key": None} if "model" in payload else {}
    return message(
        "report_custom_message",
        payload={"type": type, **_DEFAULTS.get(type, {}), **model, **payload},
    )


def materialization(key: str | dg.AssetKey, **metadata: Any) -> dict[str, Any]:
    """Return the message that a model was run. `key` is its asset's: `shop/orders`."""
    return message(
        "report_asset_materialization",
        asset_key=_escaped(key),
        metadata=_metadata(metadata),
        data_version="1",
    )


def check(
    key: str | dg.AssetKey, name: str, *, passed: bool, severity: str = "ERROR", **metadata: Any
) -> dict[str, Any]:
    """Return an audit's result, by the names of its asset and check.

    `severity` is `ERROR` for a blocking audit, else `WARN`.
    """
    return message(
        "report_asset_check",
        asset_key=_escaped(key),
        check_name=name,
        passed=passed,
        severity=severity,
        metadata=_metadata(metadata),
    )


def finished(outcome: str = "success", **payload: Any) -> dict[str, Any]:
    """Return the run's outcome: `success`, `nothing_to_do`, `failed`, `interrupted` or `error`."""
    return custom("run_finished", outcome=outcome, **payload)


class FakeLauncher(Launcher):
    """Start nothing, and send `messages` for the runner, numbered as the runner's would be.

    `opened` and `closed` are added unless they are among them, and an outcome's `materialized` is
    what was reported, so that a test only has what it is about. `requests` has the requests.

    Example:
        ```python
        launcher = FakeLauncher(
            messages=[
                materialization("shop/orders"),
                check("shop/orders", "not_null", passed=True),
                finished(),
            ]
        )
        ```
    """

    messages: Messages | Callable[[LaunchRequest], Messages] = (finished("nothing_to_do"),)
    """The runner's messages, or a function of the request: `request.arguments[0]` is `run` or
    `audit`, `request.context["extras"]["models"]` has the selected models. Default: nothing was
    due. Empty: a runner that dies at once."""
    exit: ExitStatus = ExitStatus(code=0)
    log: str = ""
    """The runner's last log lines."""
    manifest: Mapping[str, Any] = Field(default_factory=dict)
    """What `sqlmesh-runner manifest` writes."""
    wait_for_stop: bool = False
    """Whether the runner goes on after `messages`, until it is stopped."""
    after_stop: Messages = ()
    """The messages after that."""
    _requests: list[LaunchRequest] = PrivateAttr(default_factory=list)

    @property
    def requests(self) -> list[LaunchRequest]:
        """The requests, in order."""
        return self._requests

    def launch(self, request: LaunchRequest) -> Invocation:
        """Return an invocation that sends the messages."""
        self._requests.append(request)
        messages = self.messages(request) if callable(self.messages) else self.messages
        return _FakeInvocation(self, request, messages)

    def run_to_end(self, arguments: Sequence[str], *, timeout: float | None = None) -> str:  # noqa: ARG002
        """Return the manifest."""
        self._requests.append(LaunchRequest(arguments=arguments, context={}))  # type: ignore[typeddict-item]  # no context here
        return json.dumps(self.manifest)


class _FakeInvocation(Invocation):
    name = "fake runner"

    def __init__(self, launcher: FakeLauncher, request: LaunchRequest, messages: Messages) -> None:
        self._launcher = launcher
        models = (request.context.get("extras") or {}).get("models", {})
        self._fqns = {model["asset_key"]: fqn for fqn, model in models.items()}
        self._materialized: list[str] = []
        self._numbers = itertools.count()
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        methods = {m["method"] for m in [*messages, *launcher.after_stop] if isinstance(m, Mapping)}
        self._close = "closed" not in methods and bool(messages)
        if "opened" not in methods and messages:
            self._send([message("opened", extras={})])
        self._send(messages)
        if not launcher.wait_for_stop:
            self._end()

    def _send(self, messages: Iterable[Mapping[str, Any] | bytes]) -> None:
        for each in messages:
            if isinstance(each, bytes):
                self._lines.put(each)
            else:
                numbered = {**self._completed(each), "seq": next(self._numbers)}
                self._lines.put(json.dumps(numbered).encode())

    def _completed(self, sent: Mapping[str, Any]) -> Mapping[str, Any]:
        params = sent["params"]
        if sent["method"] == "report_asset_materialization":
            self._materialized.append(self._fqns.get(params["asset_key"], params["asset_key"]))
        payload = params.get("payload")
        if isinstance(payload, Mapping) and payload.get("materialized", ()) is None:
            payload = {**payload, "materialized": sorted(self._materialized)}
            return {**sent, "params": {"payload": payload}}
        return sent

    def _end(self) -> None:
        if self._close:
            self._send([message("closed")])
        self._lines.put(_END)

    def read(self) -> bytes | None:
        line = self._lines.get()
        if line is _END:
            self._lines.put(_END)
        return line

    def stop(self) -> None:
        if self._launcher.wait_for_stop:
            self._send(self._launcher.after_stop)
            self._end()

    def wait(self) -> ExitStatus:
        return self._launcher.exit

    def log_tail(self) -> str:
        return self._launcher.log

    def __exit__(self, *_: object) -> None:
        self.stop()


def _escaped(key: str | dg.AssetKey) -> str:
    return key if isinstance(key, str) else key.to_escaped_user_string()


def _metadata(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: {"raw_value": value, "type": "__infer__"} for name, value in values.items()}
