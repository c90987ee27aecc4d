"""A model that only appends, and that nothing can cancel while a file is there."""

import os
import time
import typing as t
from datetime import datetime
from pathlib import Path

import pandas as pd
from sqlmesh import ExecutionContext, model


@model(
    "sales.appended",
    kind="INCREMENTAL_UNMANAGED",
    cron="@daily",
    columns={"day": "date"},
)
def execute(
    context: ExecutionContext,
    start: datetime,
    end: datetime,
    execution_time: datetime,
    **kwargs: t.Any,
) -> pd.DataFrame:
    gate = Path(os.environ["LOCK_GATE"])
    gate.with_suffix(f".{os.getpid()}").touch()
    while gate.exists():
        time.sleep(0.05)
    return pd.DataFrame({"day": pd.date_range(start, end).date})
