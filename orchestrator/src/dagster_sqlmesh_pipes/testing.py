"""Test a code location without SQLMesh: a launcher whose runner says what the test gives it to say."""

import itertools
import json
import queue
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import dagster as dg
from pydantic import Field, PrivateAttr

from dagster_sqlmesh_pipes.launchers.base import Exit, Invocation, Launcher, LaunchRequest

__all__ = ["FakeLauncher", "check", "finished", "materialization", "message"]

_END = None

Messages = Sequence[Mapping[str, Any] | bytes]
"""Messages, or raw lines."""


def message(method: str, **params: Any) -> dict[str, Any]:
    """Make a Pipes message, without its number."""
    return {"__dagster_pipes_version": "0.1", "method": method, "params": params}


def materialization(key: str | dg.AssetKey, **metadata: Any) -> dict[str, Any]:
    """Say that a model was run. `key` is its asset's: `shop/orders`."""
    return message("report_asset_materialization", asset_key=_escaped(key), metadata=_metadata(metadata), data_version=None)


def check(key: str | dg.AssetKey, name: str, *, passed: bool, severity: str = "ERROR", **metadata: Any) -> dict[str, Any]:
    """Say an audit's verdict, by the names of its asset and check. `severity` is `ERROR` for a blocking audit, else `WARN`."""
    return message(
        "report_asset_check", asset_key=_escaped(key), check_name=name, passed=passed, severity=severity, metadata=_metadata(metadata)
    )


def finished(outcome: str = "success", **payload: Any) -> dict[str, Any]:
    """Say how the run ended: `success`, `nothing_to_do`, `failed`, `interrupted` or `error`."""
    return message("report_custom_message", payload={"type": "run_finished", "outcome": outcome, **payload})


class FakeLauncher(Launcher):
    """Start nothing, and say `messages` for the runner; they are numbered and framed as the runner's would be.

    Without `opened` and `closed` among them these are added, so that a test only gives what it is about. `requests` has what was asked for.

    Example:
        ```python
        launcher = FakeLauncher(messages=[materialization("shop/orders"), check("shop/orders", "not_null", passed=True), finished()])
        ```
    """

    messages: Messages | Callable[[LaunchRequest], Messages] = (finished("nothing_to_do"),)
    """What the runner says, or a function of what it was asked for: `request.arguments[0]` is `run` or `audit`,
    `request.context["extras"]["models"]` has what is selected. Default: that nothing was due. None at all: a runner that dies at once."""
    exit: Exit = Exit(code=0)
    log: str = ""
    """The runner's last log lines."""
    manifest: Mapping[str, Any] = Field(default_factory=dict)
    """What `sqlmesh-runner manifest` would write."""
    wait_for_stop: bool = False
    """Whether the runner goes on after `messages`, until it is stopped."""
    after_stop: Messages = ()
    """What it says then."""
    _requests: list[LaunchRequest] = PrivateAttr(default_factory=list)

    @property
    def requests(self) -> list[LaunchRequest]:
        """What runners were asked for, in order."""
        return self._requests

    def launch(self, request: LaunchRequest) -> Invocation:
        """Pretend to start a runner."""
        self._requests.append(request)
        return _FakeInvocation(self, self.messages(request) if callable(self.messages) else self.messages)

    def run_to_end(self, arguments: Sequence[str]) -> str:
        """Give the manifest."""
        self._requests.append(LaunchRequest(arguments=arguments, context={}))  # type: ignore[typeddict-item]  # no context here
        return json.dumps(self.manifest)


class _FakeInvocation(Invocation):
    name = "fake runner"

    def __init__(self, launcher: FakeLauncher, messages: Messages) -> None:
        self._launcher = launcher
        self._numbers = itertools.count()
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        methods = {m["method"] for m in [*messages, *launcher.after_stop] if isinstance(m, Mapping)}
        self._close = "closed" not in methods and bool(messages)
        if "opened" not in methods and messages:
            self._say([message("opened", extras={})])
        self._say(messages)
        if not launcher.wait_for_stop:
            self._end()

    def _say(self, messages: Iterable[Mapping[str, Any] | bytes]) -> None:
        for said in messages:
            self._lines.put(said if isinstance(said, bytes) else json.dumps({**said, "seq": next(self._numbers)}).encode())

    def _end(self) -> None:
        if self._close:
            self._say([message("closed")])
        self._lines.put(_END)

    def read(self) -> bytes | None:
        line = self._lines.get()
        if line is _END:
            self._lines.put(_END)
        return line

    def stop(self) -> None:
        if self._launcher.wait_for_stop:
            self._say(self._launcher.after_stop)
            self._end()

    def wait(self) -> Exit:
        return self._launcher.exit

    def log_tail(self) -> str:
        return self._launcher.log

    def __exit__(self, *_: object) -> None:
        self.stop()


def _escaped(key: str | dg.AssetKey) -> str:
    return key if isinstance(key, str) else key.to_escaped_user_string()


def _metadata(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: {"raw_value": value, "type": "__infer__"} for name, value in values.items()}
