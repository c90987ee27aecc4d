"""A SQLMesh that renamed what a run is recorded through: no run of it may succeed."""

import os
import re
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import integration.runner.quiet_sqlmesh  # noqa: F401 - before anything that imports SQLMesh
import pytest
import sqlmesh
from integration.runner.harness import ORDERS, PROJECTS, ProjectCopy, extras

from sqlmesh_runner.sqlmesh_api.compatibility import CALLBACKS, PRIVATE_NAMES

INSTALLED = tuple(int(part) for part in version("sqlmesh").split("."))
NAMES = sorted(
    {callback.name for callback in CALLBACKS if callback.since <= INSTALLED}
    | {private.name for private in PRIVATE_NAMES}
)

SubstituteInSqlmesh = Callable[..., dict[str, str]]


@pytest.fixture
def substitute(tmp_path: Path) -> SubstituteInSqlmesh:
    """Copy the installed SQLMesh with a text replaced; return the environment that imports it."""

    def copy(pattern: str, replacement: str, files: str = "**/*.py") -> dict[str, str]:
        source, target = Path(sqlmesh.__file__).parent, tmp_path / "changed" / "sqlmesh"
        shutil.copytree(source, target, copy_function=os.link)
        for file in target.glob(files):
            text = file.read_text(encoding="utf-8")
            changed = re.sub(pattern, replacement, text)
            if changed != text:
                file.unlink()  # a link to the installed file
                file.write_text(changed, encoding="utf-8")
        return {"PYTHONPATH": str(target.parent)}

    return copy


def test_renamed_names_end_a_run_before_it_starts(
    tmp_path: Path, substitute: SubstituteInSqlmesh
) -> None:
    """Each name is missed by itself; one run for all of them saves the other starts."""
    project = ProjectCopy(Path(shutil.copytree(PROJECTS / "orders", tmp_path / "project")))
    environ = substitute(rf"\b({'|'.join(NAMES)})\b", r"\1_renamed")

    run = project.run(extras=extras(), environ=environ)

    assert (run.code, run.end["outcome"]) == (2, "error")
    missed = re.findall(r"\w+\.(\w+)", run.end["error"].partition("which lacks")[2])
    assert sorted(missed) == NAMES
    assert f"SQLMesh {version('sqlmesh')}," in run.end["error"]
    assert run.end["error"] in run.stderr


@pytest.mark.parametrize(
    ("file", "call", "problem"),
    [
        (
            "core/scheduler.py",
            "self.console.start_evaluation_progress",
            "reports a successful run, but not what it planned",
        ),
        (
            "core/scheduler.py",
            "self.console.update_snapshot_evaluation_progress",
            "reports a successful run, but not the end of 3 batches of",
        ),
        ("core/snapshot/evaluator.py", r"self\._audit(?=\()", "SQLMesh ran 3 audits of a batch of"),
    ],
    ids=["plan", "batch", "audit"],
)
def test_name_that_is_not_used_any_more_fails_the_run(
    orders: ProjectCopy, substitute: SubstituteInSqlmesh, file: str, call: str, problem: str
) -> None:
    """The name is still there, and SQLMesh calls another one instead."""
    instead = (
        "self._audit.__wrapped__.__get__(self)" if "_audit" in call else "(lambda *_, **__: 0)"
    )

    run = orders.run(extras=extras([ORDERS]), environ=substitute(call, instead, files=file))

    assert (run.code, run.end["outcome"]) == (1, "error")
    assert problem in run.end["error"]
    assert run.end["error"] in run.stderr
