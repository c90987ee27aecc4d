"""The table at the end of a run in a shell."""

import io

from rich.console import Console

from sqlmesh_runner.recording.events import ModelFailed
from sqlmesh_runner.sinks.terminal import TerminalSink

SCHEMA = '"warehouse"."a_schema_with_a_rather_long_name_of_its_own"'
NAMES = [f'{SCHEMA}."a_model_with_a_name_that_says_it_all_{each}"' for each in ("one", "two")]


def _printed(*, is_terminal: bool) -> str:
    output = io.StringIO()
    width = 80 if is_terminal else None
    sink = TerminalSink(
        Console(file=output, width=width, force_terminal=is_terminal, color_system=None)
    )
    for name in NAMES:
        sink.emit(
            ModelFailed(
                model=name,
                error="no",
                error_type="Error",
                query=None,
                path=None,
                interval_start=None,
                interval_end=None,
                batches_done=0,
                batches=1,
                audit=None,
            )
        )
    sink.close()
    return output.getvalue()


def test_names_are_whole_outside_a_terminal() -> None:
    printed = _printed(is_terminal=False)
    assert all(name.replace('"', "") in printed for name in NAMES)
    assert "\x1b" not in printed


def test_middle_of_a_name_gives_way_in_a_terminal() -> None:
    lines = [line for line in _printed(is_terminal=True).splitlines() if "…" in line]
    assert [line.split()[1] for line in lines] == ["failed", "failed"]
    assert ["says_it_all_one" in lines[0], "says_it_all_two" in lines[1]] == [True, True]
    assert all(line.strip().startswith("warehouse") and len(line) <= 80 for line in lines)
