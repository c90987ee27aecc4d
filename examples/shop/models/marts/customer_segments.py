import typing as t

import pandas as pd
from sqlglot import exp
from sqlmesh import ExecutionContext, model


@model(
    "marts.customer_segments",
    kind="FULL",
    cron="@daily",
    owner="crm@shop.example",
    tags=["customers", "dagster:group_name:customers"],
    description="Each customer's segment, by how much they spent. A Python model.",
    columns={"customer_id": "int", "spent": "decimal(12, 2)", "segment": "text"},
    column_descriptions={
        "spent": "In euros, since the shop keeps books",
        "segment": "gold, silver or bronze",
    },
    depends_on=["staging.order_lines", "staging.products"],
    audits=[
        ("unique_values", {"columns": exp.column("customer_id")}),
        (
            "accepted_values",
            {"column": exp.column("segment"), "is_in": exp.convert(("gold", "silver", "bronze"))},
        ),
    ],
)
def execute(context: ExecutionContext, **_: t.Any) -> t.Iterator[pd.DataFrame]:
    lines = context.resolve_table("staging.order_lines")
    products = context.resolve_table("staging.products")
    spent = context.fetchdf(
        f"SELECT l.customer_id, SUM(l.quantity * p.price) AS spent FROM {lines} AS l "
        f"JOIN {products} AS p ON p.product_id = l.product_id GROUP BY l.customer_id"
    )
    if spent.empty:
        yield from ()
        return
    rank = spent["spent"].astype(float).rank(pct=True)
    spent["segment"] = pd.cut(
        rank, bins=[0, 0.5, 0.85, 1], labels=["bronze", "silver", "gold"]
    ).astype(str)
    yield spent
