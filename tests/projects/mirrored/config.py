"""A configuration that kills who a file names, right after SQLMesh has recorded `second`."""

import os
import signal
import typing as t
from pathlib import Path

from sqlmesh.core.config import Config, DuckDBConnectionConfig, GatewayConfig, ModelDefaultsConfig
from sqlmesh.core.scheduler import Scheduler

config = Config(
    gateways={
        "local": GatewayConfig(connection=DuckDBConnectionConfig(database="mirrored.duckdb"))
    },
    model_defaults=ModelDefaultsConfig(dialect="duckdb", start="2026-01-01", cron="@daily"),
)

evaluate = Scheduler.evaluate


def evaluate_and_kill(self: Scheduler, snapshot: t.Any, *args: t.Any, **kwargs: t.Any) -> t.Any:
    evaluated = evaluate(self, snapshot, *args, **kwargs)
    if "second" in snapshot.name and Path("kill_runner").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if "second" in snapshot.name and Path("kill_step").exists():
        os.kill(os.getppid(), signal.SIGKILL)
    return evaluated


Scheduler.evaluate = evaluate_and_kill
