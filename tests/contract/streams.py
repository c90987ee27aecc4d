"""The runs whose messages are golden: both sides of the contract are tested against the same files.

`make golden` writes them again. What differs from run to run is replaced by something of its type,
and the messages' numbers are left out: everything else must be as it is in the files.
"""

import json
import re
import signal
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from integration.runner.harness import (
    HEAVY,
    ORDERS,
    POSITIVE_ID,
    RUN_AT,
    TOTALS,
    TOTALS_AGREE,
    VIEW,
    Finished,
    ProjectCopy,
    extras,
)

DIRECTORY: Final = Path(__file__).parent

RAW_ORDERS: Final = '"orders"."raw"."orders"'
POSITIVE_CAST: Final = "assert_positive:0cd1e2ef"

Messages = list[dict[str, Any]]

_LONGEST_LINE: Final = 100  # characters

_REPLACED: Final[Mapping[str, Any]] = {
    "duration": 0.25,
    "sqlmesh/duration": 0.25,
    "audit_duration": 0.25,
    "next_due": "2026-01-06T00:00:00+00:00",
    "plan_id": "9f86d081884c7d659a2feaa0c55ad015",
    "sqlmesh/plan_id": "9f86d081884c7d659a2feaa0c55ad015",
    "sqlmesh/fingerprint": "1111111111",
    "fingerprint": "1111111111",
    "version": "3333333333",
    "sqlmesh/recorded_at": 1767571201.0,
    "recorded_at": "2026-01-05T00:00:01+00:00",
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
    project.sql("UPDATE raw.orders SET amount = '-1' WHERE id IN (4, 5)")
    return project.run(extras=extras([ORDERS]))


def bad_cast_with_downstream_skipped(project: ProjectCopy) -> Finished:
    project.sql("UPDATE raw.orders SET amount = 'many' WHERE ordered_at >= '2026-01-02'")
    return project.run(extras=extras(selection="all"))


def unknown_models(project: ProjectCopy) -> Finished:
    return project.run(extras=extras([ORDERS], selection="all"))


def nothing_due(project: ProjectCopy) -> Finished:
    return project.command(
        "run", "--execution-time", "2026-01-02 00:00:00", extras=extras(selection="all")
    )


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


def models_recorded(project: ProjectCopy) -> Finished:
    """One model ran before, outside of Dagster; a signal holds two of the others back."""
    (project.path / "not_announced").touch()
    project.run("--select", ORDERS)
    return project.run(extras=extras(selection="all", adopt=True))


def models_recorded_and_nothing_due(project: ProjectCopy) -> Finished:
    arguments = ("run", "--execution-time", "2026-01-02 00:00:00")
    return project.command(*arguments, extras=extras([ORDERS, TOTALS, VIEW], adopt=True))


def audit_only(project: ProjectCopy) -> Finished:
    return project.command("audit", extras=extras([ORDERS], standalone_audits=TOTALS_AGREE))


def restarted(project: ProjectCopy) -> Finished:
    (project.path / "models" / "replans.py").write_text(_REPLANS)
    project.plan()
    return project.run(extras=extras(selection="all"))


def unplanned_skipped(project: ProjectCopy) -> Finished:
    return project.run(
        "--row-counts", extras=extras([ORDERS, '"orders"."marts"."added"'], unplanned="skip")
    )


def external_audits(project: ProjectCopy) -> Finished:
    """One audit of the external model fails without blocking, and one breaks."""
    external_models = project.path / "external_models.yaml"
    first_columns = "    amount: TEXT\n"
    external_models.write_text(
        external_models.read_text().replace(first_columns, first_columns + _EXTERNAL_AUDITS)
    )
    project.plan()
    project.sql("UPDATE raw.orders SET id = -1, amount = 'many' WHERE id = 5")
    checks = {POSITIVE_ID: "assert_positive", POSITIVE_CAST: "assert_positive_0cd1e2ef"}
    return project.run(
        extras=extras(
            [ORDERS],
            externals={RAW_ORDERS: {"asset_key": "external/orders/raw/orders", "checks": checks}},
        )
    )


_REPLANS: Final = """\
from sqlmesh import model

@model("marts.replans", kind="FULL", columns={"id": "int"}, depends_on=["staging.orders"])
def execute(context, start, end, execution_time, **kwargs):
    if execution_time.day == 5:  # in the run, not when it is planned
        context.engine_adapter.execute(
            "UPDATE sqlmesh._environments SET plan_id = 'another', previous_plan_id = plan_id"
        )
    yield from ()
"""

_EXTERNAL_AUDITS: Final = """\
  audits:
  - {name: assert_positive, column: id}
  - {name: assert_positive, column: "CAST(amount AS INT)"}
"""

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
        models_recorded,
        models_recorded_and_nothing_due,
        audit_only,
        restarted,
        unplanned_skipped,
        external_audits,
    )
}


def golden(scenario: str) -> Messages:
    """Read a golden stream."""
    messages: Messages = json.loads(path_of(scenario).read_text())
    return messages


def write_golden(scenario: str, messages: Messages) -> None:
    """Write a golden stream so that a difference can be read: what fits a line is on one."""
    path_of(scenario).write_text(_readable(messages) + "\n")


def path_of(scenario: str) -> Path:
    return DIRECTORY / "golden" / f"{scenario}.json"


def _readable(value: Any, indent: int = 0) -> str:
    line = json.dumps(value)
    if (indent and len(line) + indent <= _LONGEST_LINE) or not isinstance(value, dict | list):
        return line
    space = " " * (indent + 1)
    if isinstance(value, list):
        items = [f"{space}{_readable(item, indent + 1)}" for item in value]
        return "\n".join(["[", ",\n".join(items), f"{' ' * indent}]"])
    items = [
        f"{space}{json.dumps(key)}: {_readable(item, indent + 1)}" for key, item in value.items()
    ]
    return "\n".join(["{", ",\n".join(items), f"{' ' * indent}}}"])


def normalised(messages: Iterable[Mapping[str, Any]]) -> Messages:
    """Replace what differs from run to run, and leave the messages' numbers out."""
    return [
        {key: _normal(item, key) for key, item in message.items() if key != "seq"}
        for message in messages
    ]


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
        value = re.sub(
            r"__\d{6,}\b", "__3333333333", value
        )  # the version in a physical table's name
        return re.sub(
            r"(?<=Next run will be ready at ).*", "2026-01-06 12:00AM UTC.", value
        )  # SQLMesh takes the real time for now
    return value
