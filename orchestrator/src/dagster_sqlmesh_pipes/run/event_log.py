"""Custom messages as entries of the run's event log."""

import datetime
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from dagster_sqlmesh_pipes.contract import list_names
from dagster_sqlmesh_pipes.manifest import Manifest
from dagster_sqlmesh_pipes.run.messages import (
    AuditSkipped,
    BatchFinished,
    Message,
    ModelFailed,
    ModelSkipped,
    ModelStarted,
    RunFinished,
    RunRestarted,
    RunStarted,
)
from dagster_sqlmesh_pipes.run.report import RunReport

__all__ = ["RUNNING_AFTER", "EventLog", "describe_failure", "describe_skip"]

RUNNING_AFTER = 1.0  # seconds
"""A model that takes longer has an entry while it runs; others have their result's alone."""

_COUNTED_AT_THE_END = {"nothing_due", "interrupted"}  # skips that come in hundreds


class EventLog:
    """Write a run's messages to the event log, as people read it. Threads may share it."""

    def __init__(self, log: dg.DagsterLogManager, report: RunReport) -> None:
        self._log = log
        self._report = report
        self._lock = threading.Lock()
        self._running: dict[str, tuple[float, ModelStarted]] = {}
        """Models without an entry yet, in the order of their starts, with the monotonic times."""
        self._writers: Mapping[type[Message], Callable[[Any], None]] = {
            RunStarted: self._run_started,
            BatchFinished: self._batch_finished,
            ModelSkipped: self._model_skipped,
            ModelFailed: self._model_failed,
            AuditSkipped: self._audit_skipped,
            RunRestarted: self._run_restarted,
            RunFinished: self._run_finished,
        }

    def write(self, message: Message) -> None:
        """Write a message that the report already has."""
        with self._lock:
            self._note_running(message)
            write = self._writers.get(type(message))
            if write is not None:
                write(message)

    def write_running(self) -> None:
        """Write which models have been running for `RUNNING_AFTER` seconds and have no entry."""
        with self._lock:
            started_before = time.monotonic() - RUNNING_AFTER
            while self._running:
                model, (started, message) = next(iter(self._running.items()))
                if started > started_before:
                    return
                del self._running[model]
                batches = "1 batch" if message.batches == 1 else f"{message.batches} batches"
                self._log.info(f"{model} is running: {batches}{_interval(message)}.")

    def _note_running(self, message: Message) -> None:
        match message:
            case ModelStarted():
                self._running[message.model] = (time.monotonic(), message)
            case BatchFinished() | ModelSkipped() | ModelFailed():
                self._running.pop(message.model, None)
            case RunRestarted() | RunFinished():
                self._running.clear()

    def _run_started(self, message: RunStarted) -> None:
        self._log.info(
            f"SQLMesh {message.sqlmesh_version} runs environment {message.environment!r} "
            f"(plan {message.plan_id}, gateway {message.gateway or 'default'}, "
            f"runner {message.runner_version})."
        )
        drift = _describe_drift(self._report.manifest, message.environment_models)
        if drift:
            self._log.warning(drift)

    def _batch_finished(self, message: BatchFinished) -> None:
        if message.batches == 1 and message.asset_key:
            return  # its materialization has the same, and each entry costs the event log
        failed, restated_by = message.audits_failed, message.auto_restated_by
        batch = f"batch {message.batch} of {message.batches}{_interval(message)}"
        parts = [f"{message.model}: {batch} done in {message.duration:.1f} s"]
        if message.rows is not None:
            parts.append(f"{message.rows} rows")
        if failed:
            parts.append(f"{failed} audit{'' if failed == 1 else 's'} failed")
        if restated_by:
            parts.append(f"auto-restated by {list_names(restated_by)}")
        self._log.info(f"{', '.join(parts)}.")

    def _model_skipped(self, message: ModelSkipped) -> None:
        if message.reason not in _COUNTED_AT_THE_END:
            self._log.info(f"{message.model} was skipped: {describe_skip(message)}.")

    def _model_failed(self, message: ModelFailed) -> None:
        self._log.error(describe_failure(self._report.failed[message.model]))

    def _audit_skipped(self, message: AuditSkipped) -> None:
        self._log.info(f"{message.model}: audit {message.audit} is set to be skipped.")

    def _run_restarted(self, message: RunRestarted) -> None:
        self._log.warning(
            f"SQLMesh began the run again (attempt {message.attempt}): {message.reason}."
        )

    def _run_finished(self, message: RunFinished) -> None:
        if message.unknown_models:
            self._log.warning(
                "Models that Dagster does not know ran too: "
                f"{list_names(message.unknown_models)}. Make a new manifest from the planned code."
            )
        nothing_due = self._skipped_because("nothing_due")
        if nothing_due:
            self._log.info(_describe_nothing_due(nothing_due))
        interrupted = self._skipped_because("interrupted")
        if interrupted:
            self._log.info(f"The interruption left out {_models(interrupted)}.")

    def _skipped_because(self, reason: str) -> list[ModelSkipped]:
        return [each for each in self._report.skipped.values() if each.reason == reason]


def describe_failure(failed: ModelFailed, *, with_query: bool = True) -> str:
    """Return a failed model's error, file, interval and query."""
    audit = f" its audit {failed.audit} failed:" if failed.audit else ""
    where = f" ({failed.path})" if failed.path else ""
    done = failed.batches_done
    progress = f" [{done} of {failed.batches} batches were done]" if done else ""
    query = f"\n  query: {failed.query}" if failed.query and with_query else ""
    return f"{failed.model}{where}:{audit} {failed.error}{_interval(failed)}{progress}{query}"


def describe_skip(skipped: ModelSkipped) -> str:
    """Return why a model was skipped."""
    match skipped.reason:
        case "upstream_failed":
            return f"it depends on {list_names(skipped.upstream or ['a model that failed'])}"
        case "nothing_due":
            before = f" before {_time(skipped.next_due)} UTC" if skipped.next_due else ""
            return f"nothing is due{before}"
        case "signal_not_ready":
            signals = list_names(skipped.signals)
            if skipped.upstream:
                return f"the signal {signals} of {list_names(skipped.upstream)} is not ready"
            return f"its signal {signals} is not ready"
        case "not_planned":
            return (
                "the environment does not hold it; run `sqlmesh plan`, or make the manifest again "
                "if it was removed"
            )
        case other:
            return other


def _describe_drift(manifest: Manifest, environment: Mapping[str, str]) -> str | None:
    """Return in one sentence how the environment and the manifest differ; None if they don't."""
    if not environment:
        return None
    known = {model.fqn: model.data_hash for model in manifest.models.values() if model.enabled}
    materialized = {fqn for fqn, model in manifest.models.items() if model.materialized}
    audits = {audit.fqn for audit in manifest.standalone_audits}
    changed = {
        fqn for fqn, data_hash in environment.items() if known.get(fqn) not in {None, data_hash}
    }
    differences = {
        "it lacks": (materialized & known.keys()) - environment.keys(),
        "it holds models that the manifest does not know:": environment.keys()
        - known.keys()
        - audits,
        "it has other versions of": changed,
    }
    parts = [f"{what} {list_names(sorted(fqns))}" for what, fqns in differences.items() if fqns]
    if not parts:
        return None
    return (
        f"The environment is not what the manifest says: {'; '.join(parts)}. What runs is what was "
        "planned: run `sqlmesh plan` to deploy the files, or make the manifest again from the "
        "planned code."
    )


def _describe_nothing_due(skipped: list[ModelSkipped]) -> str:
    models = _models(skipped)
    if len(skipped) > 1:
        models = f"{len(skipped)} models ({models})"
    dues = [message.next_due for message in skipped if message.next_due]
    next_due = f" Next: {_time(min(dues))} UTC." if dues else ""
    return (
        f"Nothing was due for {models}: a `sqlmesh plan` or an earlier run has done it.{next_due}"
    )


def _models(messages: list[ModelSkipped]) -> str:
    return list_names(message.model for message in messages)


def _interval(message: ModelStarted | BatchFinished | ModelFailed) -> str:
    if not message.interval_start:
        return ""
    assert message.interval_end is not None
    return f" [{_time(message.interval_start)} to {_time(message.interval_end)} UTC]"


def _time(text: str) -> str:
    return f"{datetime.datetime.fromisoformat(text):%Y-%m-%d %H:%M}"
