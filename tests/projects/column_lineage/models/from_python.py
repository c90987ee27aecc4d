import typing as t

import pandas as pd
from sqlmesh import ExecutionContext, model


@model("nasty.from_python", columns={"id": "int"}, depends_on=["nasty.stars"])
def execute(context: ExecutionContext, **kwargs: t.Any) -> pd.DataFrame:
    return pd.DataFrame({"id": [1]})
