"""The lock of runs: real runs in threads, over a real instance."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from patience import PATIENCE, wait_until
from unit.orchestrator.shop import Make, step_error

from dagster_sqlmesh_pipes import sqlmesh_assets_factory
from dagster_sqlmesh_pipes.errors import ConcurrentRunError
from dagster_sqlmesh_pipes.project import SQLMeshProject
from dagster_sqlmesh_pipes.run import lock
from dagster_sqlmesh_pipes.run.lock import ProjectLock, effective_lock_key
from dagster_sqlmesh_pipes.testing import FakeLauncher

KEY = "shop/duckdb"


class Run(threading.Thread):
    """A Dagster run whose step gets the lock, and holds it until the test lets it go."""

    def __init__(
        self,
        instance: dg.DagsterInstance,
        key: str = KEY,
        *,
        tags: dict[str, str] | None = None,
        **options: Any,
    ) -> None:
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
            with ProjectLock(context, self._key, poll_interval=0.01, **self._options):
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
        wait_until(lambda: self.entered.is_set() or self.error, "the step has entered or failed")
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


def waiting_messages(instance: dg.DagsterInstance, run: Run) -> list[str]:
    return (
        [log.message for log in instance.all_logs(run.run_id) if "Waiting for run" in log.message]
        if run.run_id
        else []
    )


def test_second_run_waits_and_names_the_holder(
    instance: dg.DagsterInstance, enter: Callable[..., Run]
) -> None:
    first = enter()
    assert first.is_in()
    second = enter()
    wait_until(lambda: waiting_messages(instance, second), "the second run says that it waits")
    assert not second.entered.is_set()
    first.leave()
    assert second.is_in()
    second.leave()
    (message,) = waiting_messages(instance, second)
    assert first.run_id in message
    assert "run monitoring" in message


def test_lock_timeout_zero_fails_with_blocking_run_id(enter: Callable[..., Run]) -> None:
    first = enter()
    assert first.is_in()
    second = enter(timeout=0)
    second.join(PATIENCE)
    assert isinstance(second.error, ConcurrentRunError)
    assert f"run {first.run_id} holds the lock of the SQLMesh project {KEY}" in str(second.error)
    assert not second.entered.is_set()


def test_lock_timeout_ends_waiting_with_an_error(enter: Callable[..., Run]) -> None:
    first = enter()
    assert first.is_in()
    second = enter(timeout=0.05)
    second.join(PATIENCE)
    assert isinstance(second.error, ConcurrentRunError)


def test_runs_with_different_keys_do_not_wait(enter: Callable[..., Run]) -> None:
    first, second = enter(), enter("stock/duckdb")
    assert first.is_in()
    assert second.is_in()


def test_limit_is_the_number_of_holders(enter: Callable[..., Run]) -> None:
    first, second = enter(limit=2), enter(limit=2)
    assert first.is_in()
    assert second.is_in()
    third = enter(limit=2, timeout=0)
    third.join(PATIENCE)
    assert isinstance(third.error, ConcurrentRunError)
    assert first.run_id in str(third.error)
    assert second.run_id in str(third.error)


def test_ended_run_holds_no_lock(instance: dg.DagsterInstance, enter: Callable[..., Run]) -> None:
    dead = enter()
    assert dead.is_in()
    run = instance.get_run_by_id(dead.run_id)
    assert run
    instance.report_run_canceled(
        run
    )  # what terminating by force does to a run whose process is gone
    second = enter(timeout=0)
    assert second.is_in()


def test_tickets_of_ended_runs_are_erased(
    instance: dg.DagsterInstance, enter: Callable[..., Run]
) -> None:
    instance.add_dynamic_partitions(
        f"sqlmesh/lock/{KEY}", ["3 6a7e1b52-0000-4000-8000-000000000000 step"]
    )
    first = enter(timeout=0)
    assert first.is_in()
    first.leave()
    assert instance.get_dynamic_partitions(f"sqlmesh/lock/{KEY}") == []


def test_waiting_run_ended_by_force_gets_no_lock(
    instance: dg.DagsterInstance, enter: Callable[..., Run]
) -> None:
    first = enter()
    assert first.is_in()
    second = enter()
    wait_until(lambda: waiting_messages(instance, second), "the second run says that it waits")
    run = instance.get_run_by_id(second.run_id)
    assert run
    instance.report_run_canceled(run)
    second.join(PATIENCE)
    assert isinstance(second.error, ConcurrentRunError)
    assert f"Run {second.run_id} was ended" in str(second.error)
    assert not second.entered.is_set()


def test_step_that_died_drawing_its_number_is_waited_for(
    instance: dg.DagsterInstance, enter: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    @dg.job
    def somebodys() -> None: ...

    dead = instance.create_run_for_job(somebodys, status=dg.DagsterRunStatus.STARTED)
    instance.add_dynamic_partitions(f"sqlmesh/lock/{KEY}", [f"0 {dead.run_id} step"])
    monkeypatch.setattr(lock, "_DRAWS_WITHIN", 0.2)

    refused = enter(timeout=0)
    refused.join(PATIENCE)
    assert isinstance(refused.error, ConcurrentRunError)
    assert f"run {dead.run_id} holds the lock" in str(refused.error)

    waiting = enter()
    wait_until(lambda: waiting_messages(instance, waiting), "it says that it waits")
    assert dead.run_id in waiting_messages(instance, waiting)[0]
    instance.report_run_canceled(dead)
    assert waiting.is_in()


def test_runs_are_found_by_lock_tag(
    instance: dg.DagsterInstance, enter: Callable[..., Run]
) -> None:
    first = enter(tags={"sqlmesh/environment": "shop/duckdb/dev"})
    assert first.is_in()
    (record,) = instance.get_run_records(dg.RunsFilter(tags={"sqlmesh/lock": KEY}))
    assert record.dagster_run.run_id == first.run_id


def test_simultaneous_runs_hold_the_lock_one_by_one(instance: dg.DagsterInstance) -> None:
    inside: list[str] = []
    most = 0
    barrier = threading.Barrier(4)
    errors: list[BaseException] = []

    @dg.op
    def step(context: dg.OpExecutionContext) -> None:
        nonlocal most
        barrier.wait(PATIENCE)
        for _ in range(3):
            with ProjectLock(context, KEY, poll_interval=0.001):
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
        thread.join(PATIENCE)
    assert not errors
    assert most == 1


def test_key_does_not_depend_on_the_folder_s_path(tmp_path: Path) -> None:
    here, there = (
        SQLMeshProject([tmp_path / place / "shop"], gateway="duckdb") for place in ("here", "there")
    )
    assert effective_lock_key(here) == effective_lock_key(there) == KEY


def test_lock_key_replaces_folder_and_gateway(
    make_resource: Make,
) -> None:
    here, there = (
        make_resource(FakeLauncher(), project_dir=folder, lock_key="warehouse")
        for folder in ("/one/shop", "/two/models")
    )
    assert here.effective_lock_key() == there.effective_lock_key() == "warehouse"
    assert make_resource(FakeLauncher(), project_dir="/one/shop").effective_lock_key() == KEY


def test_environments_share_one_key(make_resource: Make) -> None:
    resource = make_resource(FakeLauncher(), project_dir="/one/shop")
    assert (resource.environment_key(), resource.environment_key("dev")) == (
        f"{KEY}/prod",
        f"{KEY}/dev",
    )


def test_lock_keys_separate_projects_of_one_name(
    enter: Callable[..., Run],
) -> None:
    first, second = (
        enter(effective_lock_key(SQLMeshProject(["shop"]), lock_key=lock_key))
        for lock_key in ("sales", "stock")
    )
    assert first.is_in()
    assert second.is_in()


@pytest.mark.parametrize("waits", [True, False])
def test_sqlmesh_run_waits_for_another_job_s_run(
    make_resource: Make, instance: dg.DagsterInstance, enter: Callable[..., Run], *, waits: bool
) -> None:
    launcher = FakeLauncher()
    assets = sqlmesh_assets_factory(
        sqlmesh_resource=make_resource(
            launcher, project_dir="/one/shop", lock_timeout=None if waits else 0
        )
    )
    first = enter()
    assert first.is_in()
    executed: list[dg.ExecuteInProcessResult] = []
    execute = threading.Thread(
        target=lambda: executed.append(
            dg.materialize(assets, instance=instance, raise_on_error=False)
        ),
        daemon=True,
    )
    execute.start()

    def waiting() -> bool:
        return any(
            "Waiting for run" in log.message
            for run in instance.get_runs()
            for log in instance.all_logs(run.run_id)
        )

    wait_until(lambda: executed or waiting(), "it waits, or has failed")
    assert launcher.requests == []
    first.leave()
    execute.join(PATIENCE)
    (result,) = executed
    assert (result.success, len(launcher.requests)) == ((True, 1) if waits else (False, 0))
    if not waits:
        assert f"run {first.run_id} holds the lock" in step_error(result)
