"""Customers, counted in Python."""

import typing as t
from datetime import datetime

import pandas as pd
from sqlmesh import ExecutionContext, model


@model(
    "kinds.from_python",
    kind="FULL",
    columns={"customers": "int"},
    depends_on=["kinds.by_key"],
    audits=[("number_of_rows", {"threshold": 0})],
)
def execute(
    context: ExecutionContext,
    start: datetime,
    end: datetime,
    execution_time: datetime,
    **kwargs: t.Any,
) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "customers": len(
                    context.fetchdf(f"SELECT customer FROM {context.resolve_table('kinds.by_key')}")
                )
            }
        ]
    )
