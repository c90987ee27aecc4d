"""What Python models may do in a run of the runner, as they may under `sqlmesh run`."""

from integration.runner.harness import HEAVY, ProjectCopy, asset_key, extras

_MODEL = """\
import multiprocessing

import pandas as pd
from dagster_pipes import open_dagster_pipes
from sqlmesh import model


@model("marts.reports", kind="FULL", columns={"id": "int"})
def execute(context, start, end, execution_time, **kwargs):
    for _ in range(20):
        with multiprocessing.get_context("fork").Pool(2) as pool:
            ids = pool.map(abs, [-1, -2])
    with open_dagster_pipes() as pipes:
        pipes.report_asset_materialization(metadata={"files": len(ids)})
    yield pd.DataFrame({"id": ids})
"""
REPORTS = '"orders"."marts"."reports"'


def test_python_model_uses_pools_and_reports_metadata(orders: ProjectCopy) -> None:
    (orders.path / "models" / "reports.py").write_text(_MODEL)
    orders.plan()

    run = orders.run(extras=extras([REPORTS, HEAVY]))

    assert (run.code, run.end["outcome"]) == (0, "success")
    metadata = run.materialized[asset_key(REPORTS)]
    assert (metadata["files"], metadata["sqlmesh/batches"]) == (2, 1)
    assert asset_key(HEAVY) in run.materialized, "the messages stay open"
