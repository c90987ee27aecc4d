"""SQLMesh's state, shown in Dagster without a run: a sensor reports what others recorded."""

from dagster_sqlmesh_pipes.state.sensor import sqlmesh_state_sensor_factory

__all__ = ["sqlmesh_state_sensor_factory"]
