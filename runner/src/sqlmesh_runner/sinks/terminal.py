"""A table at the end of a run. Meanwhile, SQLMesh's own display shows the progress."""

from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sqlmesh_runner.recording import events
from sqlmesh_runner.recording.events import Event
from sqlmesh_runner.sinks.base import Sink
from sqlmesh_runner.sinks.lines import is_not_due, sentence

__all__ = ["TerminalSink"]

_STYLES = {"materialized": "green", "partly": "yellow", "failed": "red", "skipped": "yellow"}
_UNLIMITED = 10_000  # characters
_SHORTEST_NAME = 16


@dataclass
class _Row:
    outcome: str = ""
    batches: str = ""
    rows: int | None = None
    seconds: float = 0.0
    passed: int = 0
    failed: int = 0


class TerminalSink(Sink):
    """Collect each model's result, and print them when the run is over."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: dict[str, _Row] = {}
        self._not_due = 0
        self._end: events.RunFinished | None = None

    def emit(self, event: Event) -> None:
        """Update the row of the event's model, or print the runner's message."""
        self._not_due += is_not_due(event)
        match event:
            case events.ModelMaterialized():
                row = self._row(event.model)
                row.outcome = row.outcome or (
                    "materialized" if event.complete else "partly"
                )  # `failed` stays
                row.batches = f"{event.batches}/{event.batches_planned}"
                row.rows = event.row_count if event.row_count is not None else event.rows_processed
                row.seconds = event.duration
            case events.AuditFinished():
                row = self._row(event.model)
                row.passed += event.passed
                row.failed += not event.passed
            case events.ModelFailed():
                self._row(event.model).outcome = "failed"
            case events.ModelSkipped() if event.reason != "nothing_due":
                row = self._row(event.model)
                row.outcome = row.outcome or f"skipped ({event.reason.replace('_', ' ')})"
            case events.RunRestarted():
                self._rows = {
                    name: row
                    for name, row in self._rows.items()
                    if row.outcome in {"materialized", "partly"}
                }
            case events.RunnerLog():
                self._print(event.message)
            case events.RunFinished():
                self._end = event
            case _:
                pass

    def _row(self, model: str) -> _Row:
        return self._rows.setdefault(model, _Row())

    def close(self) -> None:
        """Print the table, and the outcome below it."""
        if self._rows:
            self._print_table()
        if self._end is not None:
            text = sentence(self._end, not_due=self._not_due)
            self._print(text)

    def _print(self, text: str | None) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _print_table(self) -> None:
        """Print the rows: on a terminal within its width, elsewhere as wide as they are."""
        unlimited = self._console.options.update(max_width=_UNLIMITED)
        width = self._console.measure(self._table(), options=unlimited).maximum
        if not self._console.is_terminal:
            Console(file=self._console.file, width=width).print(self._table())
            return
        longest = max(len(_plain(model)) for model in self._rows)
        room = longest - max(0, width - self._console.width)
        self._console.print(self._table(names_within=max(room, _SHORTEST_NAME)))

    def _table(self, *, names_within: int = _UNLIMITED) -> Table:
        table = Table(box=None, header_style="bold")
        table.add_column("Model", no_wrap=True)
        table.add_column("Outcome")
        for heading in ("Batches", "Rows", "Seconds", "Audits"):
            table.add_column(heading, justify="right")
        for model, row in sorted(self._rows.items()):
            style = _STYLES.get(row.outcome.partition(" ")[0], "")
            audits = f"{row.passed} passed" + (
                f", [red]{row.failed} failed[/red]" if row.failed else ""
            )
            table.add_row(
                escape(_shortened(_plain(model), names_within)),
                f"[{style}]{row.outcome}[/{style}]" if style else row.outcome,
                row.batches,
                "" if row.rows is None else str(row.rows),
                f"{row.seconds:.1f}" if row.batches else "",
                audits if row.passed or row.failed else "",
            )
        return table


def _plain(model: str) -> str:
    return model.replace('"', "")


def _shortened(name: str, length: int) -> str:
    """Return a name with its middle left out: models of one schema differ at the end."""
    if len(name) <= length:
        return name
    end = (length - 1) * 2 // 3
    return f"{name[: length - 1 - end]}…{name[-end:]}"
