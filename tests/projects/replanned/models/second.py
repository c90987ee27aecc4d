import typing as t
from datetime import datetime

import pandas as pd
from sqlmesh import ExecutionContext, model


@model("audited.second", kind="FULL", columns={"id": "int"}, depends_on=["audited.first"])
def execute(
    context: ExecutionContext,
    start: datetime,
    end: datetime,
    execution_time: datetime,
    **kwargs: t.Any,
) -> pd.DataFrame:
    """Changes the environment's plan, the first time that it runs after the plan that made it."""
    is_run = execution_time.strftime("%Y-%m-%d") == "2026-01-05"
    if is_run and not int(
        context.fetchdf("SELECT MAX(finalized) AS finalized FROM raw.plans")["finalized"][0]
    ):
        context.engine_adapter.execute("UPDATE raw.plans SET finalized = 1")
        context.engine_adapter.execute(
            "UPDATE sqlmesh._environments SET plan_id = 'another', previous_plan_id = plan_id"
        )
    return pd.DataFrame([{"id": 1}])
