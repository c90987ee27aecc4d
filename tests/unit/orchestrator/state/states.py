"""A runner whose state the test sets, and the sensor evaluated as Dagster's daemon does."""

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dagster as dg
from pydantic import PrivateAttr
from unit.orchestrator.shop import fqn

from dagster_sqlmesh_pipes.launchers.base import Invocation, Launcher, LaunchRequest

UTC = datetime.UTC


def at(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=UTC)


def recorded(
    name: str,
    end: str | None = "2026-05-05T00:00",
    recorded_at: str = "2026-05-05T00:10",
    *,
    version: str = "153",
    start: str = "2026-01-01T00:00",
    gaps: int = 0,
    pending: bool = False,
) -> dict[str, Any]:
    """Return a model's entry in the state; nothing is recorded of it if `end` is None."""
    time = at(recorded_at)
    entry: dict[str, Any] = {
        "model": fqn(name),
        "version": version,
        "fingerprint": f"{version}_1_0_0",
        "physical_table": f"shop.sqlmesh__{name}__{version}",
        "gaps": gaps,
        "complete": not gaps and not pending and end is not None,
        "pending_restatement": pending,
        "interval_start": None,
        "interval_end": None,
        "recorded_at": None,
        "data_version": None,
    }
    if end is None:
        return entry
    return {
        **entry,
        "interval_start": at(start).isoformat(),
        "interval_end": at(end).isoformat(),
        "recorded_at": time.isoformat(),
        "data_version": f"{version}:{_ms(at(end))}:{_ms(time)}",
    }


def _ms(moment: datetime.datetime) -> int:
    return int(moment.timestamp() * 1000)


class StateLauncher(Launcher):
    """A launcher whose runner writes the models that were set last."""

    _models: Sequence[Mapping[str, Any]] = PrivateAttr(default=())
    _cursor: int = PrivateAttr(default=0)
    _meanwhile: Callable[[], object] | None = PrivateAttr(default=None)
    _timeouts: list[float | None] = PrivateAttr(default_factory=list)

    def set(self, *models: Mapping[str, Any]) -> None:
        self._models = models
        self._cursor += 1

    def meanwhile(self, action: Callable[[], object]) -> None:
        """Do something while a runner reads the state."""
        self._meanwhile = action

    def run_to_end(self, arguments: Sequence[str], *, timeout: float | None = None) -> str:
        assert arguments[0] == "state"
        self._timeouts.append(timeout)
        cursor = f"plan:0:{self._cursor}"
        changed = list(arguments[-2:]) != ["--since", cursor]
        document = {
            "schema_version": 1,
            "cursor": cursor,
            "changed": changed,
            "environment": "prod",
            "plan_id": "plan",
            "models": self._models if changed else [],
        }
        if self._meanwhile:
            self._meanwhile()
        return json.dumps(document)

    def launch(self, request: LaunchRequest) -> Invocation:
        raise NotImplementedError


class Evaluations:
    """The sensor of a code location, with its cursor."""

    def __init__(self, sensor: dg.SensorDefinition, instance: dg.DagsterInstance) -> None:
        self.sensor = sensor
        self.instance = instance
        self.cursor: str | None = None

    def evaluate(self) -> Any:
        """Evaluate it once, and store what it returns in the daemon's order."""
        with dg.build_sensor_context(self.instance, cursor=self.cursor) as context:
            result = self.sensor.evaluate_tick(context)
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)
        for request in result.dynamic_partitions_requests or []:
            keys = list(request.partition_keys)
            if isinstance(request, dg.AddDynamicPartitionsRequest):
                self.instance.add_dynamic_partitions(request.partitions_def_name, keys)
            else:
                for key in keys:
                    self.instance.delete_dynamic_partition(request.partitions_def_name, key)
        self.cursor = result.cursor
        return result

    def events(self) -> list[tuple[str, str]]:
        """Evaluate it once, and return the assets and kinds of its events."""
        return [
            (event.asset_key.path[-1], type(event).__name__.removeprefix("Asset"))
            for event in self.evaluate().asset_events
        ]
