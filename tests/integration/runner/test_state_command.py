"""`sqlmesh-runner state` writes what SQLMesh's state has recorded, whoever recorded it."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from integration.runner.harness import (
    ORDERS,
    PLANNED_AT,
    SQLMESH,
    TOTALS,
    VIEW,
    ProjectCopy,
    run_without_the_runner,
    sqlmesh,
)


def state(project: ProjectCopy, *arguments: str) -> dict[str, Any]:
    done = project.command("state", *arguments)
    assert done.code == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def models(document: Mapping[str, Any]) -> dict[str, Any]:
    return {model["model"]: model for model in document["models"]}


def test_planned_models_are_listed_in_topological_order(orders: ProjectCopy) -> None:
    document = state(orders)

    names = list(models(document))
    assert names.index(ORDERS) < names.index(TOTALS) < names.index(VIEW)
    recorded = models(document)[ORDERS]
    assert recorded["interval_start"] == "2026-01-01T00:00:00+00:00"
    assert recorded["interval_end"] == "2026-01-02T00:00:00+00:00"
    assert (recorded["gaps"], recorded["complete"]) == (0, True)
    assert recorded["physical_table"].endswith(f"__{recorded['version']}")
    assert document["environment"] == "prod"


def test_run_in_a_shell_changes_cursor_and_data_versions(orders: ProjectCopy) -> None:
    before = state(orders)
    run_without_the_runner(orders)

    after = state(orders, "--since", before["cursor"])

    assert after["changed"]
    assert models(after)[ORDERS]["interval_end"] == "2026-01-05T00:00:00+00:00"
    assert models(after)[ORDERS]["data_version"] > models(before)[ORDERS]["data_version"]
    assert models(after)[ORDERS]["recorded_at"] > models(before)[ORDERS]["recorded_at"]


def test_unchanged_cursor_lists_no_models(orders: ProjectCopy) -> None:
    cursor = state(orders)["cursor"]

    document = state(orders, "--since", cursor)

    assert (document["cursor"], document["changed"], document["models"]) == (cursor, False, [])


@pytest.mark.skipif(SQLMESH < (0, 224), reason="SQLMesh before 0.224 keeps no time of recording")
def test_compacting_changes_no_data_version(orders: ProjectCopy) -> None:
    run_without_the_runner(orders)
    before = state(orders)
    sqlmesh(orders.path, "janitor")

    after = state(orders, "--since", before["cursor"])

    assert after["models"] in ([], before["models"])


def test_removed_intervals_are_a_gap(orders: ProjectCopy) -> None:
    run_without_the_runner(orders)
    before = state(orders)
    write_interval(orders, ORDERS, "2026-01-02", "2026-01-03")

    after = state(orders, "--since", before["cursor"])

    recorded = models(after)[ORDERS]
    assert (recorded["gaps"], recorded["complete"]) == (1, False)
    assert recorded["recorded_at"] == models(before)[ORDERS]["recorded_at"]


def test_recording_by_a_clock_that_is_behind_changes_cursor(orders: ProjectCopy) -> None:
    before = state(orders)
    write_interval(orders, ORDERS, "2026-01-02", "2026-01-03", is_removed="FALSE", clock=-3600000)

    after = state(orders, "--since", before["cursor"])

    assert after["changed"]
    assert models(after)[ORDERS]["interval_end"] == "2026-01-03T00:00:00+00:00"


def write_interval(
    project: ProjectCopy,
    model: str,
    start: str,
    end: str,
    *,
    is_removed: str = "TRUE",
    clock: int = 100000,
) -> None:
    """Record an interval, or that it is to be evaluated again, as SQLMesh's restatements do.

    Args:
        project: whose state is written.
        model: its FQN.
        start: the interval's begin.
        end: the interval's end.
        is_removed: whether it is to be evaluated again.
        clock: milliseconds after the model's newest row.
    """
    changed = {
        "id": "'another'",
        "start_ts": f"epoch_ms(TIMESTAMP '{start}')",
        "end_ts": f"epoch_ms(TIMESTAMP '{end}')",
        "is_removed": is_removed,
        "is_compacted": "FALSE",
        "created_ts": f"created_ts + {clock}",
    }
    replaced = ", ".join(f"{value} AS {column}" for column, value in changed.items())
    project.sql(
        f"INSERT INTO sqlmesh._intervals SELECT * REPLACE ({replaced}) FROM sqlmesh._intervals "
        f"WHERE name = '{model}' ORDER BY created_ts DESC LIMIT 1"
    )


def test_development_environment_lists_its_own_tables(orders: ProjectCopy) -> None:
    totals = orders.path / "models" / "totals.sql"
    totals.write_text(totals.read_text().replace("SELECT", "SELECT 1 AS added,", 1))
    sqlmesh(
        orders.path,
        *("plan", "dev", "--auto-apply", "--no-prompts", "--skip-tests"),
        *("--execution-time", PLANNED_AT, "--include-unmodified"),
    )

    prod, dev = models(state(orders)), models(state(orders, "dev"))

    assert dev[ORDERS] == prod[ORDERS]
    assert dev[TOTALS]["version"] != prod[TOTALS]["version"]
    assert dev[TOTALS]["complete"]


def test_environment_never_planned_is_an_error(orders: ProjectCopy) -> None:
    done = orders.command("state", "nowhere")

    assert (done.code, done.stdout) == (3, "")
    assert "Environment 'nowhere' was never planned (known: prod)" in done.stderr
