from pathlib import Path

from sqlmesh import signal


@signal()
def announced(batch):
    """Ready unless a file says otherwise: the runner works in the project's directory."""
    return not Path("not_announced").exists()
