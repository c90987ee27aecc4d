"""Write docs/reference/cli.md from the runner's help texts, in SQLMesh's environment."""

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parent / "reference" / "cli.md"

INTRODUCTION = """\
<!-- Written by `make reference` from the runner's help texts. Don't edit. -->
# `sqlmesh-runner`

The runner's command line. Launchers use it, and it works alone in a shell. Times are SQLMesh's: a
date, a time in UTC, or an expression such as `1 week ago`.
"""


def page() -> str:
    """Return the page's text."""
    overview = _help()
    commands = re.findall(r"^    (\w+) ", overview, flags=re.MULTILINE)
    sections = [f"## `{command}`\n\n{_block(_help(command))}" for command in commands]
    return "\n".join([INTRODUCTION, _block(overview), *sections])


def _help(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "sqlmesh_runner", *command, "--help"],
        env={**os.environ, "COLUMNS": "96"},
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout if not command else done.stdout.partition("\nexit codes:")[0]


def _block(text: str) -> str:
    return f"```text\n{text.strip()}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
