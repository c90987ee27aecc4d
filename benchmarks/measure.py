"""Measure processes with all that they start, side by side, and print medians as a table."""

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

__all__ = ["Bench", "Command", "Cost", "compare", "recorded"]

Command = Callable[[Path], Sequence[str | Path]]
"""A command, made for the project's folder in which it runs."""


@dataclass(frozen=True)
class Cost:
    """What a process and all that it started took."""

    wall: float  # seconds
    cpu: float  # seconds, user and system
    memory: float  # MB, of the largest process


@dataclass(frozen=True)
class Bench:
    """A folder for projects, and the environment of the processes that are compared."""

    folder: Path
    env: Mapping[str, str]

    def run(self, *command: str | Path, cwd: Path) -> Cost:
        """Run a command to its end.

        Raises:
            SystemExit: it failed; its last lines are shown.
        """
        with tempfile.TemporaryFile("w+") as output:
            began = time.perf_counter()
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=cwd,
                env=self.env,
                stdout=output,
                stderr=output,
            )
            _, status, used = os.wait4(process.pid, 0)  # with all that it waited for
            wall = time.perf_counter() - began
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                output.seek(0)
                last = "".join(output.readlines()[-30:])
                raise SystemExit(f"{' '.join(map(str, command))} failed:\n{last}")
        return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)

    def on_copy(self, planned: Path, command: Command) -> tuple[Cost, Path]:
        """Run a command on a copy of a project, at a path of the same length each time."""
        copy = self.folder / "copy" / planned.name
        shutil.rmtree(copy.parent, ignore_errors=True)
        shutil.copytree(planned, copy)
        return self.run(*command(copy), cwd=copy), copy


def recorded(project: Path) -> object:
    """Return what SQLMesh recorded in a project's DuckDB file, and the rows of each view.

    Two ways to run a project are compared only if they left the same.
    """
    with duckdb.connect(str(project / "bench.db"), read_only=True) as connection:
        intervals = connection.execute(
            "SELECT name, version, MIN(start_ts), MAX(end_ts) FROM sqlmesh._intervals "
            "WHERE NOT is_removed GROUP BY ALL ORDER BY ALL"
        ).fetchall()
        views = connection.execute(
            "SELECT schema_name, view_name FROM duckdb_views() "
            "WHERE schema_name LIKE 'layer_%' ORDER BY ALL"
        ).fetchall()
        rows = [
            connection.execute(f'SELECT COUNT(*) FROM "{schema}"."{view}"').fetchone()
            for schema, view in views
        ]
    return intervals, views, rows


def compare(
    bench: Bench,
    title: str,
    project: Path,
    commands: Mapping[str, Command],
    *,
    repeat: int,
    same: Sequence[str] = (),
    base: Sequence[str] = (),
) -> None:
    """Measure commands in turn, so that a busy spell of the machine hits all, and print medians.

    Args:
        bench: where, and with which environment.
        title: the table's heading.
        project: what each command gets a copy of.
        commands: by the name of their row.
        repeat: measurements of each.
        same: the commands that must leave the same intervals and rows.
        base: the commands whose CPU seconds together are 1.0; default: the first one's.

    Raises:
        SystemExit: a command failed, or two of `same` left different results.
    """
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    results: dict[str, object] = {}
    for _ in range(repeat):
        for name, command in commands.items():
            cost, copy = bench.on_copy(project, command)
            costs[name].append(cost)
            if name in same:
                results[name] = recorded(copy)
                if results[name] != results[same[0]]:
                    raise SystemExit(f"{name} left other results than {same[0]}")
    cpu = {name: statistics.median(cost.cpu for cost in each) for name, each in costs.items()}
    one = sum(cpu[name] for name in base or [next(iter(commands))])
    print(f"\n| {title} | CPU s | ratio | wall s | MB |\n|---|--:|--:|--:|--:|")
    for name, each in costs.items():
        wall = statistics.median(cost.wall for cost in each)
        memory = max(cost.memory for cost in each)
        ratio = f"{cpu[name] / one:.2f}"
        print(f"| {name} | {cpu[name]:.1f} | {ratio} | {wall:.1f} | {memory:.0f} |", flush=True)
