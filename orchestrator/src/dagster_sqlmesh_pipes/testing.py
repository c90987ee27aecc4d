"""Test a code location without SQLMesh: a launcher whose runner says what the test gives it to say."""

import itertools
import json
import queue
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import Field, PrivateAttr

from dagster_sqlmesh_pipes.launchers.base import Exit, Invocation, Launcher, LaunchRequest

__all__ = ["FakeLauncher", "message"]

_END = None


def message(method: str, **params: Any) -> dict[str, Any]:
    """Make a Pipes message, without its number."""
    return {"__dagster_pipes_version": "0.1", "method": method, "params": params}


class FakeLauncher(Launcher):
    """Start nothing, and say `messages` for the runner; they are numbered and framed as the runner's would be.

    Without `opened` and `closed` among them these are added, so that a test only gives what it is about. `requests` has what was asked for.

    Example:
        ```python
        launcher = FakeLauncher(
            messages=[
                message("report_asset_materialization", asset_key="shop/orders", metadata={}, data_version=None),
                message("report_custom_message", payload={"type": "run_finished", "outcome": "success"}),
            ]
        )
        ```
    """

    messages: Sequence[Mapping[str, Any] | bytes] = ()
    """Messages, or raw lines."""
    exit: Exit = Exit(code=0)
    log: str = ""
    """The runner's last log lines."""
    manifest: Mapping[str, Any] = Field(default_factory=dict)
    """What `sqlmesh-runner manifest` would write."""
    wait_for_stop: bool = False
    """Whether the runner goes on after `messages`, until it is stopped."""
    after_stop: Sequence[Mapping[str, Any] | bytes] = ()
    """What it says then."""
    _requests: list[LaunchRequest] = PrivateAttr(default_factory=list)

    @property
    def requests(self) -> list[LaunchRequest]:
        """What runners were asked for, in order."""
        return self._requests

    def launch(self, request: LaunchRequest) -> Invocation:
        """Pretend to start a runner."""
        self._requests.append(request)
        return _FakeInvocation(self)

    def run_to_end(self, arguments: Sequence[str]) -> str:
        """Give the manifest."""
        self._requests.append(LaunchRequest(arguments=arguments, context={}))  # type: ignore[typeddict-item]  # no context here
        return json.dumps(self.manifest)


class _FakeInvocation(Invocation):
    name = "fake runner"

    def __init__(self, launcher: FakeLauncher) -> None:
        self._launcher = launcher
        self._numbers = itertools.count()
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        methods = {m["method"] for m in [*launcher.messages, *launcher.after_stop] if isinstance(m, Mapping)}
        self._close = "closed" not in methods and bool(launcher.messages)
        if "opened" not in methods and launcher.messages:
            self._say([message("opened", extras={})])
        self._say(launcher.messages)
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
