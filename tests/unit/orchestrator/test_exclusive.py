"""Steps take turns at an environment: real runs in threads, over a real instance."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from unit.orchestrator.shop import Make

from dagster_sqlmesh_pipes._exclusive import environment_key, exclusive
from dagster_sqlmesh_pipes.errors import ConcurrentRunError
from dagster_sqlmesh_pipes.project import SQLMeshProject
from dagster_sqlmesh_pipes.testing import FakeLauncher

KEY = "shop/duckdb/prod"
PATIENCE = 20  # seconds; a test that waits as long has failed


class Run(threading.Thread):
    """A Dagster run whose step enters the environment, and stays there until it is let go."""

    def __init__(self, instance: dg.DagsterInstance, key: str = KEY, *, tags: dict[str, str] | None = None, **options: Any) -> None:
        super().__init__(daemon=True)
        self.entered, self.may_leave = threading.Event(), threading.Event()
        self.run_id = ""
        self.error: BaseException | None = None
        self._instance, self._key, self._tags, self._options = instance, key, tags, options
        self.start()

    def run(self) -> None:
        @dg.op
        def step(context: dg.OpExecutionContext) -> None:
            self.run_id = context.run.run_id
            with exclusive(context, self._key, poll_interval=0.01, **self._options):
                self.entered.set()
                assert self.may_leave.wait(PATIENCE)

        @dg.job
        def enter() -> None:
            step()

        try:
            enter.execute_in_process(instance=self._instance, tags=self._tags)
        except BaseException as exc:  # noqa: BLE001 - looked at by the test
            self.error = exc

    def is_in(self) -> bool:
        """Wait until it has entered, or failed."""
        until(lambda: self.entered.is_set() or self.error)
        if self.error and not isinstance(self.error, ConcurrentRunError):
            raise self.error
        return self.entered.is_set()

    def leave(self) -> None:
        self.may_leave.set()
        self.join(PATIENCE)
        assert not self.is_alive()
        assert self.error is None


@pytest.fixture
def enter(instance: dg.DagsterInstance) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def start(*args: Any, **options: Any) -> Run:
        runs.append(Run(instance, *args, **options))
        return runs[-1]

    yield start
    for run in runs:
        run.may_leave.set()
    for run in runs:
        run.join(PATIENCE)


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition on what other threads write."""
    ticker = threading.Event()
    for _ in range(PATIENCE * 50):
        if condition():
            return
        ticker.wait(0.02)
    raise AssertionError


def waiting_messages(instance: dg.DagsterInstance, run: Run) -> list[str]:
    return [log.message for log in instance.all_logs(run.run_id) if "Waiting for run" in log.message] if run.run_id else []


def test_a_second_run_waits_for_the_first_and_says_for_which(instance: dg.DagsterInstance, enter: Callable[..., Run]) -> None:
    first = enter()
    assert first.is_in()
    second = enter()
    until(lambda: waiting_messages(instance, second))
    assert not second.entered.is_set()
    first.leave()
    assert second.is_in()
    second.leave()
    (message,) = waiting_messages(instance, second)
    assert first.run_id in message
    assert "run monitoring" in message


def test_a_run_that_is_not_to_wait_fails_with_the_other_s_id(enter: Callable[..., Run]) -> None:
    first = enter()
    assert first.is_in()
    second = enter(on_conflict="fail")
    second.join(PATIENCE)
    assert isinstance(second.error, ConcurrentRunError)
    assert f"run {first.run_id} is at work on the SQLMesh environment {KEY}" in str(second.error)
    assert not second.entered.is_set()


def test_waiting_ends_with_an_error_after_the_timeout(enter: Callable[..., Run]) -> None:
    first = enter()
    assert first.is_in()
    second = enter(timeout=0.05)
    second.join(PATIENCE)
    assert isinstance(second.error, ConcurrentRunError)


def test_runs_on_different_environments_do_not_wait_for_each_other(enter: Callable[..., Run]) -> None:
    first, second = enter(), enter("shop/duckdb/dev")
    assert first.is_in()
    assert second.is_in()


def test_as_many_runs_as_the_limit_says_are_in_at_a_time(enter: Callable[..., Run]) -> None:
    first, second = enter(limit=2), enter(limit=2)
    assert first.is_in()
    assert second.is_in()
    third = enter(limit=2, on_conflict="fail")
    third.join(PATIENCE)
    assert isinstance(third.error, ConcurrentRunError)
    assert first.run_id in str(third.error)
    assert second.run_id in str(third.error)


def test_a_run_that_has_ended_without_leaving_is_in_nobody_s_way(instance: dg.DagsterInstance, enter: Callable[..., Run]) -> None:
    dead = enter()
    assert dead.is_in()
    run = instance.get_run_by_id(dead.run_id)
    assert run
    instance.report_run_canceled(run)  # what terminating by force does to a run whose process is gone
    second = enter(on_conflict="fail")
    assert second.is_in()


def test_a_run_that_re_executes_another_does_not_take_its_turn_over(instance: dg.DagsterInstance, enter: Callable[..., Run]) -> None:
    first = enter()
    assert first.is_in()
    run = instance.get_run_by_id(first.run_id)
    assert run
    first.leave()

    @dg.job
    def somebodys() -> None: ...

    tags = {**run.tags, "sqlmesh/exclusive": "true", "sqlmesh/turn/step": f"1 {first.run_id} {KEY}"}
    instance.create_run_for_job(somebodys, status=dg.DagsterRunStatus.STARTED, tags=tags)
    second = enter(on_conflict="fail", tags=tags)
    assert second.is_in()


def test_a_run_at_work_can_be_found_by_its_environment(instance: dg.DagsterInstance, enter: Callable[..., Run]) -> None:
    first = enter()
    assert first.is_in()
    (record,) = instance.get_run_records(dg.RunsFilter(tags={"sqlmesh/environment": KEY}))
    assert record.dagster_run.run_id == first.run_id


def test_of_many_runs_that_come_at_once_never_two_are_in(instance: dg.DagsterInstance) -> None:
    inside: list[str] = []
    most = 0
    barrier = threading.Barrier(4)
    errors: list[BaseException] = []

    @dg.op
    def step(context: dg.OpExecutionContext) -> None:
        nonlocal most
        barrier.wait(PATIENCE)
        for _ in range(3):
            with exclusive(context, KEY, poll_interval=0.001):
                inside.append(context.run.run_id)
                most = max(most, len(inside))
                context.instance.get_run_records(limit=1)  # gives the others time to come in
                most = max(most, len(inside))
                inside.remove(context.run.run_id)

    @dg.job
    def enter() -> None:
        step()

    def execute() -> None:
        try:
            enter.execute_in_process(instance=instance)
        except BaseException as exc:  # noqa: BLE001 - looked at by the test
            errors.append(exc)

    threads = [threading.Thread(target=execute, daemon=True) for _ in range(barrier.parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE * 3)
    assert not errors
    assert most == 1


def test_a_function_called_without_a_run_is_not_kept_out() -> None:
    entered = False
    with exclusive(dg.build_asset_context(), KEY):
        entered = True
    assert entered


def test_the_key_is_the_same_wherever_the_project_is(tmp_path: Path) -> None:
    here, there = (SQLMeshProject([tmp_path / place / "shop"], gateway="duckdb") for place in ("here", "there"))
    assert environment_key(here) == environment_key(there) == KEY
    assert environment_key(here, "dev") == "shop/duckdb/dev"


def test_a_lock_key_takes_the_place_of_the_folder_s_name_and_the_gateway(make_resource: Make) -> None:
    here, there = (make_resource(FakeLauncher(), project_dir=folder, lock_key="warehouse") for folder in ("/one/shop", "/two/models"))
    assert here.exclusive_key() == there.exclusive_key() == "warehouse/prod"
    assert here.exclusive_key("dev") == "warehouse/dev"
    assert make_resource(FakeLauncher(), project_dir="/one/shop").exclusive_key() == KEY


def test_runs_of_two_projects_in_folders_of_one_name_do_not_wait_for_each_other_with_lock_keys(enter: Callable[..., Run]) -> None:
    first, second = (enter(environment_key(SQLMeshProject(["shop"]), lock_key=lock_key)) for lock_key in ("sales", "stock"))
    assert first.is_in()
    assert second.is_in()
