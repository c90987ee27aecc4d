"""The raw tables by Dagster: SQLMesh's external models."""

import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

SHOP = Path(__file__).parents[4] / "shop"
sys.path.append(str(SHOP))

from raw_data import write_raw_tables  # noqa: E402


@dg.multi_asset(
    specs=[dg.AssetSpec(["raw", name], group_name="raw") for name in ("events", "customers")]
)
def raw_tables() -> Iterator[dg.MaterializeResult[None]]:
    """Load the raw tables in one step: two would ask for the DuckDB file at once."""
    for table, rows in write_raw_tables().items():
        yield dg.MaterializeResult(asset_key=table.split("."), metadata={"dagster/row_count": rows})
