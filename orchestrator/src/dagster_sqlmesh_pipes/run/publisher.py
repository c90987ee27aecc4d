"""Results as the events that Dagster stores of them, at a third of what its outputs cost.

Dagster makes two events of each result: an output and what it stands for. It also looks up the
target of each check alone, and goes through all assets of the step each time. Where no other step
of the run uses a result, one event with the same content is enough.
"""

from collections.abc import Collection, Mapping
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData as CheckTarget,
)

from dagster_sqlmesh_pipes.contract import RECORDED_BY_KEY
from dagster_sqlmesh_pipes.run.recorded import describe_recording

__all__ = ["Published", "ResultPublisher"]

_DATA_VERSION_TAG = "dagster/data_version"
_DATA_VERSION_IS_OURS_TAG = "dagster/data_version_is_user_provided"
_CODE_VERSION_TAG = "dagster/code_version"
_INPUT_VERSION_TAG = "dagster/input_data_version"
_INPUT_POINTER_TAG = "dagster/input_event_pointer"
_NO_VERSION = "INITIAL"  # Dagster's version of an asset that it has no event of
_NO_POINTER = "NULL"

Published = (
    dg.MaterializeResult[Any]
    | dg.AssetMaterialization
    | dg.AssetCheckEvaluation
    | dg.AssetObservation
)
"""A result as Dagster gets it from the step."""


class ResultPublisher:
    """Make a step's results what Dagster needs of them: an event, or an output for other steps."""

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        self._instance = context.instance
        self._run_id = context.run.run_id
        self._step = context.op_execution_context.get_step_execution_context()
        self._selected = context.selected_asset_keys
        self._specs = context.assets_def.specs_by_key
        self._deps = context.assets_def.asset_deps
        self._used = _used_by_other_steps(context)
        self._dependents = _dependents(self._deps) if self._used else {}
        self._outputs: set[dg.AssetKey] = set()
        self._versions: dict[dg.AssetKey, str] = {}
        """The data versions of this step's own materializations."""
        self._targets: dict[dg.AssetKey, CheckTarget] = {}
        """Those of its own materializations that were looked up."""

    def publish(self, result: Any) -> Any:
        """Return a result as Dagster needs it; what is none is returned as it is."""
        if isinstance(result, dg.MaterializeResult) and (
            result.data_version is not None
            or result.asset_key not in self._selected  # restated with those that were selected
        ):
            return self._materialization(result)
        if isinstance(result, dg.AssetCheckResult):
            return self._evaluation(result)
        if isinstance(result, dg.AssetMaterialization) and self._can_be_output(result):
            return self._materialization(_as_result(result))
        return result

    def _can_be_output(self, recorded: dg.AssetMaterialization) -> bool:
        """Return whether other steps may have an output of what was recorded outside of Dagster.

        Its inputs are reported later. Dagster refuses an output of one then.
        """
        key = recorded.asset_key
        inputs = {*self._deps.get(key, ())} - {key}
        is_recorded = RECORDED_BY_KEY in recorded.metadata
        return is_recorded and key in self._used and self._used.isdisjoint(inputs)

    def as_event(self, result: Any) -> Any:
        """Return a result as an event, for a step that yields no more outputs."""
        if isinstance(result, dg.MaterializeResult):
            return self._materialization_event(result)
        return self.publish(result)

    def _materialization(
        self, result: dg.MaterializeResult[Any]
    ) -> dg.MaterializeResult[Any] | dg.AssetMaterialization:
        key = result.asset_key
        assert key is not None
        # Dagster refuses a second output, and one after those of its dependents.
        is_late = not self._outputs.isdisjoint({key, *self._dependents.get(key, ())})
        if (key in self._used and not is_late) or result.check_results:
            self._outputs.add(key)
            self._note(result)
            return result
        return self._materialization_event(result)

    def _materialization_event(self, result: dg.MaterializeResult[Any]) -> dg.AssetMaterialization:
        key = result.asset_key
        assert key is not None
        event = dg.AssetMaterialization(
            key,
            description=describe_recording(result.metadata or {}),
            metadata={
                **(result.metadata or {}),
                **(self._step.get_asset_metadata(asset_key=key) or {}),
            },
            tags={**self._version_tags(key, result.data_version), **(result.tags or {})},
        )
        self._note(result)
        return event

    def _note(self, result: dg.MaterializeResult[Any]) -> None:
        assert result.asset_key is not None
        if result.data_version is not None:
            self._versions[result.asset_key] = result.data_version.value

    def _version_tags(self, key: dg.AssetKey, version: dg.DataVersion | None) -> Mapping[str, str]:
        """Return the tags by which Dagster tells whether the asset is stale."""
        spec = self._specs.get(key)
        tags = {_CODE_VERSION_TAG: (spec and spec.code_version) or self._run_id}
        for parent in self._deps.get(key, ()):
            if parent != key:
                version_of_parent, pointer = self._input(parent)
                name = parent.to_user_string()
                tags[f"{_INPUT_VERSION_TAG}/{name}"] = version_of_parent
                tags[f"{_INPUT_POINTER_TAG}/{name}"] = pointer
        if version is not None:
            tags |= {_DATA_VERSION_TAG: version.value, _DATA_VERSION_IS_OURS_TAG: "true"}
        return tags

    def _input(self, key: dg.AssetKey) -> tuple[str, str]:
        """Return the version of an input, and the pointer to its event.

        Dagster reads the pointers of partitioned inputs only, so none is looked up for it.
        """
        if key in self._versions:
            target = self._targets.get(key)
            return self._versions[key], str(target.storage_id) if target else _NO_POINTER
        known = self._step.maybe_fetch_and_get_input_asset_version_info(key)
        if known is None:
            return _NO_VERSION, _NO_POINTER
        version = known.data_version.value if known.data_version else _NO_VERSION
        return version, str(known.storage_id)

    def _evaluation(self, result: dg.AssetCheckResult) -> dg.AssetCheckEvaluation:
        assert result.asset_key is not None
        assert result.check_name is not None
        return dg.AssetCheckEvaluation(
            asset_key=result.asset_key,
            check_name=result.check_name,
            passed=result.passed,
            metadata=result.metadata,
            target_materialization_data=self._target(result.asset_key),
            severity=result.severity,
            description=result.description,
            blocking=False,
        )

    def _target(self, key: dg.AssetKey) -> CheckTarget | None:
        """Return the materialization that a check is about: this step's, or the last one."""
        if key in self._versions and key not in self._targets:
            self._look_up_targets()
        if key in self._targets:
            return self._targets[key]
        known = self._step.maybe_fetch_and_get_input_asset_version_info(key)
        if known is None or known.event_type != dg.DagsterEventType.ASSET_MATERIALIZATION:
            return None
        return CheckTarget(
            storage_id=known.storage_id, run_id=known.run_id, timestamp=known.timestamp
        )

    def _look_up_targets(self) -> None:
        """Look up all of this step's materializations that were not yet, in one query."""
        keys = [key for key in self._versions if key not in self._targets]
        for record in self._instance.get_asset_records(keys):
            entry = record.asset_entry
            last = entry.last_materialization_record
            if last is not None and last.run_id == self._run_id:
                self._targets[entry.asset_key] = CheckTarget(
                    storage_id=last.storage_id, run_id=last.run_id, timestamp=last.timestamp
                )


def _as_result(recorded: dg.AssetMaterialization) -> dg.MaterializeResult[Any]:
    version = (recorded.tags or {}).get(_DATA_VERSION_TAG)
    return dg.MaterializeResult(
        recorded.asset_key,
        metadata=recorded.metadata,
        data_version=dg.DataVersion(version) if version else None,
    )


def _used_by_other_steps(context: dg.AssetExecutionContext) -> set[dg.AssetKey]:
    """Return the step's assets whose outputs another step of the run takes."""
    node = context.op_execution_context.op.name
    outputs = {
        dependency.output
        for inputs in context.job_def.dependencies.values()
        for definition in inputs.values()
        for dependency in definition.get_node_dependencies()
        if dependency.node == node
    }
    by_output = context.assets_def.node_keys_by_output_name
    return {by_output[output] for output in outputs if output in by_output}


def _dependents(
    deps: Mapping[dg.AssetKey, Collection[dg.AssetKey]],
) -> Mapping[dg.AssetKey, set[dg.AssetKey]]:
    dependents: dict[dg.AssetKey, set[dg.AssetKey]] = {}
    for key, upstream in deps.items():
        for parent in upstream:
            if parent != key:
                dependents.setdefault(parent, set()).add(key)
    return dependents
