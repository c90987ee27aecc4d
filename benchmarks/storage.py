"""Dagster instances to measure with: on SQLite, or on a PostgreSQL server."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

__all__ = ["STORAGES", "dagster_home"]

STORAGES = ("sqlite", "postgres")

_CONFIG = """\
telemetry:
  enabled: false
"""

_POSTGRES = """\
storage:
  postgres:
    postgres_url: {url}
"""


@contextmanager
def dagster_home(folder: Path, storage: str = "sqlite", config: str = "") -> Iterator[Path]:
    """Make a Dagster home whose tables exist.

    PostgreSQL is the database that BENCH_POSTGRES_URL names, or else a server of our own, as the
    tests start it: without fsync.
    """
    folder.mkdir()
    if storage == "sqlite":
        _write(folder, _CONFIG + config)
        yield folder
        return
    with _postgres_url() as url:
        _write(folder, _CONFIG + config + _POSTGRES.format(url=url))
        yield folder


def _write(folder: Path, config: str) -> None:
    (folder / "dagster.yaml").write_text(config)
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        instance.get_runs(limit=1)
        instance.get_asset_keys(limit=1)


@contextmanager
def _postgres_url() -> Iterator[str]:
    if url := os.environ.get("BENCH_POSTGRES_URL"):
        yield url
        return
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from postgres_server import postgres_server  # noqa: PLC0415 - needs a server

    with postgres_server() as server:
        yield f"postgresql://postgres@127.0.0.1:{server.port}/postgres"
