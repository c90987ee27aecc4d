"""Write the golden manifest, kinds and streams again (`make golden`). Read the difference."""

import json
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from contract.kinds import kinds
from contract.model_selectors import main as write_selectors
from contract.streams import DIRECTORY, SCENARIOS, normalised, path_of, write_golden
from integration.runner.harness import PROJECTS, ProjectCopy, planned_orders

from sqlmesh_runner.manifest.build import build_manifest, dump


def main(names: list[str]) -> None:
    (DIRECTORY / "manifest.json").write_text(
        dump(build_manifest(paths=[PROJECTS / "orders"], column_lineage=True))
    )
    (DIRECTORY / "kinds.json").write_text(json.dumps(kinds(), indent=2) + "\n")
    write_selectors()
    with tempfile.TemporaryDirectory() as directory:
        planned = planned_orders(Path(directory))
        for name in names or SCENARIOS:
            copy = Path(directory, name, "project")
            shutil.copytree(planned, copy)
            messages = normalised(SCENARIOS[name](ProjectCopy(copy)).messages)
            write_golden(name, messages)
            print(f"{path_of(name).name}: {len(messages)} messages")


if __name__ == "__main__":
    main(sys.argv[1:])
