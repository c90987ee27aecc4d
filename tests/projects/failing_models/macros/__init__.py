from pathlib import Path

from sqlmesh import macro


@macro()
def farewell(evaluator):
    if Path("farewell_fails").exists():
        raise ValueError("nobody is there to say goodbye to")
    return "SELECT 1"
