"""Where runners run: one room per kind of place, and what the rooms share beside them."""

from dagster_sqlmesh_pipes.launchers.leftovers import Orphan, remove_orphans

__all__ = ["Orphan", "remove_orphans"]
