"""The labels by which a runner is found again, on whatever engine it runs."""

__all__ = [
    "CODE_LOCATION_LABEL",
    "JOB_LABEL",
    "KEEP_LABEL",
    "LOCK_LABEL",
    "RUN_ID_LABEL",
    "STEP_LABEL",
]

RUN_ID_LABEL = "dagster/run_id"
STEP_LABEL = "dagster/step_key"
JOB_LABEL = "dagster/job"
CODE_LOCATION_LABEL = "dagster/code_location"

LOCK_LABEL = "dagster-sqlmesh-pipes.lock"
"""The lock that a runner's step holds. Steps of one Dagster instance take turns at a lock, so what
a finished run left running may be stopped by the next. Another instance on the same engine may
use the same name: a label alone proves nothing.
"""

KEEP_LABEL = "dagster-sqlmesh-pipes.keep"
"""On every runner that a launcher started; its value is the launcher's `keep`."""
