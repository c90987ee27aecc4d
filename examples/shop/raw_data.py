"""The shop's raw tables. What a web shop's server and its customer database would write.

Everything follows from the clock: the same five minutes give the same event, so the tables can be
written again at any time. Used by the Dagster asset in definitions.py and by prepare.py.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

DATABASE = Path(__file__).with_name("shop.db")

EVENT_EVERY = timedelta(minutes=5)
KEPT_FOR = timedelta(days=7)
CUSTOMERS = 40
PRODUCTS_SOLD = 8  # the ninth in seeds/products.csv is the one that nobody buys
STAGES = {
    "order": 90,
    "basket": 140,
    "view": 256,
}  # of 256 events: 90 orders, 50 baskets, 116 views
CITIES = ("Basel", "Bern", "Genf", "Luzern", "Zürich")

_CREATE = (
    "CREATE SCHEMA IF NOT EXISTS raw",
    """CREATE TABLE IF NOT EXISTS raw.events (
        event_id BIGINT, stage TEXT, customer_id INT, product_id INT, quantity INT,
        occurred_at TIMESTAMP)""",
    """CREATE TABLE IF NOT EXISTS raw.customers (
        customer_id INT, name TEXT, email TEXT, city TEXT, updated_at TIMESTAMP)""",
)


def write_raw_tables(now: datetime | None = None) -> dict[str, int]:
    """Write the last week's events and today's customers; return the number of rows per table."""
    now = (now or datetime.now(UTC)).astimezone(UTC)
    tables = {"raw.events": list(_events(now)), "raw.customers": list(_customers(now))}
    # Closed at once: DuckDB lets one process at a time have the file.
    with closing(connect()) as connection:
        cursor = connection.cursor()
        cursor.execute("BEGIN")
        for statement in _CREATE:
            cursor.execute(statement)
        for table, rows in tables.items():
            # Emptied and not dropped: SQLMesh's views read these tables.
            cursor.execute(f"DELETE FROM {table}")
            cursor.execute(f"INSERT INTO {table} VALUES {_literals(rows)}")
        cursor.execute("COMMIT")
    return {table: len(rows) for table, rows in tables.items()}


def connect(*, read_only: bool = False) -> Any:
    """Connect to the warehouse: PostgreSQL if SHOP_PG_HOST is set, else the DuckDB file here."""
    if host := os.environ.get("SHOP_PG_HOST"):
        import psycopg2  # type: ignore[import-untyped]  # noqa: PLC0415 - not needed for DuckDB

        return psycopg2.connect(
            host=host,
            port=os.environ.get("SHOP_PG_PORT", "5432"),
            user=os.environ.get("SHOP_PG_USER", "shop"),
            password=os.environ.get("SHOP_PG_PASSWORD", "shop"),
            dbname=os.environ.get("SHOP_PG_DATABASE", "shop"),
        )
    import duckdb  # noqa: PLC0415 - not needed for PostgreSQL

    return duckdb.connect(str(DATABASE), read_only=read_only)


def _events(now: datetime) -> Iterator[tuple[object, ...]]:
    first, last = (
        int(moment.timestamp() // EVENT_EVERY.total_seconds()) for moment in (now - KEPT_FOR, now)
    )
    for number in range(first, last + 1):
        chance = hashlib.sha256(str(number).encode()).digest()
        stage = next(stage for stage, below in STAGES.items() if chance[0] < below)
        occurred_at = datetime.fromtimestamp(number * EVENT_EVERY.total_seconds(), UTC)
        yield (
            number,
            stage,
            chance[1] % CUSTOMERS + 1,
            chance[2] % PRODUCTS_SOLD + 1,
            chance[3] % 12 + 1,
            _text(occurred_at),
        )


def _customers(now: datetime) -> Iterator[tuple[object, ...]]:
    """Return the customers; each moves house every five days, eight of forty a day."""
    today = int(now.timestamp() // 86_400)
    for customer in range(1, CUSTOMERS + 1):
        moves = (today + customer) // 5
        moved_at = datetime.fromtimestamp((moves * 5 - customer) * 86_400, UTC)
        yield (
            customer,
            f"Customer {customer}",
            f"customer{customer}@mail.example",
            CITIES[moves % len(CITIES)],
            _text(moved_at),
        )


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def _literals(rows: Sequence[tuple[object, ...]]) -> str:
    # Plain SQL, because DuckDB and psycopg2 mark parameters differently. The values are made above.
    return ", ".join(f"({', '.join(repr(value) for value in row)})" for row in rows)
