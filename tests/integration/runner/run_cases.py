"""Run the runner several times in one process: an import of SQLMesh costs seconds.

Reads cases from standard input as JSON: `directory`, `arguments`, and `load_all` to load all
snapshots as SQLMesh does. Writes a list of what each did: `code`, and `is_limited`.
"""

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Any
from unittest.mock import patch

import integration.runner.quiet_sqlmesh  # noqa: F401 - before anything that imports SQLMesh

from sqlmesh_runner.cli import main
from sqlmesh_runner.sqlmesh_api import needed_snapshots, run_context, run_scope


def run(case: dict[str, Any]) -> dict[str, Any]:
    found: list[bool] = []

    def needed(*arguments: Any) -> Any:
        snapshots = None if case["load_all"] else needed_snapshots.needed_snapshots(*arguments)
        found.append(snapshots is not None)
        return snapshots

    output = io.StringIO()
    with (
        patch.object(run_context, "needed_snapshots", needed),
        patch.object(run_scope, "needed_snapshots", needed),
        redirect_stdout(output),
        redirect_stderr(output),
    ):
        code = main(["run", "--project-dir", case["directory"], *case["arguments"]])
    return {"code": code, "is_limited": all(found), "output": output.getvalue()}


if __name__ == "__main__":
    print(json.dumps([run(case) for case in json.load(sys.stdin)]))
