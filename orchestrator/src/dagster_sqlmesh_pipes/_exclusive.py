"""One run at a time on a SQLMesh project's state, whoever starts it.

SQLMesh has no lock on a run, and two runs at once double rows, also in different environments: what is the same in both is one table.
Dagster's own limits need settings of the instance (pools, tag limits), or don't hold on SQLite (concurrency slots rely on SELECT … FOR
UPDATE). So steps take turns by Lamport's bakery algorithm, which needs nothing but reading and writing. A step writes its turn among the
instance's dynamic partitions: they are the public part of its storage to which many may add at once (a run's tags are written all
together, so that two steps of one run would overwrite each other's). Runs that have ended hold no turn, however they ended.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Literal

import dagster as dg

from dagster_sqlmesh_pipes._tags import EXCLUSIVE_TAG
from dagster_sqlmesh_pipes.errors import ConcurrentRunError
from dagster_sqlmesh_pipes.project import SQLMeshProject

__all__ = ["ADVICE", "AT_WORK", "OnConflict", "exclusive", "exclusive_key"]

OnConflict = Literal["wait", "fail"]

AT_WORK = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)

ADVICE = (
    "If that run's process is gone though Dagster shows it as started, terminate it in Dagster (with force), or switch on run monitoring."
)

_REMIND_AFTER = 60.0  # seconds
_CHOOSES_WITHIN = 5.0  # seconds; a step that takes longer to choose its number may have died


@dataclass(frozen=True, order=True)
class _Turn:
    number: int
    """0 while it is being chosen."""
    run_id: str
    step_key: str

    @classmethod
    def parse(cls, text: str) -> "_Turn":
        number, run_id, step_key = text.split(" ", 2)
        return cls(int(number), run_id, step_key)

    def __str__(self) -> str:
        return f"{self.number} {self.run_id} {self.step_key}"

    def is_of_step_of(self, other: "_Turn") -> bool:
        return (self.run_id, self.step_key) == (other.run_id, other.step_key)


def exclusive_key(project: SQLMeshProject, *, lock_key: str | None = None) -> str:
    """Name what runs have to themselves: `lock_key`, else the project's first folder and the gateway in effect.

    Code locations that run one project must agree on it, so a folder's name counts and not where it is. Environments don't count:
    what they have in common, SQLMesh keeps in one table.
    """
    if lock_key is not None:
        return lock_key
    name = PurePath(project.project_dirs[0]).name if project.project_dirs else "sqlmesh"
    return f"{name}/{project.gateway or project.manifest().gateway or 'default'}"


@contextmanager
def exclusive(
    context: dg.AssetExecutionContext | dg.OpExecutionContext,
    key: str,
    *,
    tags: Mapping[str, str] | None = None,
    limit: int = 1,
    on_conflict: OnConflict = "wait",
    timeout: float | None = None,
    poll_interval: float = 1.0,
) -> Iterator[None]:
    """Keep other steps that use the same key out, in this and all other runs of the instance.

    Steps are let in in the order in which they came.

    Args:
        context: the step's context.
        key: what is to be had alone: `project/gateway`.
        tags: further tags for the run, which say what it works on.
        limit: how many steps may be in at a time. Above 1, two runs may double each other's rows.
        on_conflict: `wait` for the others, or `fail` at once.
        timeout: seconds to wait at most; None: as long as it takes.
        poll_interval: seconds between looks at the other runs.

    Raises:
        ConcurrentRunError: others are ahead, and `on_conflict` or `timeout` says not to wait (any longer): names their runs. Or the run
            has been ended while it waited.
    """
    bakery = _Bakery(context, key)
    try:
        bakery.take_turn(tags or {})
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
        self._register = f"sqlmesh/turns/{key}"
        self._turn = _Turn(0, op_context.run_id, op_context.get_step_execution_context().step.key)

    def take_turn(self, tags: Mapping[str, str]) -> None:
        self._instance.add_run_tags(self._turn.run_id, {**tags, EXCLUSIVE_TAG: self._key})
        self._write(self._turn)
        choosing = self._turn
        self._turn = replace(choosing, number=1 + max((turn.number for turn in self._others()), default=0))
        self._write(self._turn)
        self._erase(choosing)

    def leave(self) -> None:
        for turn in self._turns():  # this step's own may be several, if an attempt before died
            if turn.is_of_step_of(self._turn):
                self._erase(turn)

    def wait(self, limit: int, *, give_up_after: float | None, poll_interval: float) -> None:
        began, reminded = time.monotonic(), None
        while True:
            others = self._others()
            waited = time.monotonic() - began
            choosing = [turn for turn in others if not turn.number]
            ahead = sorted(turn for turn in others if turn.number and turn < self._turn)
            if waited >= _CHOOSES_WITHIN:
                ahead, choosing = [*choosing, *ahead], []
            if not choosing and len(ahead) < limit:
                return
            if len(ahead) >= limit and give_up_after is not None and waited >= give_up_after:
                raise ConcurrentRunError(self._refusal(ahead))
            if ahead and (reminded is None or waited - reminded >= _REMIND_AFTER):
                reminded = waited
                self._log(f"Waiting for {_named(ahead)} to finish with the SQLMesh project {self._key}. {ADVICE}")
            time.sleep(poll_interval if ahead else min(poll_interval, 0.05))

    def _refusal(self, ahead: Sequence[_Turn]) -> str:
        return (
            f"{_named(ahead)} is at work on the SQLMesh project {self._key}, and SQLMesh has no lock of its own: two runs at once would "
            f"double rows. Start this run again when it has ended. {ADVICE}"
        )

    def _others(self) -> list[_Turn]:
        """Give the turns of the others, and erase those that ended runs have left."""
        turns = self._turns()
        run_ids = list({turn.run_id for turn in turns})
        records = self._instance.get_run_records(dg.RunsFilter(run_ids=run_ids, statuses=list(AT_WORK)))
        at_work = {record.dagster_run.run_id for record in records}
        if self._turn.run_id not in at_work:
            msg = f"Run {self._turn.run_id} was ended in Dagster before it had its turn at the SQLMesh project {self._key}."
            raise ConcurrentRunError(msg)
        for turn in turns:
            if turn.run_id not in at_work:
                self._erase(turn)
        return [turn for turn in turns if turn.run_id in at_work and not turn.is_of_step_of(self._turn)]

    def _turns(self) -> list[_Turn]:
        return [_Turn.parse(text) for text in self._instance.get_dynamic_partitions(self._register)]

    def _write(self, turn: _Turn) -> None:
        self._instance.add_dynamic_partitions(self._register, [str(turn)])

    def _erase(self, turn: _Turn) -> None:
        self._instance.delete_dynamic_partition(self._register, str(turn))


def _named(turns: Sequence[_Turn]) -> str:
    return " and ".join(dict.fromkeys(f"run {turn.run_id}" for turn in turns))
