"""What a run told besides its results: logged as it comes, and judged at the end."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

from dagster_sqlmesh_pipes.errors import ProtocolError, RunFailedError
from dagster_sqlmesh_pipes.launchers.base import Exit
from dagster_sqlmesh_pipes.manifest import Manifest

__all__ = ["PROTOCOL_VERSION", "RunReport"]

PROTOCOL_VERSION = 1
"""The version of launch and messages that this package speaks (docs/contract.md)."""

_LISTED = 20  # names in one message; a log entry is read by people
_CONFIGURATION_EXIT_CODES = {2, 3}  # wrong configuration, environment not planned: the next try would end the same way


class RunReport:
    """Collect a run's custom messages, log them, and tell at the end whether the run succeeded."""

    def __init__(self, manifest: Manifest, log: dg.DagsterLogManager) -> None:
        self._manifest = manifest
        self._log = log
        self._started: Mapping[str, Any] | None = None
        self._finished: Mapping[str, Any] | None = None
        self._failed: dict[str, Mapping[str, Any]] = {}
        self._skipped: dict[str, Mapping[str, Any]] = {}

    def accept(self, payload: Any) -> None:
        """Take a custom message's payload. Types this package does not know are passed over: a newer runner may tell more."""
        kind = payload.get("type") if isinstance(payload, Mapping) else None
        handle = getattr(self, f"_on_{kind}", None)
        if handle is not None:
            handle(payload)

    def _on_run_started(self, payload: Mapping[str, Any]) -> None:
        self._started = payload
        self._log.info(
            f"SQLMesh {payload.get('sqlmesh_version')} runs environment {payload.get('environment')!r}"
            f" (plan {payload.get('plan_id')}, gateway {payload.get('gateway') or 'default'}, runner {payload.get('runner_version')})."
        )
        drift = _drift(self._manifest, payload.get("environment_models") or {})
        if drift:
            self._log.warning(drift)

    def _on_model_started(self, payload: Mapping[str, Any]) -> None:
        self._log.info(f"{payload['model']} starts: {_batches(payload.get('batches'))}{_interval(payload)}.")

    def _on_batch_finished(self, payload: Mapping[str, Any]) -> None:
        if payload.get("batches") == 1 and payload.get("asset_key"):
            return  # its materialization says the same, and each entry costs the event log
        rows = "" if payload.get("rows") is None else f", {payload['rows']} rows"
        duration = "" if payload.get("duration") is None else f" in {payload['duration']:.1f} s"
        failed = payload.get("audits_failed") or 0
        audits = f", {failed} audits failed" if failed else ""
        restated = f", auto-restated by {_names(payload['auto_restated_by'])}" if payload.get("auto_restated_by") else ""
        self._log.info(
            f"{payload['model']}: batch {payload.get('batch')} of {payload.get('batches')}{_interval(payload)} done{duration}{rows}{audits}{restated}."
        )

    def _on_model_skipped(self, payload: Mapping[str, Any]) -> None:
        self._skipped[payload["model"]] = payload
        if payload.get("reason") not in {"nothing_due", "interrupted"}:  # those come in hundreds: one entry at the end
            self._log.info(f"{payload['model']} was skipped: {_skip_reason(payload)}.")

    def _on_model_failed(self, payload: Mapping[str, Any]) -> None:
        model = self._manifest.models.get(payload["model"])
        if model and not payload.get("path"):  # SQLMesh has it from a cache of its own, which a container begins without
            payload = {**payload, "path": model.path}
        self._failed[payload["model"]] = payload
        self._log.error(_failure(payload))

    def _on_audit_skipped(self, payload: Mapping[str, Any]) -> None:
        self._log.info(f"{payload['model']}: audit {payload.get('audit')} is set to be skipped.")

    def _on_run_restarted(self, payload: Mapping[str, Any]) -> None:
        # What failed or was skipped in the round that was given up is planned anew.
        self._failed.clear()
        self._skipped.clear()
        self._log.warning(f"SQLMesh began the run again (attempt {payload.get('attempt')}): {payload.get('reason')}.")

    def _on_run_finished(self, payload: Mapping[str, Any]) -> None:
        self._finished = payload
        unknown = payload.get("unknown_models") or []
        if unknown:
            self._log.warning(f"Models that Dagster does not know ran too: {_names(unknown)}. Make a new manifest from the planned code.")
        for reason, text in (
            ("nothing_due", "Nothing was due for {}: a `sqlmesh plan` or an earlier run has done it."),
            ("interrupted", "The interruption left out {}."),
        ):
            models = [skipped for skipped in self._skipped.values() if skipped.get("reason") == reason]
            if models:
                due = min((skipped["next_due"] for skipped in models if skipped.get("next_due")), default=None)
                self._log.info(f"{text.format(_names(skipped['model'] for skipped in models))}{f' Next: {due}.' if due else ''}")

    def failure(
        self, *, name: str, end: Exit, opened: bool, closed: bool, missing: Sequence[int], malformed: Sequence[str], log_tail: str
    ) -> RunFailedError | None:
        """Judge a run that has ended: None if it succeeded, else the error to raise.

        A run succeeded only if the process exited with 0, said goodbye, reported an outcome that is a success, and no message is missing
        (docs/contract.md, section 4).
        """
        ending = f"{name} ended with exit code {end.code}{f' ({end.reason})' if end.reason else ''}"
        tail = f"\nThe last lines of its log:\n{log_tail}" if log_tail else ""
        if not opened:
            return RunFailedError(f"The SQLMesh runner said nothing: {ending} before its first message.{tail}")
        if missing or malformed:
            return ProtocolError(_lost(name, missing, malformed) + tail)
        version = (self._started or {}).get("protocol_version", PROTOCOL_VERSION)
        if version != PROTOCOL_VERSION:
            upgrade = "dagster-sqlmesh-pipes" if version > PROTOCOL_VERSION else "sqlmesh-runner"
            return ProtocolError(
                f"The runner speaks protocol version {version}, this package version {PROTOCOL_VERSION}. Upgrade {upgrade}."
            )
        if self._finished is None or not closed:
            where = "without the outcome of its run" if self._finished is None else "without closing its stream of messages"
            return RunFailedError(f"The SQLMesh run broke off: {ending} {where}.{tail}")
        return self._outcome_failure(self._finished, end=end, ending=ending, tail=tail)

    def _outcome_failure(self, finished: Mapping[str, Any], *, end: Exit, ending: str, tail: str) -> RunFailedError | None:
        outcome = finished.get("outcome")
        if outcome in {"success", "nothing_to_do"}:
            return RunFailedError(f"SQLMesh reported {outcome}, but {ending}.{tail}") if end.code else None
        if outcome == "failed":
            return self._models_failed(ending)
        reason = finished.get("error") or f"the run's outcome is {outcome!r}"
        return RunFailedError(f"The SQLMesh run did not get through: {reason}", allow_retries=end.code not in _CONFIGURATION_EXIT_CODES)

    def _models_failed(self, ending: str) -> RunFailedError:
        behind = [payload for payload in self._skipped.values() if payload.get("reason") == "upstream_failed"]
        lines = [f"{len(self._failed)} SQLMesh model{'' if len(self._failed) == 1 else 's'} failed ({ending}):"]
        lines += [f"- {_failure(payload)}" for payload in list(self._failed.values())[:_LISTED]]
        if behind:
            lines.append("Skipped because of that:")
            lines += [f"- {payload['model']}: {_skip_reason(payload)}" for payload in behind[:_LISTED]]
        more = max(0, len(self._failed) - _LISTED) + max(0, len(behind) - _LISTED)
        if more:
            lines.append(f"… and {more} more, each in the run's log.")
        return RunFailedError(
            "\n".join(lines),
            metadata={
                "sqlmesh/failed": dg.MetadataValue.json(sorted(self._failed)),
                "sqlmesh/skipped": dg.MetadataValue.json(sorted(payload["model"] for payload in behind)),
            },
        )


def _drift(manifest: Manifest, environment: Mapping[str, str]) -> str | None:
    """Tell in one sentence how the environment and the manifest differ; None if they don't."""
    if not environment:
        return None
    known = {model.fqn: model.data_hash for model in manifest.models.values() if model.enabled}
    planned_away = sorted(fqn for fqn, model in manifest.models.items() if model.materialized and model.enabled and fqn not in environment)
    audits = {audit.fqn for audit in manifest.standalone_audits}
    unknown = sorted(environment.keys() - known.keys() - audits)
    changed = sorted(fqn for fqn, data_hash in environment.items() if known.get(fqn) not in {None, data_hash})
    parts = [
        f"{what} {_names(fqns)}"
        for what, fqns in (
            ("it lacks", planned_away),
            ("it holds models that the manifest does not know:", unknown),
            ("it has other versions of", changed),
        )
        if fqns
    ]
    if not parts:
        return None
    return (
        f"The environment is not what the manifest says: {'; '.join(parts)}. What runs is what was planned: run `sqlmesh plan` to "
        "deploy the files, or make the manifest again from the planned code."
    )


def _lost(name: str, missing: Sequence[int], malformed: Sequence[str]) -> str:
    parts = []
    if missing:
        parts.append(f"messages number {', '.join(map(str, missing[:_LISTED]))}{' …' if len(missing) > _LISTED else ''} never arrived")
    if malformed:
        parts.append(f"{len(malformed)} could not be read, the first begins {malformed[0]!r}")
    return f"Messages of {name} were lost: {'; '.join(parts)}. So it is not known what all it did; its log and SQLMesh's state tell."


def _failure(payload: Mapping[str, Any]) -> str:
    audit = f" its audit {payload['audit']} failed:" if payload.get("audit") else ""
    where = f" ({payload['path']})" if payload.get("path") else ""
    done, batches = payload.get("batches_done"), payload.get("batches")
    progress = f" [{done} of {batches} batches were done]" if done else ""
    query = f"\n  query: {payload['query']}" if payload.get("query") else ""
    return f"{payload['model']}{where}:{audit} {payload.get('error')}{_interval(payload)}{progress}{query}"


def _skip_reason(payload: Mapping[str, Any]) -> str:
    match payload.get("reason"):
        case "upstream_failed":
            return f"it depends on {_names(payload.get('upstream') or ['a model that failed'])}"
        case "nothing_due":
            due = payload.get("next_due")
            return f"nothing is due{f' before {due}' if due else ''}"
        case "signal_not_ready":
            return f"its signal {_names(payload.get('signals') or ['?'])} is not ready"
        case "not_planned":
            return "the environment does not hold it; run `sqlmesh plan`, or make the manifest again if it was removed"
        case other:
            return str(other)


def _batches(count: int | None) -> str:
    return "1 batch" if count == 1 else f"{count} batches"


def _interval(payload: Mapping[str, Any]) -> str:
    if not payload.get("interval_start"):
        return ""
    return f" [{payload['interval_start']} to {payload.get('interval_end')}]"


def _names(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return ", ".join(listed[:_LISTED]) + more
