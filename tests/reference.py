"""The reference pages, as tests in both environments compare them with the code."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

DOCS = Path(__file__).parents[1] / "docs"

_CODE = re.compile(r"`([^`]+)`")


def load_generator(name: str) -> ModuleType:
    """Return a script of `docs/` as a module: its `PAGE`, and the text that it would write."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def section(page: str, heading: str) -> str:
    """Return what is under a heading of a reference page, up to the next heading."""
    text = (DOCS / "reference" / f"{page}.md").read_text(encoding="utf-8")
    found = re.search(
        rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, flags=re.MULTILINE | re.DOTALL
    )
    assert found is not None, f"{page}.md has no heading {heading!r}"
    return found[1]


def rows(page: str, heading: str) -> Iterator[list[str]]:
    """Return the rows of the tables under a heading, each as its cells, without their heads."""
    lines = section(page, heading).splitlines()
    for before, line in zip(["", "", *lines], lines, strict=False):
        if line.startswith("|") and before.startswith("|"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def names(cell: str) -> list[str]:
    """Return the names in a cell that are set as code."""
    return _CODE.findall(cell)


def first_names(page: str, heading: str) -> list[str]:
    """Return the names in the first column of the tables under a heading."""
    return [name for row in rows(page, heading) for name in names(row[0])]
