import sys
from pathlib import Path

import pandas as pd
from sqlmesh import model


@model("marts.quits", kind="FULL", columns={"id": "int"})
def execute(context, start, end, execution_time, **kwargs):
    if Path("quits").exists():
        sys.exit("no such customer")
    return pd.DataFrame([{"id": 1}])
