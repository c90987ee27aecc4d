"""The golden answers of `tests/contract/kinds.json` are SQLMesh's."""

import json
from pathlib import Path

from contract.kinds import QUESTIONS, kinds

GOLDEN = json.loads((Path(__file__).parents[2] / "contract" / "kinds.json").read_text())


def test_the_golden_kinds_are_those_of_the_installed_sqlmesh() -> None:
    """An older SQLMesh knows fewer kinds and questions; one that knows more fails here."""
    assert kinds() == {
        kind: [question for question in GOLDEN[kind] if question in QUESTIONS] for kind in kinds()
    }
