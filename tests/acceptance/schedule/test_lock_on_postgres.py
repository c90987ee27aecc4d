"""Two Dagster runs at once on a SQLMesh project on PostgreSQL: what becomes of its rows."""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from acceptance.local.deployment import IN_PROCESS, PROJECTS, RUNNER, Deployment, preloaded_runner
from acceptance.schedule.conftest import Database
from patience import wait_until

ROWS = "SELECT COUNT(*), COUNT(DISTINCT day) FROM sales.days"
POSTGRES_STORAGE = "storage:\n  postgres:\n    postgres_url: {url}\n"

pytestmark = pytest.mark.postgres


def deployed(
    root: Path, database: Database, *, storage: str, runner: Path = RUNNER, **resource: Any
) -> Deployment:
    """Deploy the project, planned many days ago, with Dagster's storage on SQLite or PostgreSQL."""
    project = Path(shutil.copytree(PROJECTS / "locked_incremental", root / "locked_incremental"))
    env = {
        "LOCK_PORT": str(database.port),
        "LOCK_DATABASE": database.name,
        "LOCK_GATE": str(root / "gate"),
    }
    deployment = Deployment(root=root, project=project, env=env, runner=runner)
    deployment.sqlmesh("plan", "--auto-apply", "--no-prompts", "--execution-time", "2026-01-05")
    deployment.write(**resource)
    if storage == "postgres":
        (deployment.home / "dagster.yaml").write_text(POSTGRES_STORAGE.format(url=database.url))
    with (
        deployment.instance() as instance
    ):  # two processes that make the same new tables get in each other's way
        instance.get_run_records(limit=1)
        instance.get_asset_records([dg.AssetKey("none")])
    return deployment


@contextmanager
def two_runs(
    deployment: Deployment, database: Database, *, environments: tuple[str, str] = ("prod", "prod")
) -> Iterator[None]:
    """Start two runs at once, with models held back; let them go, and wait for both to succeed."""
    commands = []
    for environment in environments:
        config = deployment.root / f"{environment}.yaml"
        ops = {"sqlmesh_prod": {"config": {"environment": environment}}}
        config.write_text(json.dumps({**IN_PROCESS, "ops": ops}))
        commands.append(
            [
                "job",
                "execute",
                "-f",
                str(deployment.definitions),
                "-j",
                "__ASSET_JOB",
                "-c",
                str(config),
            ]
        )
    paths = [deployment.root / f"run_{number}.log" for number in (1, 2)]
    with ExitStack() as stack:
        logs = [stack.enter_context(path.open("w")) for path in paths]
        with database.held():
            processes = [
                deployment.start(*command, log=log)
                for command, log in zip(commands, logs, strict=True)
            ]
            for process in processes:
                stack.callback(process.kill)
            yield
        codes = [process.wait(timeout=180) for process in processes]
        assert codes == [0, 0], "\n".join(path.read_text() for path in paths)


def waiting_messages(deployment: Deployment) -> list[str]:
    with deployment.instance() as instance:
        run_ids = [record.dagster_run.run_id for record in instance.get_run_records()]
        return [
            log.message
            for run_id in run_ids
            for log in instance.all_logs(run_id)
            if "Waiting for run" in log.message
        ]


def take_turns(
    deployment: Deployment, database: Database, *, environments: tuple[str, str]
) -> None:
    """Start two runs at once, and see one wait for the other, and every row be there once."""
    planned, _ = database.ask(ROWS)
    with two_runs(deployment, database, environments=environments):
        wait_until(database.waiting, "a model waits at the lock")
        wait_until(lambda: waiting_messages(deployment), "the other run says that it waits")
        assert database.waiting() == 1
    rows, days = database.ask(ROWS)
    assert rows == days > planned


@pytest.mark.parametrize("storage", ["sqlite", "postgres"])
def test_two_runs_at_once_write_every_row_once(
    tmp_path: Path, database: Database, storage: str
) -> None:
    deployment = deployed(tmp_path, database, storage=storage, runner=preloaded_runner())
    take_turns(deployment, database, environments=("prod", "prod"))


def test_runs_on_two_environments_take_turns(tmp_path: Path, database: Database) -> None:
    deployment = deployed(
        tmp_path,
        database,
        storage="sqlite",
        runner=preloaded_runner(),
        allowed_environments=["staging"],
    )
    deployment.sqlmesh(
        "plan",
        "staging",
        "--include-unmodified",
        "--auto-apply",
        "--no-prompts",
        "--execution-time",
        "2026-01-05",
    )
    take_turns(deployment, database, environments=("prod", "staging"))


def test_concurrency_limit_two_doubles_rows(tmp_path: Path, database: Database) -> None:
    """What `concurrency_limit` warns of: both runs delete before either has inserted."""
    deployment = deployed(
        tmp_path, database, storage="postgres", runner=preloaded_runner(), concurrency_limit=2
    )
    planned, _ = database.ask(ROWS)
    with two_runs(deployment, database):
        wait_until(lambda: database.waiting() == 2, "both models wait at the lock")
    rows, days = database.ask(ROWS)
    assert rows - planned == 2 * (days - planned)
    assert days > planned
