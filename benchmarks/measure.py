"""Measure processes with all that they start, side by side, and print medians as a table."""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import duckdb

__all__ = ["Bench", "Command", "Cost", "Equal", "NotMeasured", "compare", "recorded", "reported"]

Command = Callable[[Path], Sequence[str | Path]]
"""A command, made for the project's folder in which it runs."""

Equal = tuple[Callable[[Path], object], Collection[str]]
"""What a command left, read from the project's folder, and the commands that must leave the same.
"""


class NotMeasured(SystemExit):
    """A command failed, took too long, or left something else than it must."""


# A small process in between: memory is counted from before `exec`, when a child is as large as we.
_WATCH = """
import json, os, sys, time
began = time.perf_counter()
pid = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, used = os.wait4(pid, 0)  # with all that it waited for
cpu, memory = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
with open(sys.argv[1], "w") as file:
    json.dump({"wall": time.perf_counter() - began, "cpu": cpu, "memory": memory}, file)
sys.exit(status != 0)
"""


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
    timeout: float = 3600.0  # seconds, of each process

    def run(self, *command: str | Path, cwd: Path) -> Cost:
        """Run a command to its end.

        Raises:
            NotMeasured: it failed, and its last lines are shown, or it took too long.
        """
        usage = self.folder / "usage.json"
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _WATCH, usage, *command],
                cwd=cwd,
                env=self.env,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                process.wait(self.timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise NotMeasured(f"not ended after {self.timeout:.0f} s") from None
            if process.returncode:
                output.seek(0)
                last = "".join(output.readlines()[-30:])
                raise NotMeasured(f"{' '.join(map(str, command))} failed:\n{last}")
        return Cost(**json.loads(usage.read_text()))

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


def reported(home: Path) -> Counter[str]:
    """Return the materializations and check evaluations of the last Dagster run, by asset or check.

    Args:
        home: the Dagster home of the run's instance.
    """
    with dg.DagsterInstance.from_config(str(home)) as instance:
        (run,) = instance.get_runs(limit=1)
        entries = instance.all_logs(run.run_id)
    found: Counter[str] = Counter()
    for entry in entries:
        if entry.asset_materialization is not None:
            found[f"materialization of {entry.asset_materialization.asset_key}"] += 1
        check = entry.asset_check_evaluation
        if check is not None:
            found[f"check {check.asset_key} {check.check_name} {check.passed}"] += 1
    return found


def compare(
    bench: Bench,
    title: str,
    project: Path,
    commands: Mapping[str, Command],
    *,
    repeat: int,
    equal: Sequence[Equal] = (),
    bases: Mapping[str, Collection[str]] | None = None,
    may_fail: Collection[str] = (),
) -> None:
    """Measure commands in turn, so that a busy spell of the machine hits all, and print medians.

    Args:
        bench: where, and with which environment.
        title: the table's heading.
        project: what each command gets a copy of.
        commands: by the name of their row.
        repeat: measurements of each.
        equal: what must be the same after which commands.
        bases: by the ratio's heading, the commands whose CPU seconds together are 1.0; default:
            the first one's.
        may_fail: the commands whose row says why there is no measurement.

    Raises:
        NotMeasured: a command failed, or left something else than those before it.
    """
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    reasons: dict[str, str] = {}
    first: dict[int, tuple[str, object]] = {}
    for _ in range(repeat):
        for name, command in commands.items():
            if name in reasons:
                continue
            try:
                cost, copy = bench.on_copy(project, command)
                _check_equal(name, copy, equal, first)
            except NotMeasured as exc:
                if name not in may_fail:
                    raise
                reasons[name] = str(exc).strip().splitlines()[-1]
            else:
                costs[name].append(cost)
    _print(title, costs, reasons, bases or {"ratio": [next(iter(commands))]})


def _check_equal(
    name: str, copy: Path, equal: Sequence[Equal], first: dict[int, tuple[str, object]]
) -> None:
    for number, (read, names) in enumerate(equal):
        if name in names:
            result = read(copy)
            example, expected = first.setdefault(number, (name, result))
            if result != expected:
                raise NotMeasured(f"{name} left other results than {example}")


def _print(
    title: str,
    costs: Mapping[str, Sequence[Cost]],
    reasons: Mapping[str, str],
    bases: Mapping[str, Collection[str]],
) -> None:
    cpu = {
        name: statistics.median(cost.cpu for cost in each)
        for name, each in costs.items()
        if name not in reasons
    }
    ones = [sum(cpu[name] for name in names) for names in bases.values()]
    print(f"\n| {title} | CPU s | {' | '.join(bases)} | wall s | MB |")
    print(f"|---|--:|{'--:|' * len(ones)}--:|--:|")
    for name, each in costs.items():
        if name in reasons:
            print(f"| {name} | {reasons[name]} |{' |' * (len(ones) + 2)}", flush=True)
            continue
        ratios = " | ".join(f"{cpu[name] / one:.2f}" for one in ones)
        wall = statistics.median(cost.wall for cost in each)
        memory = max(cost.memory for cost in each)
        print(f"| {name} | {cpu[name]:.1f} | {ratios} | {wall:.1f} | {memory:.0f} |", flush=True)
