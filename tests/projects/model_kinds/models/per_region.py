import typing as t

from sqlmesh.core.macros import MacroEvaluator
from sqlmesh.core.model import model


@model(
    "marts.@{region}_orders",
    is_sql=True,
    kind="FULL",
    blueprints=[{"region": "north"}, {"region": "south"}],
)
def entrypoint(evaluator: MacroEvaluator) -> t.Any:
    """Makes one model of SQL for each region."""
    return f"SELECT id, '{evaluator.blueprint_var('region')}' AS region FROM raw.orders"
