"""Run the real runner as a launcher does, on copies of projects that were planned once."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb
from dagster_pipes import encode_param
from patience import PATIENCE
from preloaded import RUNNER_MODULES, PreloadedProcess, Preloader, preloader

SQLMESH = tuple(int(part) for part in version("sqlmesh").split(".")[:2])
CAN_FORK = SQLMESH >= (0, 236)
"""The DuckDB of older releases has threads once it is imported, and aborts a fork at its end."""
PROJECTS = Path(__file__).parents[2] / "projects"
PYTHON = (sys.executable, "-W", "ignore")
RUNNER = (*PYTHON, "-m", "sqlmesh_runner")
PLANNED_AT = "2026-01-02 00:00:00"
RUN_AT = "2026-01-05 00:00:00"  # three days are due

ORDERS, TOTALS, VIEW = (
    '"orders"."staging"."orders"',
    '"orders"."marts"."totals"',
    '"orders"."marts"."totals_view"',
)
ANNOUNCED, AFTER, HEAVY = (
    '"orders"."marts"."announced"',
    '"orders"."marts"."after_announced"',
    '"orders"."marts"."heavy"',
)
STANDALONE = "assert_totals_agree"

NOT_NULL, POSITIVE_AMOUNT, POSITIVE_ID = (
    "not_null:549ef709",
    "assert_positive:56256ca0",
    "assert_positive:c334cb69",
)
ROWS, NEVER = "number_of_rows:9131ca39", "never_asked:4f53cda1"
CHECKS: Mapping[str, Mapping[str, str]] = {
    ORDERS: {
        NOT_NULL: "not_null",
        POSITIVE_AMOUNT: "assert_positive",
        POSITIVE_ID: "assert_positive_c334cb69",
    },
    TOTALS: {ROWS: "number_of_rows", NEVER: "never_asked"},
}


def asset_key(fqn: str) -> str:
    return fqn.replace('"', "").replace(".", "/")


TOTALS_AGREE = {STANDALONE: [{"asset_key": asset_key(TOTALS), "check_name": STANDALONE}]}


def extras(
    models: Iterable[str] = (ORDERS, TOTALS, VIEW, ANNOUNCED, AFTER, HEAVY),
    *,
    selection: str = "models",
    **more: Any,
) -> dict[str, Any]:
    """Return the orchestrator's extras for these models, with all their checks."""
    return {
        "protocol_version": 1,
        "selection": selection,
        "models": {
            fqn: {"asset_key": asset_key(fqn), "checks": dict(CHECKS.get(fqn, {}))}
            for fqn in models
        },
        "standalone_audits": TOTALS_AGREE if selection == "all" else {},
        **more,
    }


def pipes_context(extras: Mapping[str, Any]) -> dict[str, Any]:
    nothing = (
        "asset_keys",
        "code_version_by_asset_key",
        "provenance_by_asset_key",
        "partition_key",
        "partition_key_range",
    )
    return {
        **dict.fromkeys(nothing),
        "partition_time_window": None,
        "run_id": "run",
        "job_name": None,
        "retry_number": 0,
        "extras": extras,
    }


@dataclass(frozen=True)
class Finished:
    """What a runner left behind."""

    code: int
    messages: Sequence[Mapping[str, Any]]
    stdout: str
    stderr: str

    def params(self, method: str) -> list[dict[str, Any]]:
        return [dict(message["params"]) for message in self.messages if message["method"] == method]

    def events(self, kind: str) -> list[dict[str, Any]]:
        payloads = [params["payload"] for params in self.params("report_custom_message")]
        return [payload for payload in payloads if payload["type"] == kind]

    @property
    def end(self) -> dict[str, Any]:
        (end,) = self.events("run_finished")
        return end

    @property
    def materialized(self) -> dict[str, dict[str, Any]]:
        """Metadata by asset key."""
        reported = self.params("report_asset_materialization")
        assert len({each["asset_key"] for each in reported}) == len(reported), (
            "an asset was materialized twice"
        )
        return {each["asset_key"]: _raw(each["metadata"]) for each in reported}

    @property
    def checks(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Checks with their metadata in the same dict, by asset key and name."""
        reported = self.params("report_asset_check")
        found = {
            (each["asset_key"], each["check_name"]): {**each, **_raw(each["metadata"])}
            for each in reported
        }
        assert len(found) == len(reported), "a check was reported twice"
        return found

    def skipped(self, fqn: str) -> dict[str, Any]:
        (event,) = [event for event in self.events("model_skipped") if event["model"] == fqn]
        return event

    def failed(self, fqn: str) -> dict[str, Any]:
        (event,) = [event for event in self.events("model_failed") if event["model"] == fqn]
        return event


def _raw(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value["raw_value"] for key, value in metadata.items()}


class ProjectCopy:
    """A project of one test's own."""

    def __init__(self, path: Path, database: str = "orders.duckdb") -> None:
        self.path = path
        self.database = path / database

    def sql(self, statement: str) -> list[Any]:
        """Run SQL on the DuckDB database, which no runner may have open meanwhile."""
        connection = duckdb.connect(str(self.database))
        try:
            rows: list[Any] = connection.execute(statement).fetchall()
            return rows
        finally:
            connection.close()

    def plan(self, *arguments: str) -> str:
        return sqlmesh(
            self.path,
            "plan",
            "--auto-apply",
            "--no-prompts",
            "--skip-tests",
            "--execution-time",
            PLANNED_AT,
            *arguments,
        )

    @contextmanager
    def start(
        self, *arguments: str, extras: Mapping[str, Any] | None = None, **options: Any
    ) -> "Iterator[Running]":
        running = Running(self.path, arguments, extras, **options)
        try:
            yield running
        finally:
            running.kill()

    def run(
        self, *arguments: str, extras: Mapping[str, Any] | None = None, **options: Any
    ) -> Finished:
        with self.start(
            "run", "--execution-time", RUN_AT, *arguments, extras=extras, **options
        ) as running:
            return running.finish()

    def command(
        self, *arguments: str, extras: Mapping[str, Any] | None = None, **options: Any
    ) -> Finished:
        with self.start(*arguments, extras=extras, **options) as running:
            return running.finish()


def runner_preloader() -> Preloader:
    """Return the process from which SQLMesh and the runner are started."""
    return preloader(PYTHON, RUNNER_MODULES)


class Running:
    """A runner at work, whose messages can be waited for."""

    def __init__(
        self,
        cwd: Path,
        arguments: Sequence[str],
        extras: Mapping[str, Any] | None,
        *,
        environ: Mapping[str, str] | None = None,
        messages: Mapping[str, str] | None = None,
        command: Sequence[str] = RUNNER,
    ) -> None:
        self._reading, writing = os.pipe()
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", **(environ or {})}
        if extras is not None:
            context = cwd.parent / "pipes-context.json"
            context.write_text(json.dumps(pipes_context(extras)))
            env.setdefault("DAGSTER_PIPES_CONTEXT", encode_param({"path": str(context)}))
            env["DAGSTER_PIPES_MESSAGES"] = encode_param(messages or {"path": f"/dev/fd/{writing}"})
        self._errors = (cwd.parent / "stderr.txt").open("w+")
        self._output = (cwd.parent / "stdout.txt").open("w+")
        program = [*command, *arguments]
        options: dict[str, Any] = {"cwd": cwd, "env": env, "pass_fds": (writing,)}
        options |= {"stdout": self._output, "stderr": self._errors}
        self.process: subprocess.Popen[bytes] | PreloadedProcess
        if command == RUNNER and environ is None and CAN_FORK:
            self.process = runner_preloader().popen(program[len(PYTHON) :], **options)
        else:  # what is read on import may differ
            self.process = subprocess.Popen(program, stdin=subprocess.PIPE, **options)
        os.close(writing)
        self._alarm = threading.Timer(
            PATIENCE, self.process.kill
        )  # ends what waits for its messages
        self._alarm.start()
        self._pipe = os.fdopen(self._reading, encoding="ascii")
        self.messages: list[dict[str, Any]] = []

    def wait_for(self, kind: str, model: str) -> None:
        """Read messages until an event of a model is among them."""

        def is_it(message: Mapping[str, Any]) -> bool:
            payload = message["params"].get("payload") or {}
            return payload.get("type") == kind and payload.get("model") == model

        self._read_until(is_it, f"{kind} of {model}")

    def wait_for_log(self, text: str) -> None:
        """Read messages until one that logs the text is among them."""
        self._read_until(
            lambda message: message["method"] == "log" and text in message["params"]["message"],
            repr(text),
        )

    def _read_until(self, is_it: Callable[[Mapping[str, Any]], bool], what: str) -> None:
        if any(map(is_it, self.messages)):
            return
        for line in self._pipe:
            self.messages.append(json.loads(line))
            if is_it(self.messages[-1]):
                return
        raise AssertionError(f"the runner ended without {what}: {self._read(self._errors)}")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def close_stdin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def finish(self) -> Finished:
        """Read to the end of the messages, then wait for the process."""
        self.messages += [json.loads(line) for line in self._pipe]
        code = self.process.wait()
        return Finished(code, self.messages, self._read(self._output), self._read(self._errors))

    def _read(self, file: Any) -> str:
        file.seek(0)
        text: str = file.read()
        return text

    def kill(self) -> None:
        self._alarm.cancel()
        self.process.kill()
        self.process.wait()
        for file in (self._pipe, self._errors, self._output, self.process.stdin):
            if file is not None:
                file.close()


def sqlmesh(cwd: Path, *arguments: str, code: int = 0) -> str:
    """Run SQLMesh's own command line, which must end with `code`."""
    env = {
        **os.environ,
        "PYTHONDONTWRITEBYTECODE": "",
        "SQLMESH__DISABLE_ANONYMIZED_ANALYTICS": "true",
        "MAX_FORK_WORKERS": "1",
    }
    options: dict[str, Any] = {"cwd": cwd, "env": env, "timeout": PATIENCE}
    if CAN_FORK:
        done = runner_preloader().run(["sqlmesh", *arguments], **options)
    else:
        program = [str(Path(sys.executable).with_name("sqlmesh")), *arguments]
        done = subprocess.run(program, capture_output=True, text=True, check=False, **options)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def run_without_the_runner(project: ProjectCopy) -> None:
    """Do what `sqlmesh run` does, which has no option for the execution time."""
    code = (
        "from sqlmesh import Context; context = Context(paths=['.'], load=False); "
        f"context.run(execution_time={RUN_AT!r}); context.close()"
    )
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=project.path,
        check=True,
        capture_output=True,
    )


def plan_kinds(path: Path) -> Path:
    """Plan a copy of the project `model_kinds`, over eight orders of four days, and return it."""
    project = ProjectCopy(path, "model_kinds.duckdb")
    project.sql("""
        CREATE SCHEMA raw;
        CREATE TABLE raw.orders AS
        SELECT i::INT AS id, ['ann', 'bob'][i::INT % 2 + 1] AS customer, i::INT AS amount,
               DATE '2026-01-01' + (i::INT - 1) % 4 AS ordered_at,
               TIMESTAMP '2026-01-01' AS updated_at
        FROM UNNEST(GENERATE_SERIES(1, 8)) AS numbers(i);
    """)
    project.plan()
    return path


def planned_orders(directory: Path) -> Path:
    """Make the project `orders`: 15 orders on five days, planned after the first day."""
    path = directory / "orders"
    shutil.copytree(PROJECTS / "orders", path)
    project = ProjectCopy(path)
    project.sql("""
        CREATE SCHEMA raw;
        CREATE TABLE raw.orders (id INT, ordered_at DATE, amount TEXT);
        CREATE TABLE raw.knobs (rows_to_make BIGINT);
        INSERT INTO raw.knobs VALUES (10);
        INSERT INTO raw.orders
        SELECT i + 1, DATE '2026-01-01' + (i // 3)::INT, i + 1
        FROM (SELECT UNNEST(GENERATE_SERIES(0, 14)) AS i);
    """)
    project.plan()
    return path
