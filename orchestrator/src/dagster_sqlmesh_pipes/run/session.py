"""The Pipes session that yields results to Dagster while the runner runs.

Dagster's own Pipes clients hand results to the step when the process has ended, and
`open_pipes_session` makes every selected asset mandatory. So the session is built from Pipes'
public parts here: a thread reads and handles messages as they come, the step's generator yields
what has come so far.
"""

import itertools
import threading
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg
from dagster_pipes import PipesParams

from dagster_sqlmesh_pipes.contract import list_names
from dagster_sqlmesh_pipes.errors import ProtocolError, RunFailedError
from dagster_sqlmesh_pipes.launchers.base import Invocation, Launcher, LaunchRequest
from dagster_sqlmesh_pipes.manifest import Manifest
from dagster_sqlmesh_pipes.run.adoption import adopted_results
from dagster_sqlmesh_pipes.run.event_log import RUNNING_AFTER, EventLog
from dagster_sqlmesh_pipes.run.messages import ModelsRecorded, RunFinished, parse_message
from dagster_sqlmesh_pipes.run.observations import failure_observations
from dagster_sqlmesh_pipes.run.outcome import Ending, raise_for_failure
from dagster_sqlmesh_pipes.run.report import RunReport
from dagster_sqlmesh_pipes.run.request import describe_start
from dagster_sqlmesh_pipes.run.results import Reported, ResultAcceptor, RunResult
from dagster_sqlmesh_pipes.run.sequence import MessageSequence
from dagster_sqlmesh_pipes.run.unfinished import unfinished_results
from dagster_sqlmesh_pipes.run.watch import RunWatch

__all__ = ["INTERRUPTS", "stream_results"]

INTERRUPTS = (dg.DagsterExecutionInterruptedError, KeyboardInterrupt)
"""What Dagster raises in a step's main thread when its run is terminated."""

_SORTED_AT_ONCE = 20  # results; few, so that none of them waits long
_UNNUMBERED_METHODS = {"log", "log_external_stream"}  # believed of any writer


def stream_results(
    context: dg.AssetExecutionContext,
    *,
    launcher: Launcher,
    request: LaunchRequest,
    manifest: Manifest,
    environment: str | None = None,
) -> Generator[RunResult, None, None]:
    """Launch a runner, yield its results as they are reported, then raise if its run failed.

    Results of another `environment` than the assets stand for are observations.

    An interrupt, raised or thrown, asks the runner to stop; what it still reports is yielded before
    the interrupt is raised again. Further interrupts change nothing: the launcher ends the runner.

    Raises:
        LaunchError: the runner could not be started.
        RunFailedError: its run did not succeed. All that it reported has been yielded before.
    """
    report = RunReport(manifest, request)
    acceptor = ResultAcceptor(request.context["extras"] or {}, environment=environment)
    with launcher.launch(request) as invocation:
        context.log.info(describe_start(invocation, request, manifest))
        session = _Session(context, invocation, report=report, acceptor=acceptor)
        with RunWatch(context, session.abort):
            yield from session.results()
        session.raise_for_failure()


class _Session:
    """Handle a runner's messages in a thread, and hand its results to the step's thread."""

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        invocation: Invocation,
        *,
        report: RunReport,
        acceptor: ResultAcceptor,
    ) -> None:
        self._context = context
        self._log = context.log
        self._invocation = invocation
        self._report = report
        self._acceptor = acceptor
        self._event_log = EventLog(context.log, report)
        self._sequence = MessageSequence()
        self._opened = self._closed = False
        self._warned_of_other_writer = False
        self._results: deque[RunResult] = deque()  # those that Dagster has not had yet
        self._sorted = 0  # how many of the first are in the order in which they are yielded
        self._error: Exception | None = None
        self._asked_to_stop = False
        self._ended = False
        self._changed = threading.Condition()
        threading.Thread(target=self._read, name="sqlmesh-session", daemon=True).start()

    def results(self) -> Generator[RunResult, None, None]:
        """Yield the results as they come, until the runner's last message."""
        interrupt: BaseException | None = None
        while True:
            # An interrupt may be raised anywhere in here. A result is removed once Dagster has had
            # it: the runner guard stores the last one if Dagster has not.
            try:
                if interrupt is not None:
                    self._stop()
                result = self._next()
                if result is None:
                    break
                try:
                    yield result
                finally:
                    self._results.popleft()
                    self._sorted -= 1
            except INTERRUPTS as exc:
                interrupt = interrupt or exc
        if interrupt is not None:
            raise interrupt

    def raise_for_failure(self) -> None:
        """Raise the first error of handling the messages, or else what was wrong with the run."""
        if self._error is not None:
            raise self._error
        raise_for_failure(
            self._report,
            Ending(
                name=self._invocation.name,
                status=self._invocation.wait(),
                opened=self._opened,
                closed=self._closed,
                missing=self._sequence.describe_missing(),
                malformed=self._sequence.malformed,
                log_tail=self._invocation.log_tail(),
            ),
        )

    def _next(self) -> RunResult | None:
        """Wait for the next result to yield; None after the last one."""
        while True:
            self._event_log.write_running()
            with self._changed:
                if self._changed.wait_for(lambda: self._ended or self._results, RUNNING_AFTER):
                    break
        if not self._results:
            return None
        if not self._sorted:
            with self._changed:
                self._sort()
        return self._results[0]

    def _sort(self) -> None:
        """Put materializations before checks among the next results.

        The targets of checks are looked up in one query then.
        """
        first = sorted(
            itertools.islice(self._results, _SORTED_AT_ONCE),
            key=lambda each: isinstance(each.result, dg.AssetCheckResult),
        )
        rest = itertools.islice(self._results, len(first), None)
        self._results = deque([*first, *rest])  # in one step: an interrupt loses nothing
        self._sorted = len(first)

    def _stop(self) -> None:
        """Ask the runner to stop, once."""
        if not self._asked_to_stop:
            self._invocation.stop()
            self._asked_to_stop = True
            self._log.info(f"Asking {self._invocation.name} to stop.")

    # In the thread that reads.

    def _read(self) -> None:
        try:
            while (line := self._invocation.read()) is not None:
                self._handle_line(line)
            self._add_unfinished()
        except Exception as exc:  # noqa: BLE001 - raised again in the step's thread
            self.abort(exc)
        with self._changed:
            self._ended = True
            self._changed.notify()

    def _handle_line(self, line: bytes) -> None:
        """Handle a message. After the first error, the rest is read for its valid results."""
        try:
            message = self._sequence.accept(line)
            if message is not None:
                self._handle(message)
        except RunFailedError as exc:
            self.abort(exc)
        except Exception as exc:  # noqa: BLE001 - raised again in the step's thread
            msg = (
                f"A message of {self._invocation.name} could not be handled: "
                f"{type(exc).__name__}: {exc}"
            )
            error = ProtocolError(msg)
            error.__cause__ = exc
            self.abort(error)

    def abort(self, error: Exception) -> None:
        """Ask the runner to stop, and keep the first error for `raise_for_failure`."""
        if self._error is None:
            self._error = error
            self._invocation.stop()

    def _handle(self, message: Mapping[str, Any]) -> None:
        method = message["method"]
        if message.get("seq") is None and method not in _UNNUMBERED_METHODS:
            self._warn_of_other_writer(method)
        elif method == "opened":
            self._opened = True
        elif method == "report_custom_message":
            self._handle_custom(message["params"]["payload"])
        elif method in {"report_asset_materialization", "report_asset_check"}:
            self._handle_result(message)
        else:
            self._handler().handle_message(message)  # type: ignore[arg-type]  # checked by it
            self._closed = self._closed or method == "closed"

    def _handle_custom(self, payload: Any) -> None:
        message = parse_message(payload)
        if message is not None:
            self._report.add(message)
            self._event_log.write(message)
        if isinstance(message, ModelsRecorded):
            self._adopt(message)
        elif isinstance(message, RunFinished):
            self._add(*failure_observations(self._report))

    def _adopt(self, message: ModelsRecorded) -> None:
        try:
            adopted = adopted_results(message, self._context.instance, self._acceptor.assets)
        except Exception as exc:  # noqa: BLE001 - the run itself does not depend on it
            self._log.warning(f"What SQLMesh recorded outside of Dagster is not reported: {exc}")
            return
        if adopted:
            names = list_names(
                each.asset_key.to_user_string() for each in adopted if each.asset_key
            )
            self._log.info(f"SQLMesh recorded outside of Dagster, and reported now: {names}.")
        self._add(*(RunResult(result=each, message=message.raw) for each in adopted))

    def _handle_result(self, message: Mapping[str, Any]) -> None:
        handler = self._handler()
        handler.handle_message(message)  # type: ignore[arg-type]  # checked by it
        (reported,) = handler.get_reported_results()
        result = self._acceptor.accept(reported)
        self._note(reported)
        self._add(RunResult(result=result, message=message))

    def _add_unfinished(self) -> None:
        for result, last in unfinished_results(self._report):
            self._log.warning(
                f"{last.model}: the runner did not report its result. The batches that it reported "
                "are recorded: it is shown as incomplete."
            )
            self._add(RunResult(result=self._acceptor.accept(result), message=last.raw))

    def _add(self, *results: RunResult) -> None:
        with self._changed:
            self._results.extend(results)
            self._changed.notify()

    def _note(self, reported: Reported) -> None:
        if isinstance(reported, dg.MaterializeResult) and reported.asset_key is not None:
            self._report.add_materialization(reported.asset_key)

    def _handler(self) -> dg.PipesMessageHandler:
        # One for each message: a handler returns all that it ever handled, as a new tuple.
        return dg.PipesMessageHandler(self._context, _NoReader())

    def _warn_of_other_writer(self, method: str) -> None:
        if not self._warned_of_other_writer:
            self._warned_of_other_writer = True
            self._log.warning(
                f"Another process writes to the runner's messages; its `{method}` is ignored, and "
                "further ones are too. A Python model's subprocess must not use Dagster Pipes."
            )


class _NoReader(dg.PipesMessageReader):
    """Satisfy the message handler, which asks its reader for the number of writers."""

    @contextmanager
    def read_messages(self, handler: dg.PipesMessageHandler) -> Iterator[PipesParams]:  # noqa: ARG002 - part of the interface
        yield {}

    def no_messages_debug_text(self) -> str:
        return ""

    @property
    def expected_writer_count(self) -> int:
        return 1
