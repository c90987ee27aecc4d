import pandas as pd
from sqlmesh import model


@model("marts.makes_do", kind="FULL", columns={"id": "int"})
def execute(context, start, end, execution_time, **kwargs):
    """Fails, but not because of the query that fails."""
    try:
        context.engine_adapter.execute("SELECT * FROM optional_table")
    except Exception:  # noqa: BLE001 - as careless as user code may be
        print("there is no such table, never mind")
    if end.strftime("%Y-%m-%d") > "2026-01-01":
        raise ValueError("the service is down")
    return pd.DataFrame([{"id": 1}])
