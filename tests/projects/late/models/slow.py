"""A model that takes the time it is told to, and writes down when it ended."""

import os
import time
import typing as t
from datetime import datetime
from pathlib import Path

import pandas as pd
from sqlmesh import ExecutionContext, model


@model("late.slow", kind="FULL", cron="@daily", columns={"id": "int"}, depends_on=["late.middle"])
def execute(context: ExecutionContext, start: datetime, end: datetime, execution_time: datetime, **kwargs: t.Any) -> pd.DataFrame:
    time.sleep(float(os.environ.get("SECONDS_TO_SLEEP", "0")))
    if "ENDED_AT" in os.environ:
        Path(os.environ["ENDED_AT"]).write_text(str(time.time()))
    return pd.DataFrame([{"id": 1}])
