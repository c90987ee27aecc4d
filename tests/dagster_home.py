"""DAGSTER_HOMEs of instances that have no run yet.

Dagster makes their SQLite files when it needs them: that takes 0.4 s of CPU, and two processes that
make the same files get in each other's way. Here they are copied.
"""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

import dagster as dg

__all__ = ["make_home"]


def make_home(path: Path) -> Path:
    """Make a DAGSTER_HOME, without settings, in a folder that does not exist."""
    return Path(shutil.copytree(_empty_home(), path))


@cache
def _empty_home() -> Path:
    """Make the files once a process."""
    home = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, home)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.get_run_records(limit=1)
        instance.get_asset_records([dg.AssetKey("none")])
        instance.all_instigator_state()
    return home
