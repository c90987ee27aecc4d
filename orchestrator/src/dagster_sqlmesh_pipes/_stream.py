"""The Pipes session that hands results to Dagster while the runner runs.

Dagster's own Pipes clients give results to the step when the process has ended, and `open_pipes_session` makes every
selected asset mandatory. So the session is put together from Pipes' public parts here: a thread reads and handles messages as they
come, the step's generator yields what has come so far.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg
from dagster_pipes import PipesParams

from dagster_sqlmesh_pipes._messages import MessageSequence
from dagster_sqlmesh_pipes._report import RunReport
from dagster_sqlmesh_pipes.launchers.base import Invocation, Launcher, LaunchRequest

__all__ = ["Result", "stream"]

Result = dg.MaterializeResult[Any] | dg.AssetCheckResult
"""What a step yields for an asset or a check."""


def stream(context: dg.AssetExecutionContext, *, launcher: Launcher, request: LaunchRequest, report: RunReport) -> Iterator[Result]:
    """Start a runner and yield its results as they are reported, then judge its run.

    Verdicts on external assets, which are not the step's, are logged as observations.

    When Dagster terminates the run, the runner is asked to stop; what it still reports is yielded before the interrupt goes on.

    Raises:
        LaunchError: the runner could not be started.
        RunFailedError: its run did not succeed. All that it reported has been yielded before.
    """
    externals = {external["asset_key"] for external in (request.context["extras"] or {}).get("externals", {}).values()}
    with launcher.launch(request) as invocation:
        context.log.info(f"Started {invocation.name}.")
        session = _Session(context, invocation, report)
        interrupt: BaseException | None = None
        while True:
            # An interrupt may be raised anywhere in this frame. Nothing is lost by that: `session.next()` moves its cursor last.
            try:
                result = session.next()
                if result is None:
                    break
                if isinstance(result, dg.AssetCheckResult) and _key(result) in externals:
                    context.log_event(_observation(result))
                else:
                    yield result
            except (dg.DagsterExecutionInterruptedError, KeyboardInterrupt) as exc:
                if interrupt is not None:
                    raise  # asked twice: leaving the context kills what does not stop
                interrupt = exc
                context.log.info(f"Asking {invocation.name} to stop.")
                invocation.stop()
        if interrupt is not None:
            raise interrupt
        session.judge()


def _key(result: dg.AssetCheckResult) -> str | None:
    return None if result.asset_key is None else result.asset_key.to_escaped_user_string()


def _observation(result: dg.AssetCheckResult) -> dg.AssetObservation:
    assert result.asset_key is not None
    said = "passed" if result.passed else "failed"
    return dg.AssetObservation(
        asset_key=result.asset_key,
        description=f"Audit {result.check_name} {said}.",
        metadata={"audit_passed": bool(result.passed), "audit_severity": result.severity.value, **result.metadata},
    )


class _Session:
    """Handle messages in a thread of its own; give the results one by one to the step's."""

    def __init__(self, context: dg.AssetExecutionContext, invocation: Invocation, report: RunReport) -> None:
        self._invocation = invocation
        self._report = report
        self._sequence = MessageSequence()
        self._handler = dg.PipesMessageHandler(context, _NoReader())
        self._results: Sequence[Result] = ()
        self._given = 0
        self._custom = 0
        self._error: BaseException | None = None
        self._ended = False
        self._news = threading.Condition()
        threading.Thread(target=self._read, name="sqlmesh-session", daemon=True).start()

    def next(self) -> Result | None:
        """Wait for the next result; None after the last one."""
        with self._news:
            self._news.wait_for(lambda: self._ended or len(self._results) > self._given)
        if len(self._results) == self._given:
            return None
        result = self._results[self._given]
        self._given += 1
        return result

    def judge(self) -> None:
        """Raise what was wrong with the run, if anything was."""
        if self._error is not None:
            raise self._error
        failure = self._report.failure(
            name=self._invocation.name,
            end=self._invocation.wait(),
            opened=self._handler.received_opened_message,
            closed=self._handler.received_closed_message,
            missing=self._sequence.missing,
            malformed=self._sequence.malformed,
            log_tail=self._invocation.log_tail(),
        )
        if failure is not None:
            raise failure

    def _read(self) -> None:
        try:
            while (line := self._invocation.read()) is not None:
                self._handle(line)
        except BaseException as exc:  # noqa: BLE001 - raised again in the step's thread
            self._error = exc
            self._invocation.stop()
        with self._news:
            self._ended = True
            self._news.notify()

    def _handle(self, line: bytes) -> None:
        message = self._sequence.accept(line)
        if message is None:
            return
        self._handler.handle_message(message)  # type: ignore[arg-type]  # parsed JSON, checked by the handler
        if message["method"] == "report_custom_message":
            for payload in self._handler.get_custom_messages()[self._custom :]:
                self._custom += 1
                self._report.accept(payload)
        elif message["method"].startswith("report_asset"):
            with self._news:
                self._results = self._handler.get_reported_results()
                self._news.notify()


class _NoReader(dg.PipesMessageReader):
    """Satisfy the message handler, which asks its reader how many writers there are. The launcher reads."""

    @contextmanager
    def read_messages(self, handler: dg.PipesMessageHandler) -> Iterator[PipesParams]:  # noqa: ARG002 - part of the interface
        yield {}

    def no_messages_debug_text(self) -> str:
        return ""

    @property
    def expected_writer_count(self) -> int:
        return 1
