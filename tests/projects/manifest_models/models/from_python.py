import typing as t

import pandas as pd
from sqlmesh import ExecutionContext, model


@model(
    "mart.from_python",
    kind="FULL",
    columns={"id": "int", "doubled": "double"},
    column_descriptions={"doubled": "twice the amount"},
    audits=[("not_null", {"columns": "(id, doubled)"})],
    depends_on=["staging.events"],
    description="Doubles the amounts.",
)
def execute(context: ExecutionContext, **kwargs: t.Any) -> pd.DataFrame:
    table = context.resolve_table("staging.events")
    return context.fetchdf(f"SELECT id, amount * 2 AS doubled FROM {table}")
