"""Words, counted in Python."""

import typing as t
from datetime import datetime

import pandas as pd
from sqlmesh import ExecutionContext, model


@model(
    "audited.from_python",
    kind="FULL",
    columns={"words": "int"},
    depends_on=["raw.words"],
    audits=[("number_of_rows", {"threshold": 0})],
)
def execute(
    context: ExecutionContext,
    start: datetime,
    end: datetime,
    execution_time: datetime,
    **kwargs: t.Any,
) -> pd.DataFrame:
    print("the words are counted")
    return pd.DataFrame([{"words": len(context.fetchdf("SELECT word FROM raw.words"))}])
