"""Dagster's own lock of runs: one step at a time works on a SQLMesh project, in one instance.

SQLMesh has no lock on a run, and two runs at once double rows, also in different environments: what
both have in common is one table. The runner takes a lock on the state, which holds wherever a run
is started, but on some engines only, and takes a process or a pod that waits
(docs/explanation/concurrency.md). This lock lets steps in by their order, shows in Dagster who
waits for whom, and starts no runner before its turn.

Dagster's own limits need settings of the instance (pools, tag limits), or don't hold on SQLite
(concurrency slots rely on SELECT … FOR UPDATE). So steps draw tickets, by Lamport's bakery
algorithm, which needs nothing but reading and writing. Tickets are dynamic partitions of the
instance: the public part of its storage to which many may add at once (a run's tags are written all
together, so that two steps of one run would overwrite each other's). Tickets of runs that have
ended count for nothing, however the runs ended.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Self

import dagster as dg

from dagster_sqlmesh_pipes.contract import LOCK_TAG
from dagster_sqlmesh_pipes.errors import ConcurrentRunError
from dagster_sqlmesh_pipes.project import SQLMeshProject

__all__ = ["ADVICE", "AT_WORK", "ProjectLock", "effective_lock_key", "environment_key"]

AT_WORK = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)

ADVICE = (
    "If that run's process is gone though Dagster shows it as started, terminate it in Dagster "
    "(with force), or switch on run monitoring."
)

_REMIND_AFTER = 60.0  # seconds
_DRAWS_WITHIN = 5.0  # seconds; a step that takes longer to draw its number may have died


def effective_lock_key(project: SQLMeshProject, *, lock_key: str | None = None) -> str:
    """Return the key of a project's lock: `lock_key`, else the first folder's name and the gateway.

    Code locations that run one project must agree on it, so a folder's name counts and not its
    path. Environments don't count: what they have in common is one table.
    """
    if lock_key is not None:
        return lock_key
    name = PurePath(project.project_dirs[0]).name if project.project_dirs else "sqlmesh"
    return f"{name}/{project.gateway or project.manifest().gateway or 'default'}"


def environment_key(lock_key: str, environment: str) -> str:
    """Return the name of what a run works on: its lock's key, and the environment."""
    return f"{lock_key}/{environment}"


@dataclass(frozen=True, order=True)
class _Ticket:
    number: int
    """0 while it is being drawn."""
    run_id: str
    step_key: str

    @classmethod
    def parse(cls, text: str) -> Self:
        number, run_id, step_key = text.split(" ", 2)
        return cls(int(number), run_id, step_key)

    def __str__(self) -> str:
        return f"{self.number} {self.run_id} {self.step_key}"

    def has_holder_of(self, other: "_Ticket") -> bool:
        return (self.run_id, self.step_key) == (other.run_id, other.step_key)


class ProjectLock:
    """Keep other steps with the same key out, in this and all other runs of the instance.

    A context manager. Steps get the lock in the order in which they asked for it.

    Args:
        context: the step's context.
        key: the lock's key: `project/gateway`.
        tags: further tags for the run, which name what it works on.
        limit: how many steps may hold the lock at a time. Above 1, two runs may double rows.
        timeout: seconds to wait at most: 0 fails at once, None waits as long as it takes.
        poll_interval: seconds between looks at the other runs.

    Raises:
        ConcurrentRunError: other steps were still before this one after `timeout`; names their
            runs. Or this run was ended while it waited.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext | dg.OpExecutionContext,
        key: str,
        *,
        tags: Mapping[str, str] | None = None,
        limit: int = 1,
        timeout: float | None = None,
        poll_interval: float = 1.0,
    ) -> None:
        step = getattr(context, "op_execution_context", context).get_step_execution_context().step
        self._instance = context.instance
        self._log = context.log
        self._key = key
        self._tags = tags or {}
        self._limit = limit
        self._timeout = timeout
        self._poll_interval = poll_interval
        self._tickets_name = f"sqlmesh/lock/{key}"
        self._ticket = _Ticket(0, context.run.run_id, step.key)

    def __enter__(self) -> Self:
        try:
            self._draw_ticket()
            self._wait()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._release()

    def _draw_ticket(self) -> None:
        self._instance.add_run_tags(self._ticket.run_id, {**self._tags, LOCK_TAG: self._key})
        self._write(self._ticket)
        drawing = self._ticket
        last = max((ticket.number for ticket in self._others()), default=0)
        self._ticket = replace(drawing, number=last + 1)
        self._write(self._ticket)
        self._erase(drawing)

    def _release(self) -> None:
        for ticket in self._tickets():  # several of this step's, if an attempt before this one died
            if ticket.has_holder_of(self._ticket):
                self._erase(ticket)

    def _wait(self) -> None:
        started, reminded = time.monotonic(), None
        while True:
            others = self._others()
            waited = time.monotonic() - started
            drawing = [ticket for ticket in others if not ticket.number]
            before = sorted(each for each in others if each.number and each < self._ticket)
            if waited >= _DRAWS_WITHIN:
                before, drawing = [*drawing, *before], []
            if not drawing and len(before) < self._limit:
                return
            if len(before) >= self._limit and self._timeout is not None and waited >= self._timeout:
                raise ConcurrentRunError(self._describe_timeout(before))
            if before and (reminded is None or waited - reminded >= _REMIND_AFTER):
                reminded = waited
                self._log.info(
                    f"Waiting for {_runs_of(before)}, which holds the lock of the SQLMesh project "
                    f"{self._key}. {ADVICE}"
                )
            time.sleep(self._poll_interval if before else min(self._poll_interval, 0.05))

    def _describe_timeout(self, before: Sequence[_Ticket]) -> str:
        waited = f" (lock_timeout: {self._timeout:g} s)" if self._timeout else ""
        return (
            f"{_runs_of(before)} holds the lock of the SQLMesh project {self._key}{waited}. Two "
            "runs at once would double rows, because SQLMesh has no lock of its own. Launch this "
            f"run again when it has ended. {ADVICE}"
        )

    def _others(self) -> list[_Ticket]:
        """Return the tickets of other steps, and erase those of runs that have ended."""
        tickets = self._tickets()
        run_ids = list({ticket.run_id for ticket in tickets})
        records = self._instance.get_run_records(
            dg.RunsFilter(run_ids=run_ids, statuses=list(AT_WORK))
        )
        at_work = {record.dagster_run.run_id for record in records}
        if self._ticket.run_id not in at_work:
            msg = (
                f"Run {self._ticket.run_id} was ended in Dagster before it had the lock of the "
                f"SQLMesh project {self._key}."
            )
            raise ConcurrentRunError(msg)
        for ticket in tickets:
            if ticket.run_id not in at_work:
                self._erase(ticket)
        return [
            ticket
            for ticket in tickets
            if ticket.run_id in at_work and not ticket.has_holder_of(self._ticket)
        ]

    def _tickets(self) -> list[_Ticket]:
        return [
            _Ticket.parse(text)
            for text in self._instance.get_dynamic_partitions(self._tickets_name)
        ]

    def _write(self, ticket: _Ticket) -> None:
        self._instance.add_dynamic_partitions(self._tickets_name, [str(ticket)])

    def _erase(self, ticket: _Ticket) -> None:
        self._instance.delete_dynamic_partition(self._tickets_name, str(ticket))


def _runs_of(tickets: Sequence[_Ticket]) -> str:
    return " and ".join(dict.fromkeys(f"run {ticket.run_id}" for ticket in tickets))
