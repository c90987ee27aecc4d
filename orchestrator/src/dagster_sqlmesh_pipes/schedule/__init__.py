"""The adaptive schedule: which ticks a project needs, and which models are due at one."""

from dagster_sqlmesh_pipes.schedule.factory import sqlmesh_adaptive_schedule_factory
from dagster_sqlmesh_pipes.schedule.freshness import freshness_from_cron

__all__ = ["freshness_from_cron", "sqlmesh_adaptive_schedule_factory"]
