"""A model that waits while one file is there, and fails while another is."""

import time
import typing as t
from datetime import datetime
from pathlib import Path

import pandas as pd
from sqlmesh import ExecutionContext, model


@model("ticks.gated", kind="FULL", columns={"id": "int"}, depends_on=["ticks.days"])
def execute(
    context: ExecutionContext,
    start: datetime,
    end: datetime,
    execution_time: datetime,
    **kwargs: t.Any,
) -> pd.DataFrame:
    while Path("wait_here").exists():
        time.sleep(0.05)
    if Path("broken").exists():
        raise RuntimeError("the source is broken")
    return pd.DataFrame([{"id": 1}])
