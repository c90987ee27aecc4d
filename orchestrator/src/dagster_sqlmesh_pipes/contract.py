"""Names that others read: protocol version, tags of runs, metadata keys."""

from collections.abc import Iterable

__all__ = [
    "COMPLETE_KEY",
    "CRONS_TAG",
    "DUE_TAG",
    "ENVIRONMENT_KEY",
    "ENVIRONMENT_TAG",
    "FAILED_KEY",
    "FINGERPRINT_KEY",
    "GAPS_KEY",
    "GRANULARITY_TAG",
    "INTERVAL_END_KEY",
    "INTERVAL_START_KEY",
    "LOCK_TAG",
    "MODEL_KEY",
    "NEXT_TICK_TAG",
    "PHYSICAL_TABLE_KEY",
    "PLAN_ID_KEY",
    "PROTOCOL_VERSION",
    "RECORDED_AT_KEY",
    "RECORDED_BEGIN_KEY",
    "RECORDED_BY_KEY",
    "RECORDED_END_KEY",
    "SKIPPED_KEY",
    "TICK_TAG",
    "list_names",
]

PROTOCOL_VERSION = 1
"""The version of launch and messages that this package speaks (docs/reference/contract.md)."""

# Tags of runs.

LOCK_TAG = "sqlmesh/lock"
"""The key of the lock that a run waits for or holds, also for `tag_concurrency_limits`."""

ENVIRONMENT_TAG = "sqlmesh/environment"
"""The lock's key and the environment that a run works on."""

TICK_TAG = "sqlmesh/tick"
"""The tick that requested a run; a run that a person launched has none."""

NEXT_TICK_TAG = "sqlmesh/next_tick"
GRANULARITY_TAG = "sqlmesh/granularity"
"""The finest interval unit of the models that are due."""

CRONS_TAG = "sqlmesh/crons"
DUE_TAG = "sqlmesh/due"
"""How many models of how many are due, which, and why."""

# Metadata keys of results and errors.

ENVIRONMENT_KEY = "sqlmesh/environment"
FAILED_KEY = "sqlmesh/failed"
MODEL_KEY = "sqlmesh/model"
"""A model's FQN, also on its asset."""

SKIPPED_KEY = "sqlmesh/skipped"

# Metadata keys of recorded intervals.

PLAN_ID_KEY = "sqlmesh/plan_id"
FINGERPRINT_KEY = "sqlmesh/fingerprint"
PHYSICAL_TABLE_KEY = "sqlmesh/physical_table"
INTERVAL_START_KEY = "sqlmesh/interval_start"
INTERVAL_END_KEY = "sqlmesh/interval_end"
"""Begin and end of the intervals that a materialization recorded."""

COMPLETE_KEY = "sqlmesh/complete"
"""Whether no interval up to `interval_end` is known to be missing."""

RECORDED_AT_KEY = "sqlmesh/recorded_at"
"""SQLMesh's own time of the last recording."""

RECORDED_BEGIN_KEY = "sqlmesh/recorded_begin"
RECORDED_END_KEY = "sqlmesh/recorded_end"
"""Begin and end of all recorded intervals of the model."""

GAPS_KEY = "sqlmesh/gaps"
"""How many gaps there are between all recorded intervals."""

RECORDED_BY_KEY = "sqlmesh/recorded_by"
"""`outside` where no run of this Dagster instance recorded it."""

_LISTED = 20  # names in one message, which is read by people


def list_names(names: Iterable[str]) -> str:
    """Return the first 20 names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return ", ".join(listed[:_LISTED]) + more
