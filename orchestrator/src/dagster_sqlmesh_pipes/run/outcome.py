"""The outcome of a run: a step succeeds only if its runner ended well and no message is missing.

As docs/reference/messages.md says: the process exited with 0, closed its stream, reported a
success, every message arrived, and what it materialized is what it reported.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

from dagster_sqlmesh_pipes.contract import FAILED_KEY, SKIPPED_KEY, list_names
from dagster_sqlmesh_pipes.errors import ProtocolError, RunFailedError
from dagster_sqlmesh_pipes.launchers.base import ExitStatus
from dagster_sqlmesh_pipes.run.event_log import describe_failure, describe_skip
from dagster_sqlmesh_pipes.run.messages import RunFinished
from dagster_sqlmesh_pipes.run.report import RunReport

__all__ = ["Ending", "raise_for_failure"]

_LISTED = 20  # models of each kind in one error
_NO_RETRY_EXIT_CODES = {2, 3}  # wrong configuration, not planned: a retry would end the same way


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a runner and its stream of messages ended."""

    name: str
    """The runner: `process 4711`."""
    status: ExitStatus
    opened: bool
    closed: bool
    missing: str
    """Which messages are missing, for people; empty when none."""
    malformed: Sequence[str]
    log_tail: str

    def __str__(self) -> str:
        reason = f" ({self.status.reason})" if self.status.reason else ""
        return f"{self.name} ended with exit code {self.status.code}{reason}"

    @property
    def tail(self) -> str:
        """The last lines of the log, as an error's last paragraph."""
        return f"\nThe last lines of its log:\n{self.log_tail}" if self.log_tail else ""


def raise_for_failure(report: RunReport, ending: Ending) -> None:
    """Raise what was wrong with a run that has ended.

    Raises:
        RunFailedError: models or audits failed, or the run broke off.
        ProtocolError: messages were lost, or contradict each other.
    """
    _raise_for_broken_stream(report, ending)
    finished = report.finished
    assert finished is not None
    if finished.outcome == "failed":
        raise _models_failed(report, ending)
    if finished.outcome not in {"success", "nothing_to_do"}:
        msg = f"The SQLMesh run did not complete: {finished.error or finished.outcome}"
        retry = ending.status.code not in _NO_RETRY_EXIT_CODES
        raise RunFailedError(msg, allow_retries=retry)
    if ending.status.code:
        msg = f"SQLMesh reported {finished.outcome}, but {ending}.{ending.tail}"
        raise RunFailedError(msg)
    _raise_for_contradiction(report, finished)


def _raise_for_broken_stream(report: RunReport, ending: Ending) -> None:
    if not ending.opened:
        msg = f"The SQLMesh runner sent nothing: {ending} before its first message.{ending.tail}"
        raise RunFailedError(msg)
    if ending.missing or ending.malformed:
        raise ProtocolError(_describe_loss(ending) + ending.tail)
    if report.finished is None:
        msg = f"The SQLMesh run broke off: {ending} without the outcome of its run.{ending.tail}"
        raise RunFailedError(msg)
    if not ending.closed:
        msg = f"The SQLMesh run broke off: {ending} without closing its stream of messages."
        raise RunFailedError(msg + ending.tail)


def _raise_for_contradiction(report: RunReport, finished: RunFinished) -> None:
    unreported, unconfirmed = report.unreported(), report.unconfirmed()
    parts = []
    if unreported:
        parts.append(f"it materialized {list_names(unreported)} without reporting a result")
    if unconfirmed:
        parts.append(f"it reported results of {list_names(unconfirmed)} without materializing it")
    if parts:
        msg = (
            f"The runner reported {finished.outcome}, but contradicts itself: {'; '.join(parts)}. "
            "Its results are incomplete; check its log and SQLMesh's state."
        )
        raise ProtocolError(msg)


def _describe_loss(ending: Ending) -> str:
    parts = []
    if ending.missing:
        parts.append(f"{ending.missing} never arrived")
    if ending.malformed:
        count, first = len(ending.malformed), ending.malformed[0]
        parts.append(f"{count} could not be read, the first begins {first!r}")
    return (
        f"Messages of {ending.name} were lost: {'; '.join(parts)}. Its results are incomplete; "
        "check its log and SQLMesh's state."
    )


def _models_failed(report: RunReport, ending: Ending) -> RunFailedError:
    failed = list(report.failed.values())
    behind = [each for each in report.skipped.values() if each.reason == "upstream_failed"]
    lines = [f"{len(failed)} SQLMesh model{'' if len(failed) == 1 else 's'} failed ({ending}):"]
    lines += [f"- {describe_failure(each)}" for each in failed[:_LISTED]]
    if behind:
        lines.append("Skipped because of that:")
        lines += [f"- {each.model}: {describe_skip(each)}" for each in behind[:_LISTED]]
    more = max(0, len(failed) - _LISTED) + max(0, len(behind) - _LISTED)
    if more:
        lines.append(f"… and {more} more, each in the run's log.")
    return RunFailedError(
        "\n".join(lines),
        metadata={
            FAILED_KEY: dg.MetadataValue.json(sorted(report.failed)),
            SKIPPED_KEY: dg.MetadataValue.json(sorted(each.model for each in behind)),
        },
    )
