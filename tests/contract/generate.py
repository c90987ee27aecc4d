"""Write the golden manifest, kinds and streams again. Look at the difference before you commit it: the orchestrator must understand it."""

import json
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from contract.kinds import kinds
from contract.streams import DIRECTORY, SCENARIOS, normalised, path_of
from integration.runner.harness import PROJECTS, ProjectCopy, planned_orders

from sqlmesh_runner.manifest import build_manifest, dump


def main(names: list[str]) -> None:
    (DIRECTORY / "manifest.json").write_text(dump(build_manifest(paths=[PROJECTS / "run_orders"], column_lineage=True)))
    (DIRECTORY / "kinds.json").write_text(json.dumps(kinds(), indent=2) + "\n")
    with tempfile.TemporaryDirectory() as directory:
        planned = planned_orders(Path(directory))
        for name in names or SCENARIOS:
            copy = Path(directory, name, "project")
            shutil.copytree(planned, copy)
            lines = [json.dumps(message) + "\n" for message in normalised(SCENARIOS[name](ProjectCopy(copy)).messages)]
            path_of(name).write_text("".join(lines))
            print(f"{path_of(name).name}: {len(lines)} messages")


if __name__ == "__main__":
    main(sys.argv[1:])
