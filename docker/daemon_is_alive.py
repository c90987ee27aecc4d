"""The daemon's health check: its heartbeats in Dagster's database are young.

`dagster-daemon liveness-check` asks the same, and takes seconds of a processor for it each time.
"""

import os
import sys
import time

import psycopg2

OLDEST = 120.0  # seconds

with psycopg2.connect(
    host="postgres", dbname="dagster", user="dagster", password=os.environ["DAGSTER_PG_PASSWORD"]
) as connection:
    cursor = connection.cursor()
    cursor.execute("SELECT MAX(extract(epoch FROM timestamp)) FROM daemon_heartbeats")
    (newest,) = cursor.fetchone() or (None,)
sys.exit(newest is None or time.time() - float(newest) > OLDEST)
