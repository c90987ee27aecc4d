"""Results as Dagster accepts them from the step.

Dagster fails a step at the first result that it refuses, and what comes after is lost. So results
are checked before they are yielded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from dagster_sqlmesh_pipes.contract import ENVIRONMENT_KEY
from dagster_sqlmesh_pipes.errors import ProtocolError

__all__ = ["Reported", "Result", "ResultAcceptor", "RunResult"]

Reported = dg.MaterializeResult[Any] | dg.AssetCheckResult
"""A result as the runner reports it."""

Result = Reported | dg.AssetMaterialization | dg.AssetObservation
"""A result as the step yields it."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """A result as the step yields it, with what it was made from."""

    result: Result
    message: Mapping[str, Any]
    """The runner's Pipes message (docs/reference/messages.md)."""


AssetOrCheckKey = dg.AssetKey | dg.AssetCheckKey


class ResultAcceptor:
    """Accept each result once, in the form in which Dagster accepts it.

    Results on assets that are not the step's become observations: audits of external assets, and
    everything where `environment` is another one than the assets stand for.
    """

    def __init__(
        self,
        extras: Mapping[str, Any],
        *,
        environment: str | None,
    ) -> None:
        self._requested = _requested(extras)
        externals = extras.get("externals", {}).values()
        self._externals = {_asset_key(each) for each in externals}
        self._environment = environment
        self._accepted: set[AssetOrCheckKey] = set()

    @property
    def assets(self) -> set[dg.AssetKey]:
        """The requested assets; none where results of another environment are observations."""
        if self._environment:
            return set()
        return {key for key in self._requested if isinstance(key, dg.AssetKey)}

    def accept(self, result: Reported) -> Result:
        """Return a result as the step may yield it.

        Raises:
            ProtocolError: its asset or check was not requested, or has its result already.
        """
        key = _key_of(result)
        asset_key = key.asset_key if isinstance(key, dg.AssetCheckKey) else key
        if asset_key in self._externals:
            return _observation(result, None)
        if key not in self._requested:
            msg = f"The runner reported on {_label(key)}, which was not requested."
            raise ProtocolError(msg)
        if key in self._accepted:
            msg = f"The runner reported on {_label(key)} twice."
            raise ProtocolError(msg)
        self._accepted.add(key)
        if self._environment:
            return _observation(result, self._environment)
        return result


def _observation(result: Reported, environment: str | None) -> dg.AssetObservation:
    assert result.asset_key is not None
    where = f" in the environment {environment}" if environment else ""
    metadata: dict[str, Any] = {ENVIRONMENT_KEY: environment} if environment else {}
    if isinstance(result, dg.MaterializeResult):
        return dg.AssetObservation(
            result.asset_key,
            description=f"Materialized{where}.",
            metadata={**metadata, **(result.metadata or {})},
        )
    verdict = "passed" if result.passed else "failed"
    return dg.AssetObservation(
        result.asset_key,
        description=f"Audit {result.check_name} {verdict}{where}.",
        metadata={
            **metadata,
            "audit_passed": bool(result.passed),
            "audit_severity": result.severity.value,
            **result.metadata,
        },
    )


def _requested(extras: Mapping[str, Any]) -> set[AssetOrCheckKey]:
    """Return the assets and checks that a request names."""
    requested: set[AssetOrCheckKey] = set()
    for model in extras.get("models", {}).values():
        key = _asset_key(model)
        requested.add(key)
        requested.update(dg.AssetCheckKey(key, name) for name in model["checks"].values())
    for targets in extras.get("standalone_audits", {}).values():
        requested.update(
            dg.AssetCheckKey(_asset_key(target), target["check_name"]) for target in targets
        )
    return requested


def _asset_key(named: Mapping[str, Any]) -> dg.AssetKey:
    return dg.AssetKey.from_escaped_user_string(named["asset_key"])


def _key_of(result: Reported) -> AssetOrCheckKey:
    assert result.asset_key is not None
    if isinstance(result, dg.MaterializeResult):
        return result.asset_key
    assert result.check_name is not None
    return dg.AssetCheckKey(result.asset_key, result.check_name)


def _label(key: AssetOrCheckKey) -> str:
    kind = "check" if isinstance(key, dg.AssetCheckKey) else "asset"
    return f"the {kind} {key.to_user_string()}"
