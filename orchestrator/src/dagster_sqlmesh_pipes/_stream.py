"""The Pipes session that hands results to Dagster while the runner runs.

Dagster's own Pipes clients give results to the step when the process has ended, and `open_pipes_session` makes every
selected asset mandatory. So the session is put together from Pipes' public parts here: a thread reads and handles messages as they
come, the step's generator yields what has come so far.
"""

import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg
from dagster_pipes import PipesParams

from dagster_sqlmesh_pipes._messages import MessageSequence
from dagster_sqlmesh_pipes._report import RunReport
from dagster_sqlmesh_pipes.launchers.base import Invocation, Launcher, LaunchRequest

__all__ = ["INTERRUPTS", "Result", "stream"]

Reported = dg.MaterializeResult[Any] | dg.AssetCheckResult
Result = Reported | dg.AssetObservation
"""What a step yields for an asset or a check."""

INTERRUPTS = (dg.DagsterExecutionInterruptedError, KeyboardInterrupt)
"""What Dagster raises in a step's main thread when its run is terminated."""


def stream(
    context: dg.AssetExecutionContext, *, launcher: Launcher, request: LaunchRequest, report: RunReport, environment: str | None = None
) -> Generator[Result, None, None]:
    """Start a runner and yield its results as they are reported, then judge its run.

    Results on assets that are not the step's are observations: verdicts on external assets, and everything where `environment` names
    another environment than the assets stand for.

    An interrupt, raised or thrown, asks the runner to stop; what it still reports is yielded before the interrupt goes on. Those that follow
    change nothing: it is the launcher's to see to the runner's end.

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
            # An interrupt may be raised anywhere in here. A result counts as given once Dagster has had it: `Step` sees to the last one.
            try:
                if interrupt is not None:
                    session.stop()
                result = session.next()
                if result is None:
                    break
                shown = _observation(result, environment) if environment or _key(result) in externals else result
                try:
                    yield shown
                finally:
                    session.given += 1
            except INTERRUPTS as exc:
                interrupt = interrupt or exc
        if interrupt is not None:
            raise interrupt
        session.judge()


def _key(result: Reported) -> str:
    assert result.asset_key is not None
    return result.asset_key.to_escaped_user_string()


def _observation(result: Reported, environment: str | None) -> dg.AssetObservation:
    assert result.asset_key is not None
    where, metadata = (f" in the environment {environment}", {"sqlmesh/environment": environment}) if environment else ("", {})
    if isinstance(result, dg.MaterializeResult):
        return dg.AssetObservation(result.asset_key, description=f"Materialized{where}.", metadata={**metadata, **(result.metadata or {})})
    said = "passed" if result.passed else "failed"
    return dg.AssetObservation(
        result.asset_key,
        description=f"Audit {result.check_name} {said}{where}.",
        metadata={**metadata, "audit_passed": bool(result.passed), "audit_severity": result.severity.value, **result.metadata},
    )


class _Session:
    """Handle messages in a thread of its own; give the results one by one to the step's."""

    def __init__(self, context: dg.AssetExecutionContext, invocation: Invocation, report: RunReport) -> None:
        self.given = 0
        """How many results the step has given to Dagster."""
        self._log = context.log
        self._invocation = invocation
        self._report = report
        self._sequence = MessageSequence()
        self._handler = dg.PipesMessageHandler(context, _NoReader())
        self._results: Sequence[Reported] = ()
        self._custom = 0
        self._error: BaseException | None = None
        self._asked_to_stop = False
        self._ended = False
        self._news = threading.Condition()
        threading.Thread(target=self._read, name="sqlmesh-session", daemon=True).start()

    def next(self) -> Reported | None:
        """Wait for the first result that was not given; None after the last one."""
        with self._news:
            self._news.wait_for(lambda: self._ended or len(self._results) > self.given)
        return self._results[self.given] if len(self._results) > self.given else None

    def stop(self) -> None:
        """Ask the runner to stop, once."""
        if not self._asked_to_stop:
            self._invocation.stop()
            self._asked_to_stop = True
            self._log.info(f"Asking {self._invocation.name} to stop.")

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
