"""The models of which intervals were removed from SQLMesh's state and are not recorded again.

The state sensor finds them, and the schedule requests them. Dagster's storage can't look up the
latest observations of many assets at once, so they are also kept as dynamic partitions, which one
query reads. The entry of a model that was recorded since is obsolete, and the sensor deletes it.
"""

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import dagster as dg

from dagster_sqlmesh_pipes.run.recorded import RecordedModel

__all__ = ["Removal", "RemovalRegister"]


@dataclass(frozen=True)
class Removal:
    """A model whose intervals were removed."""

    at: datetime.datetime
    """When the sensor noticed it."""
    left: str
    """What is still recorded; another removal leaves something else."""
    model: str
    """The model's FQN."""

    @classmethod
    def of(cls, recorded: RecordedModel, at: datetime.datetime) -> Self:
        """Return the removal that a recorded model shows."""
        return cls(at.astimezone(datetime.UTC), _left(recorded), recorded.model)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the removal of an entry."""
        at, left, model = text.split(" ", 2)
        return cls(datetime.datetime.fromisoformat(at), left, model)

    def shows(self, recorded: RecordedModel) -> bool:
        """Return whether nothing has been removed since."""
        return self.left == _left(recorded)

    def __str__(self) -> str:
        return f"{self.at.isoformat()} {self.left} {self.model}"


def _left(recorded: RecordedModel) -> str:
    start = recorded.interval_start
    begin = f"{start:%Y-%m-%dT%H:%M}" if start else ""
    return f"{recorded.data_version or 'nothing'}/{recorded.gaps}/{begin}"


class RemovalRegister:
    """The removals in an environment.

    Args:
        environment_key: the lock's key and the environment.
    """

    def __init__(self, environment_key: str) -> None:
        self._partitions = dg.DynamicPartitionsDefinition(
            name=f"sqlmesh/removed_intervals/{environment_key}"
        )

    def read(self, instance: dg.DagsterInstance) -> Mapping[str, Removal]:
        """Return the latest removal of each model, by FQN."""
        name = str(self._partitions.name)
        removals = sorted(map(Removal.parse, instance.get_dynamic_partitions(name)), key=_time)
        return {removal.model: removal for removal in removals}

    def add_request(self, removals: Iterable[Removal]) -> dg.AddDynamicPartitionsRequest:
        """Return the request of a sensor to add removals."""
        return self._partitions.build_add_request([str(removal) for removal in removals])

    def delete_request(self, removals: Iterable[Removal]) -> dg.DeleteDynamicPartitionsRequest:
        """Return the request of a sensor to delete removals."""
        return self._partitions.build_delete_request([str(removal) for removal in removals])


def _time(removal: Removal) -> datetime.datetime:
    return removal.at
