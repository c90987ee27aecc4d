"""A model that fails while a file is there."""

import typing as t
from datetime import datetime
from pathlib import Path

import pandas as pd
from sqlmesh import ExecutionContext, model


@model(
    "mirror.third",
    kind="FULL",
    columns={"id": "int"},
    depends_on=["mirror.second"],
    audits=[("number_of_rows", {"threshold": 0})],
)
def execute(
    context: ExecutionContext,
    start: datetime,
    end: datetime,
    execution_time: datetime,
    **kwargs: t.Any,
) -> pd.DataFrame:
    if Path("broken").exists():
        raise RuntimeError("the source is broken")
    return pd.DataFrame([{"id": 1}])
