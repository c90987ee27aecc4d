"""Events for a person: a table at the end of a run. Progress is shown by SQLMesh's own display meanwhile."""

from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sqlmesh_runner import events
from sqlmesh_runner.events import Event
from sqlmesh_runner.sinks.base import Sink
from sqlmesh_runner.sinks.lines import sentence

__all__ = ["TerminalSink"]

_STYLES = {"materialized": "green", "partly": "yellow", "failed": "red", "skipped": "yellow"}


@dataclass
class _Row:
    outcome: str = ""
    batches: str = ""
    rows: int | None = None
    seconds: float = 0.0
    passed: int = 0
    failed: int = 0


class TerminalSink(Sink):
    """Collect what happened to each model, and print it when the run is over."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: dict[str, _Row] = {}
        self._end: events.RunFinished | None = None

    def emit(self, event: Event) -> None:
        """Note what concerns a row."""
        match event:
            case events.ModelMaterialized():
                row = self._row(event.model)
                row.outcome = row.outcome or ("materialized" if event.complete else "partly")  # `failed` stays
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
                self._rows = {name: row for name, row in self._rows.items() if row.outcome in {"materialized", "partly"}}
            case events.RunFinished():
                self._end = event
            case _:
                pass

    def _row(self, model: str) -> _Row:
        return self._rows.setdefault(model, _Row())

    def close(self) -> None:
        """Print the table and the last word."""
        if self._rows:
            self._console.print(self._table())
        if self._end is not None:
            self._console.print(sentence(self._end), markup=False, highlight=False)

    def _table(self) -> Table:
        table = Table("Model", "Outcome", box=None, header_style="bold")
        for heading in ("Batches", "Rows", "Seconds", "Audits"):
            table.add_column(heading, justify="right")
        for model, row in sorted(self._rows.items()):
            style = _STYLES.get(row.outcome.partition(" ")[0], "")
            audits = f"{row.passed} passed" + (f", [red]{row.failed} failed[/red]" if row.failed else "")
            table.add_row(
                escape(model.replace('"', "")),
                f"[{style}]{row.outcome}[/{style}]" if style else row.outcome,
                row.batches,
                "" if row.rows is None else str(row.rows),
                f"{row.seconds:.1f}" if row.batches else "",
                audits if row.passed or row.failed else "",
            )
        return table
