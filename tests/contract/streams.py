"""The runs whose messages are golden: both sides of the contract are tested against the same files.

`python tests/contract/generate.py` writes them again, in the runner's environment. What differs from run to run is replaced by something of
its type; everything else must be as it is in the files.
"""

import json
import re
import signal
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from integration.runner.harness import HEAVY, ORDERS, RUN_AT, TOTALS_AGREE, Finished, ProjectCopy, extras

DIRECTORY: Final = Path(__file__).parent

Messages = list[dict[str, Any]]

_REPLACED: Final[Mapping[str, Any]] = {
    "duration": 0.25,
    "sqlmesh/duration": 0.25,
    "audit_duration": 0.25,
    "next_due": "2026-01-06T00:00:00+00:00",
    "plan_id": "9f86d081884c7d659a2feaa0c55ad015",
    "sqlmesh/plan_id": "9f86d081884c7d659a2feaa0c55ad015",
    "sqlmesh/fingerprint": "1111111111",
    "sqlmesh_version": "0.0.0",
    "runner_version": "0.0.0",
}


def success_with_batches(project: ProjectCopy) -> Finished:
    return project.run(extras=extras(selection="all"))


def blocking_failure(project: ProjectCopy) -> Finished:
    project.sql("UPDATE raw.orders SET id = NULL WHERE ordered_at >= '2026-01-02'")
    return project.run(extras=extras(selection="all"))


def blocking_failure_after_recorded_batches(project: ProjectCopy) -> Finished:
    project.sql("UPDATE raw.orders SET id = NULL WHERE ordered_at = '2026-01-04'")
    return project.run(extras=extras([ORDERS]))


def nonblocking_failure(project: ProjectCopy) -> Finished:
    project.sql("UPDATE raw.orders SET amount = '-1' WHERE id IN (4, 5, 10)")
    return project.run(extras=extras([ORDERS]))


def bad_cast_with_downstream_skipped(project: ProjectCopy) -> Finished:
    project.sql("UPDATE raw.orders SET amount = 'many' WHERE ordered_at >= '2026-01-02'")
    return project.run(extras=extras(selection="all"))


def unknown_models(project: ProjectCopy) -> Finished:
    return project.run(extras=extras([ORDERS], selection="all"))


def nothing_due(project: ProjectCopy) -> Finished:
    return project.command("run", "--execution-time", "2026-01-02 00:00:00", extras=extras(selection="all"))


def signal_not_ready(project: ProjectCopy) -> Finished:
    (project.path / "not_announced").touch()
    return project.run(extras=extras(selection="all"))


def interrupted(project: ProjectCopy) -> Finished:
    project.sql("UPDATE raw.knobs SET rows_to_make = 300000")
    with project.start("run", "--execution-time", RUN_AT, extras=extras(selection="all")) as runner:
        runner.wait_for("model_started", HEAVY)
        runner.signal(signal.SIGINT)
        return runner.finish()


def env_not_planned(project: ProjectCopy) -> Finished:
    return project.run("--environment", "dev", extras=extras(selection="all"))


def audits_alone(project: ProjectCopy) -> Finished:
    return project.command("audit", extras=extras([ORDERS], standalone_audits=TOTALS_AGREE))


SCENARIOS: Final[Mapping[str, Callable[[ProjectCopy], Finished]]] = {
    scenario.__name__: scenario
    for scenario in (
        success_with_batches,
        blocking_failure,
        blocking_failure_after_recorded_batches,
        nonblocking_failure,
        bad_cast_with_downstream_skipped,
        unknown_models,
        nothing_due,
        signal_not_ready,
        interrupted,
        env_not_planned,
        audits_alone,
    )
}


def golden(scenario: str) -> Messages:
    """Read a golden stream."""
    return [json.loads(line) for line in path_of(scenario).read_text().splitlines()]


def path_of(scenario: str) -> Path:
    return DIRECTORY / f"{scenario}.jsonl"


def normalised(messages: Iterable[Mapping[str, Any]]) -> Messages:
    """Replace what differs from run to run."""
    return [_normal(message) for message in messages]


def _normal(value: Any, key: str = "") -> Any:
    if key in _REPLACED and value is not None:
        if isinstance(value, Mapping):  # Pipes metadata: {"type": …, "raw_value": …}
            return {**value, "raw_value": _REPLACED[key]}
        return _REPLACED[key]
    if key == "environment_models":
        return dict.fromkeys(value, "2222222222")
    if isinstance(value, Mapping):
        return {name: _normal(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_normal(item) for item in value]
    if isinstance(value, str):
        if key == "data_version":
            return re.sub(r"^\d+:(\d+):\d+$", r"3333333333:\1:1767571201000", value)
        return re.sub(r"__\d{6,}\b", "__3333333333", value)  # the version in a physical table's name
    return value
