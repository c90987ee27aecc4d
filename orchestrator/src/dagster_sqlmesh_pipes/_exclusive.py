"""One run at a time on a SQLMesh environment, whoever starts it.

SQLMesh has no lock on a run, and two runs at once double rows. Dagster's own limits need settings of the instance (pools, tag
limits), or don't hold on SQLite (concurrency slots rely on SELECT … FOR UPDATE). So steps take turns by Lamport's bakery algorithm,
which needs nothing but reading and writing: each run writes its turn among its own tags and reads those of the others. Runs that have
ended hold no turn, however they ended.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

import dagster as dg

from dagster_sqlmesh_pipes._tags import ENVIRONMENT_TAG
from dagster_sqlmesh_pipes.errors import ConcurrentRunError
from dagster_sqlmesh_pipes.project import SQLMeshProject

__all__ = ["AT_WORK", "OnConflict", "environment_key", "exclusive"]

OnConflict = Literal["wait", "fail"]

EXCLUSIVE_TAG = "sqlmesh/exclusive"
TURN_TAG = "sqlmesh/turn/"
"""Followed by the step's key. The value: number, run id and the key it is a turn at; the number is 0 while it is being chosen."""

AT_WORK = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)

_REMIND_AFTER = 60.0  # seconds


@dataclass(frozen=True, order=True)
class _Turn:
    number: int
    run_id: str
    step_key: str


def environment_key(project: SQLMeshProject, environment: str | None = None, *, lock_key: str | None = None) -> str:
    """Name what runs have to themselves: `lock_key`, else the project's first folder and the gateway in effect; and the environment.

    Code locations that run one environment of one project must agree on it, so a folder's name counts and not where it is.
    """
    if lock_key is None:
        name = PurePath(project.project_dirs[0]).name if project.project_dirs else "sqlmesh"
        lock_key = f"{name}/{project.gateway or project.manifest().gateway or 'default'}"
    return f"{lock_key}/{environment or project.environment}"


@contextmanager
def exclusive(
    context: dg.AssetExecutionContext | dg.OpExecutionContext,
    key: str,
    *,
    limit: int = 1,
    on_conflict: OnConflict = "wait",
    timeout: float | None = None,
    poll_interval: float = 1.0,
) -> Iterator[None]:
    """Keep other steps that use the same key out, in this and all other runs of the instance.

    Steps are let in in the order in which they came. Nothing is kept out where the run is not in the instance's storage, as when an
    asset's function is called directly in a test.

    Args:
        context: the step's context.
        key: what is to be had alone: `project/gateway/environment`.
        limit: how many steps may be in at a time. Above 1, two runs may double each other's rows.
        on_conflict: `wait` for the others, or `fail` at once.
        timeout: seconds to wait at most; None: as long as it takes.
        poll_interval: seconds between looks at the other runs.

    Raises:
        ConcurrentRunError: others are ahead, and `on_conflict` or `timeout` says not to wait (any longer); names their runs.
    """
    bakery = _Bakery(context, key)
    if not bakery.is_open:
        yield
        return
    bakery.take_turn()
    try:
        bakery.wait(
            limit,
            give_up_after=0.0 if on_conflict == "fail" else timeout,
            poll_interval=poll_interval,
        )
        yield
    finally:
        bakery.leave()


class _Bakery:
    """Take turns at one key: choose a number above all others', and go when nobody has a smaller one."""

    def __init__(self, context: dg.AssetExecutionContext | dg.OpExecutionContext, key: str) -> None:
        op_context = context.op_execution_context if isinstance(context, dg.AssetExecutionContext) else context
        self._instance = context.instance
        self._log: Callable[[str], None] = context.log.info
        self._key = key
        self._run_id = op_context.run_id
        # Contexts made by `build_asset_context` have no run, and no step to ask for.
        self.is_open = self._instance.get_run_by_id(self._run_id) is not None
        self._step_key = op_context.get_step_execution_context().step.key if self.is_open else ""
        self._turn = _Turn(0, self._run_id, self._step_key)

    def take_turn(self) -> None:
        self._write(0, {EXCLUSIVE_TAG: "true", ENVIRONMENT_TAG: self._key})
        number = 1 + max((turn.number for turn in self._others()), default=0)
        self._turn = _Turn(number, self._run_id, self._step_key)
        self._write(number)

    def leave(self) -> None:
        self._instance.add_run_tags(self._run_id, {TURN_TAG + self._step_key: "over"})

    def wait(self, limit: int, *, give_up_after: float | None, poll_interval: float) -> None:
        began = reminded = None
        while True:
            others = self._others()
            choosing = [turn for turn in others if not turn.number]
            ahead = sorted(turn for turn in others if turn.number and turn < self._turn)
            if not choosing and len(ahead) < limit:
                return
            now = time.monotonic()
            began = began or now
            if len(ahead) >= limit and give_up_after is not None and now - began >= give_up_after:
                raise ConcurrentRunError(self._refusal(ahead))
            if ahead and (reminded is None or now - reminded >= _REMIND_AFTER):
                reminded = now
                self._log(f"Waiting for {_named(ahead)} to finish with the SQLMesh environment {self._key}. {_ADVICE}")
            time.sleep(poll_interval if ahead else min(poll_interval, 0.05))

    def _refusal(self, ahead: Sequence[_Turn]) -> str:
        return (
            f"{_named(ahead)} is at work on the SQLMesh environment {self._key}, and SQLMesh has no lock of its own: two runs at once would "
            f"double rows. Start this run again when it has ended. {_ADVICE}"
        )

    def _write(self, number: int, tags: Mapping[str, str] | None = None) -> None:
        value = f"{number} {self._run_id} {self._key}"
        self._instance.add_run_tags(self._run_id, {**(tags or {}), TURN_TAG + self._step_key: value})

    def _others(self) -> list[_Turn]:
        records = self._instance.get_run_records(dg.RunsFilter(tags={EXCLUSIVE_TAG: "true"}, statuses=list(AT_WORK)))
        turns = [turn for record in records for turn in _turns(record.dagster_run, self._key)]
        return [turn for turn in turns if (turn.run_id, turn.step_key) != (self._run_id, self._step_key)]


_ADVICE = (
    "If that run's process is gone though Dagster shows it as started, terminate it in Dagster (with force), or switch on run monitoring."
)


def _turns(run: dg.DagsterRun, key: str) -> Iterator[_Turn]:
    for tag, value in run.tags.items():
        if tag.startswith(TURN_TAG):
            number, _, rest = value.partition(" ")
            run_id, _, turn_at = rest.partition(" ")
            # A run that re-executes another has that one's tags: turns that are not its own.
            if run_id == run.run_id and turn_at == key:
                yield _Turn(int(number), run_id, tag.removeprefix(TURN_TAG))


def _named(turns: Sequence[_Turn]) -> str:
    return " and ".join(dict.fromkeys(f"run {turn.run_id}" for turn in turns))
