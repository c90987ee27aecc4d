"""The tags of runs on a SQLMesh environment."""

__all__ = ["CRONS_TAG", "DUE_TAG", "ENVIRONMENT_TAG", "EXCLUSIVE_TAG", "GRANULARITY_TAG", "NEXT_TICK_TAG", "TICK_TAG"]

EXCLUSIVE_TAG = "sqlmesh/exclusive"
"""What a run has to itself, for people, the schedule and `tag_concurrency_limits`."""

ENVIRONMENT_TAG = "sqlmesh/environment"
"""What a run works on: the same, and the environment."""

TICK_TAG = "sqlmesh/tick"
"""The tick that asked for a run; a run that a person asked for has none."""

NEXT_TICK_TAG = "sqlmesh/next_tick"
GRANULARITY_TAG = "sqlmesh/granularity"
"""The finest interval unit of what is due."""

CRONS_TAG = "sqlmesh/crons"
DUE_TAG = "sqlmesh/due"
"""How many models of how many are due, which, and why."""
