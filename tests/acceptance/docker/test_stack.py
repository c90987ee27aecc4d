"""The images and the Compose stack: what the README promises, and what happens when parts of it
die.

The tests share one stack, and each runs the shop some days later than the one before, so that there
is something to do.
"""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import docker
import pytest
from acceptance.docker.stack import NAME, ROOT, Stack, wait_until
from docker.models.containers import Container

from dagster_sqlmesh_pipes.launchers.docker import DockerLauncher
from dagster_sqlmesh_pipes.launchers.labels import KEEP_LABEL
from dagster_sqlmesh_pipes.project import SQLMeshProject

pytestmark = pytest.mark.docker

DAYS_AHEAD = itertools.count(1)
RUNNER_IMAGE = f"{NAME}-runner"
HISTORY = "shop/marts/customer_history"  # reads raw.customers, and has something to do every day


@pytest.fixture(scope="module")
def stack(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("stack"))
    for container in containers(engine):  # of a session that was killed: they hold the network
        container.remove(force=True)
    stack.compose("down", "--volumes", "--remove-orphans")
    try:
        stack.compose("build", "--quiet", timeout=900)
        stack.compose("up", "--wait", timeout=300)
        yield stack
        assert runners(engine) == []
    finally:
        for container in runners(engine):
            container.remove(force=True)
        stack.compose("down", "--volumes", "--timeout", "5")


def containers(engine: docker.DockerClient, **options: Any) -> list[Container]:
    """Return the containers that are in this stack's network, at work or not."""
    found = engine.containers.list(all=True, ignore_removed=True, **options)
    return [
        container
        for container in found
        if f"{NAME}_default" in container.attrs["NetworkSettings"]["Networks"]
    ]


def runners(engine: docker.DockerClient) -> list[Container]:
    """Return the runners that are on the engine for this stack, at work or not."""
    return containers(engine, filters={"label": KEEP_LABEL})


def run_worker(engine: docker.DockerClient, run_id: str) -> Container:
    (worker,) = [
        container
        for container in engine.containers.list(filters={"label": f"dagster/run_id={run_id}"})
        if KEEP_LABEL not in container.labels
    ]
    return worker


def test_images_hold_one_world_each_without_root(stack: Stack, engine: docker.DockerClient) -> None:
    asked = (
        "import importlib.util as u, os; "
        "print(*(bool(u.find_spec(n)) for n in ('dagster', 'sqlmesh', 'sqlglot')), os.getuid())"
    )
    assert (
        engine.containers.run(RUNNER_IMAGE, ["-c", asked], entrypoint="python", remove=True)
        == b"False True True 10001\n"
    )
    assert (
        engine.containers.run(f"{NAME}-dagster", ["python", "-c", asked], remove=True)
        == b"True False False 10001\n"
    )


def runs_as_user(engine: docker.DockerClient, service: str) -> bool:
    """Return whether all processes of a service are the image's user's."""
    labels = [f"com.docker.compose.project={NAME}", f"com.docker.compose.service={service}"]
    (container,) = engine.containers.list(filters={"label": labels})
    processes = container.top(ps_args="-eo pid,uid,comm")["Processes"]
    return {uid for _, uid, command in processes if command != "docker-init"} == {"10001"}


def test_nothing_in_the_stack_runs_as_root(stack: Stack, engine: docker.DockerClient) -> None:
    for service in ("webserver", "daemon", "code-location"):
        # The engine enters as root to start a health check, and is the user at once.
        wait_until(partial(runs_as_user, engine, service), f"{service} has no process of root")


def test_image_makes_manifest_on_read_only_root(stack: Stack, engine: docker.DockerClient) -> None:
    confined = {
        "read_only": True,
        "tmpfs": {"/tmp": "", "/var/cache/sqlmesh": "mode=1777"},
        "network_mode": "none",
    }
    output = DockerLauncher(image=RUNNER_IMAGE, pull="never", container_kwargs=confined).run_to_end(
        ["manifest"]
    )
    manifest = json.loads(output)
    assert manifest["schema_version"] == 1
    assert {model["name"] for model in manifest["models"]} >= {
        "staging.events",
        "marts.customer_history",
    }


def test_documented_command_writes_manifest(stack: Stack, tmp_path: Path) -> None:
    (command,) = [
        line.removeprefix("$ ")
        for line in (ROOT / "docs" / "how-to" / "docker.md").read_text().splitlines()
        if line.endswith("> manifest.json")
    ]
    command = command.replace("warehouse-runner:1", RUNNER_IMAGE)
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert "marts.daily_revenue" in {model["name"] for model in manifest["models"]}


def test_manifest_of_changed_mounted_project_is_stale(stack: Stack, tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    shutil.copytree(
        ROOT / "examples" / "shop",
        folder,
        ignore=shutil.ignore_patterns("*.db*", "logs", ".*", "__pycache__"),
    )
    launcher = DockerLauncher(
        image=RUNNER_IMAGE,
        pull="never",
        volumes=[f"{folder}:{folder}:ro"],
        user=f"{os.getuid()}:{os.getgid()}",
    )
    project = SQLMeshProject(folder, launcher=launcher)
    project.prepare()
    assert not project.is_stale()
    (folder / "models" / "new.sql").write_text("MODEL (name staging.new); SELECT 1 AS one")
    assert project.is_stale()
    project.prepare()
    assert "staging.new" in {model.name for model in project.manifest().models.values()}


def test_run_from_ui_changes_the_warehouse(stack: Stack, engine: docker.DockerClient) -> None:
    before = int(stack.sql("SELECT count(*) FROM marts.customer_history")[0])
    # Written at five to, the raw events would cover an hour whole that the plan had not yet seen.
    stack.sql(
        "DELETE FROM raw.events WHERE occurred_at >= "
        "(SELECT date_trunc('hour', MAX(occurred_at)) FROM raw.events)"
    )
    run = stack.launch(days_ahead=next(DAYS_AHEAD))
    assert stack.wait_for_end(run) == "SUCCESS", stack.failure(run)
    assert {HISTORY, "shop/staging/events"} <= stack.materialized(run)
    verdicts = stack.checks(run)
    assert verdicts[f"{HISTORY}:not_null"] is True
    assert (
        "shop/marts/product_sales:every_product_sells" not in verdicts
    )  # its signal says that the raw data are not there yet
    assert int(stack.sql("SELECT count(*) FROM marts.customer_history")[0]) >= before
    assert stack.sql("SELECT count(*) > 0 FROM sqlmesh._intervals", database="sqlmesh_state") == [
        "t"
    ]
    assert stack.sql(f"SELECT status FROM runs WHERE run_id = '{run}'", database="dagster") == [
        "SUCCESS"
    ]
    assert runners(engine) == []


def test_cancelled_run_stops_runner_and_query(stack: Stack, engine: docker.DockerClient) -> None:
    with stack.locked("raw.customers") as somebody_waits:
        run = stack.launch(assets=[HISTORY], days_ahead=next(DAYS_AHEAD))
        wait_until(somebody_waits, "the runner waits for the table")
        stack.terminate(run)
        assert stack.wait_for_end(run) == "CANCELED", stack.failure(run)
        wait_until(lambda: not somebody_waits(), "the query is cancelled")
    assert HISTORY not in stack.materialized(run)
    assert runners(engine) == []


def test_killed_runner_fails_its_run_with_reason(stack: Stack, engine: docker.DockerClient) -> None:
    with stack.locked("raw.customers") as somebody_waits:
        run = stack.launch(assets=[HISTORY], days_ahead=next(DAYS_AHEAD))
        wait_until(somebody_waits, "the runner waits for the table")
        (runner,) = runners(engine)
        assert runner.labels["dagster/run_id"] == run
        runner.kill()
        assert stack.wait_for_end(run) == "FAILURE"
    assert "killed from outside" in stack.failure(run)
    assert runners(engine) == []


def test_run_survives_killed_code_location(stack: Stack, engine: docker.DockerClient) -> None:
    with stack.locked("raw.customers") as somebody_waits:
        run = stack.launch(assets=[HISTORY], days_ahead=next(DAYS_AHEAD))
        wait_until(somebody_waits, "the runner waits for the table")
        stack.compose("kill", "code-location")
    assert stack.wait_for_end(run) == "SUCCESS", stack.failure(run)
    assert HISTORY in stack.materialized(run)
    stack.compose("up", "--wait", "--no-deps", "code-location", timeout=120)
    wait_until(stack.reaches_code_location, "the webserver has found the new code location")
    assert runners(engine) == []


def test_killed_run_worker_has_its_runner_removed(
    stack: Stack, engine: docker.DockerClient
) -> None:
    with stack.locked("raw.customers") as somebody_waits:
        run = stack.launch(assets=[HISTORY], days_ahead=next(DAYS_AHEAD))
        wait_until(somebody_waits, "the runner waits for the table")
        run_worker(engine, run).kill()
        assert stack.wait_for_end(run) == "FAILURE"
        wait_until(lambda: not runners(engine), "the sensor has removed the orphan")
        wait_until(lambda: not somebody_waits(), "the query is cancelled")


def test_schedule_can_be_switched_on_and_ticks(stack: Stack) -> None:
    selector = {
        "repositoryName": "__repository__",
        "repositoryLocationName": "shop",
        "scheduleName": "sqlmesh_adaptive_schedule",
    }
    tick = stack.graphql(
        "mutation ($s: ScheduleSelector!) { "
        "scheduleDryRun(selectorData: $s, timestamp: 4102444800) { "
        "__typename ... on PythonError { message } ... on DryRunInstigationTick { "
        "evaluationResult { skipReason error { message } runRequests { runKey } } } } }",
        s=selector,
    )
    assert tick["evaluationResult"]["error"] is None, tick
    assert tick["evaluationResult"]["runRequests"], tick
    result = (
        "{ __typename ... on PythonError { message } "
        "... on ScheduleStateResult { scheduleState { id status } } }"
    )
    answer = stack.graphql(
        f"mutation ($s: ScheduleSelector!) {{ startSchedule(scheduleSelector: $s) {result} }}",
        s=selector,
    )
    assert answer["scheduleState"]["status"] == "RUNNING", answer
    answer = stack.graphql(
        f"mutation ($id: String!) {{ stopRunningSchedule(id: $id) {result} }}",
        id=answer["scheduleState"]["id"],
    )
    assert answer["scheduleState"]["status"] == "STOPPED", answer


def test_only_this_machine_reaches_the_ui(
    stack: Stack,
) -> None:
    listed = [
        json.loads(line) for line in stack.compose("ps", "--format", "json").stdout.splitlines()
    ]
    published = {
        each["Service"]: {port["URL"] for port in each["Publishers"] or [] if port["PublishedPort"]}
        for each in listed
    }
    assert {service: urls for service, urls in published.items() if urls} == {
        "webserver": {"127.0.0.1"}
    }


def test_compose_without_env_file_says_what_to_do(tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        command = Stack(tmp_path).command("config")
        command[command.index("--env-file") + 1] = "/dev/null"
        done = subprocess.run(
            [*command[:2], "-f", str(Path(__file__).parents[3] / "compose.yaml"), *command[2:]],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode != 0
    assert "copy .env.example to .env" in done.stderr
