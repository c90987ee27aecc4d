import time
from pathlib import Path

from sqlmesh import signal


@signal()
def announced(batch):
    """Ready unless a file says otherwise: the runner works in the project's directory."""
    print("asked for announcements", end="")  # as careless as user code may be with stdout
    if Path("never_returns").exists():
        Path("checked").touch()
        time.sleep(1_000_000)
    if Path("registry_down").exists():
        raise ConnectionError("the registry is down")
    return not Path("not_announced").exists()
