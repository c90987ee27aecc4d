"""A code location in this process, evaluated as Dagster's daemon does, with real runners."""

import datetime
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import dagster as dg
from acceptance.local.deployment import Deployment, Run

from dagster_sqlmesh_pipes import (
    SQLMeshResource,
    sqlmesh_adaptive_schedule_factory,
    sqlmesh_state_sensor_factory,
)

__all__ = ["CodeLocation", "instance_of"]


def instance_of(deployment: Deployment) -> AbstractContextManager[dg.DagsterInstance]:
    """Open a deployment's instance for runs in this process."""
    return dg.DagsterInstance.local_temp(
        str(deployment.home), overrides={"telemetry": {"enabled": False}}
    )


class CodeLocation:
    """The assets, the schedule and the sensor of an environment."""

    def __init__(
        self,
        project: Path,
        instance: dg.DagsterInstance,
        *others: dg.AssetsDefinition,
        **options: Any,
    ) -> None:
        resource = SQLMeshResource(project_dir=str(project), **options)
        self._schedule, job, assets = sqlmesh_adaptive_schedule_factory(sqlmesh_resource=resource)
        self.sensor = sqlmesh_state_sensor_factory(sqlmesh_resource=resource)
        self.definitions = dg.Definitions(
            assets=[*assets, *others], jobs=[job], schedules=[self._schedule]
        )
        self._job = self.definitions.resolve_job_def(job.name)
        self.instance = instance
        self.cursor: str | None = None

    def report(self) -> set[tuple[str, str]]:
        """Evaluate the sensor once, and return the models and kinds of its events."""
        with dg.build_sensor_context(self.instance, cursor=self.cursor) as context:
            result = self.sensor.evaluate_tick(context)
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)
        for request in result.dynamic_partitions_requests or []:
            name, keys = request.partitions_def_name, list(request.partition_keys)
            if isinstance(request, dg.AddDynamicPartitionsRequest):
                self.instance.add_dynamic_partitions(name, keys)
            else:
                for key in keys:
                    self.instance.delete_dynamic_partition(name, key)
        self.cursor = result.cursor
        return {
            (event.asset_key.path[-1], type(event).__name__.removeprefix("Asset"))
            for event in result.asset_events
        }

    def due(self, at: datetime.datetime | None = None) -> set[str]:
        """Evaluate a tick, now by default, and return the models that it requests."""
        request = self._request(at)
        return {key.path[-1] for key in request.asset_selection or ()} if request else set()

    def run_due(self, at: datetime.datetime | None = None, **config: Any) -> Run:
        """Run what a tick requests."""
        request = self._request(at)
        assert request is not None
        job = self._job.get_subset(
            asset_selection={*(request.asset_selection or ())},
            asset_check_selection={*(request.asset_check_keys or ())},
        )
        return self._execute(job, config, tags=request.tags)

    def run(self, **config: Any) -> Run:
        """Run everything."""
        return self._execute(self._job, config)

    def _request(self, at: datetime.datetime | None) -> dg.RunRequest | None:
        context = dg.build_schedule_context(
            instance=self.instance,
            scheduled_execution_time=at or datetime.datetime.now(datetime.UTC),
        )
        result = self._schedule.evaluate_tick(context)
        return result.run_requests[0] if result.run_requests else None

    def _execute(self, job: dg.JobDefinition, config: dict[str, Any], **options: Any) -> Run:
        result = job.execute_in_process(
            instance=self.instance,
            run_config={"ops": {"sqlmesh_prod": {"config": config}}},
            raise_on_error=False,
            **options,
        )
        status = "SUCCESS" if result.success else "FAILURE"
        return Run(status, self.instance.all_logs(result.run_id), "")
