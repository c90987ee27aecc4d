import typing as t
from datetime import datetime

import pandas as pd
from sqlmesh import ExecutionContext, model


@model("marts.in_pieces", kind="FULL", columns={"id": "int"}, depends_on=["raw.orders"])
def execute(
    context: ExecutionContext,
    start: datetime,
    end: datetime,
    execution_time: datetime,
    **kwargs: t.Any,
) -> t.Iterator[pd.DataFrame]:
    """Yields a frame per order, as models do whose data would not fit into memory."""
    for number in context.fetchdf("SELECT id FROM raw.orders ORDER BY id")["id"]:
        yield pd.DataFrame({"id": [number]})
