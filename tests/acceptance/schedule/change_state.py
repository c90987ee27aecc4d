"""Change a project's state by SQLMesh's own API, in the runner's environment.

Each round changes each of four models once, and writes a line of JSON: what was done with each, and
the document that `sqlmesh-runner state` writes then. The first line is the state before.
"""

import json
import random
import sys
from pathlib import Path
from typing import Any

from sqlmesh.utils.date import now_timestamp

from sqlmesh_runner.commands.state import _document  # `main` opens the project each time
from sqlmesh_runner.options import StateOptions
from sqlmesh_runner.sqlmesh_api.console import SilentConsole
from sqlmesh_runner.sqlmesh_api.context import open_project

ROUNDS = 50
DAY = 24 * 60 * 60 * 1000  # milliseconds


class Model:
    """A model's recorded days, as numbers, and its snapshot."""

    def __init__(self, snapshot: Any, state: Any) -> None:
        self.snapshot = snapshot
        self.state = state
        self.days = {
            day // DAY for start, end in snapshot.intervals for day in range(start, end, DAY)
        }

    def record(self, day: int, at: int) -> None:
        self.days.add(day)
        start = day * DAY
        self.state.add_interval(self.snapshot, start, start + DAY, last_altered_ts=at)

    def remove(self, day: int) -> None:
        self.days.remove(day)
        start = day * DAY
        self.state.remove_intervals([(self.snapshot, (start, start + DAY))])

    def removable(self, chance: random.Random) -> int:
        """Return the first day, the last, or one whose removal makes a gap."""
        first, last = min(self.days), max(self.days)
        inner = [day for day in sorted(self.days) if {day - 1, day + 1} <= self.days]
        return chance.choice([first, last, chance.choice(inner)])

    def missing(self) -> list[int]:
        """Return the days of the gaps, and the next day."""
        return [*sorted({*range(min(self.days), max(self.days))} - self.days), max(self.days) + 1]


def change(model: Model, chance: random.Random, at: int) -> str | None:
    """Record a day, remove one, or compact the state, which changes nothing."""
    match chance.randrange(5):
        case 0 | 1:
            model.record(chance.choice(model.missing()), at)
            return "Materialization"
        case 2 | 3:
            model.remove(model.removable(chance))
            return "Observation"
    model.state.compact_intervals()
    return None


def main() -> None:
    options = StateOptions(project_dir=(Path(sys.argv[1]),))
    with open_project(options, console=SilentConsole()) as context:
        before = _document(context, options)  # it opens the state
        state = context.state_sync
        environment = state.get_environment("prod")
        assert environment is not None
        snapshots = state.get_snapshots(environment.snapshots).values()
        models = [Model(snapshot, state) for snapshot in snapshots]
        planned = {model.snapshot.model.view_name: "Materialization" for model in models}
        print(json.dumps({"done": planned, "document": before}))
        chance, began = random.Random(9), now_timestamp()
        for number in range(ROUNDS):
            done = {
                model.snapshot.model.view_name: change(model, chance, began + number)
                for model in models
            }
            document = _document(context, options)
            print(json.dumps({"done": done, "document": document}))


if __name__ == "__main__":
    main()
