"""A model that does not end while a file is there, and says that it is at work by another."""

import time
import typing as t
from datetime import datetime
from pathlib import Path

import pandas as pd
from sqlmesh import ExecutionContext, model


@model("late.slow", kind="FULL", cron="@daily", columns={"id": "int"}, depends_on=["late.middle"])
def execute(
    context: ExecutionContext,
    start: datetime,
    end: datetime,
    execution_time: datetime,
    **kwargs: t.Any,
) -> pd.DataFrame:
    Path("at_work").touch()
    while Path("wait_here").exists():
        time.sleep(0.05)
    return pd.DataFrame([{"id": 1}])
