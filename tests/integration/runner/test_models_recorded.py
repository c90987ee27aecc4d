"""What a run reports of recordings is what `sqlmesh-runner state` lists."""

import json
from collections.abc import Mapping
from typing import Any

from integration.runner.harness import (
    ORDERS,
    TOTALS,
    VIEW,
    Finished,
    ProjectCopy,
    asset_key,
    extras,
    run_without_the_runner,
)

MODELS = (ORDERS, TOTALS, VIEW)


def data_versions(project: ProjectCopy) -> dict[str, str]:
    document = json.loads(project.command("state").stdout)
    return {model["model"]: model["data_version"] for model in document["models"]}


def adopted(run: Finished) -> dict[str, Mapping[str, Any]]:
    return {
        model["model"]: model
        for event in run.events("models_recorded")
        for model in event["models"]
    }


def test_results_of_a_run_have_the_data_versions_of_the_state(orders: ProjectCopy) -> None:
    run = orders.run(extras=extras(selection="all"))

    reported = {
        each["asset_key"]: each["data_version"]
        for each in run.params("report_asset_materialization")
    }
    assert reported == {asset_key(fqn): text for fqn, text in data_versions(orders).items()}


def test_results_of_others_are_reported_by_the_next_run(orders: ProjectCopy) -> None:
    run_without_the_runner(orders)

    run = orders.run(extras=extras(MODELS, adopt=True))

    assert run.end["outcome"] == "nothing_to_do"
    expected = data_versions(orders)
    assert {fqn: model["data_version"] for fqn, model in adopted(run).items()} == {
        fqn: expected[fqn] for fqn in MODELS
    }
    assert list(adopted(run)) == list(MODELS)


def test_failed_models_and_those_behind_them_are_not_reported(orders: ProjectCopy) -> None:
    orders.sql("UPDATE raw.orders SET amount = 'many' WHERE ordered_at >= '2026-01-02'")

    run = orders.run(extras=extras(selection="all", adopt=True))

    assert run.code == 1
    assert run.skipped(TOTALS)["reason"] == "upstream_failed"
    assert adopted(run) == {}
