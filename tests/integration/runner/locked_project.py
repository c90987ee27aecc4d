"""The project `locked_incremental` on PostgreSQL, whose models a test holds back."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from integration.runner.harness import ProjectCopy
from postgres_server import PostgresServer

__all__ = ["APPENDED", "DAYS", "DUE", "State"]

DAYS, APPENDED = '"shop"."sales"."days"', '"shop"."sales"."appended"'
DUE = 3  # days, from PLANNED_AT to RUN_AT


class State:
    """A database with a planned project, whose models a test holds back."""

    def __init__(self, server: PostgresServer, project: ProjectCopy, gate: Path) -> None:
        self._server = server
        self.project = project
        self.gate = gate

    def ask(self, query: str) -> list[Any]:
        return self._server.fetch(query, database="shop")

    def rows(self, table: str) -> tuple[int, int]:
        """Return how many rows a table has, and of how many days."""
        ((rows, days),) = self.ask(f"SELECT COUNT(*), COUNT(DISTINCT day) FROM sales.{table}")
        return rows, days

    @contextmanager
    def held_back(self) -> Iterator[Callable[[], None]]:
        """Hold what the SQL model waits for between DELETE and INSERT; give how to let it go."""
        connection = self._server.connect("shop")
        try:
            connection.cursor().execute("SELECT PG_ADVISORY_LOCK(42)")
            yield connection.close
        finally:
            connection.close()

    def waiting_models(self) -> int:
        """Count the queries that wait at that lock."""
        ((count,),) = self.ask(
            "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        )
        return int(count)

    def python_models(self) -> list[Path]:
        """Return a file for each process in which the Python model began."""
        return list(self.gate.parent.glob(f"{self.gate.stem}.[0-9]*"))

    def cut_lock(self, which: int) -> None:
        """Cut one of the two sessions that hold the runner's lock, as an administrator would."""
        sessions = self.ask(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted "
            "AND (classid, objid) <> (0, 42) ORDER BY pid"
        )
        assert len(sessions) == 2
        self.ask(f"SELECT pg_terminate_backend({sessions[which][0]})")

    def copy(self) -> ProjectCopy:
        """Return another copy of the project on the same state."""
        path = self.project.path
        return ProjectCopy(Path(shutil.copytree(path, path.parent / "other" / path.name)))
