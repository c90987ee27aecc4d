"""The garbage collector while many long-lived objects are made, and after it."""

import gc

from dagster_sqlmesh_pipes.allocation import garbage_collection_paused


def test_objects_made_while_paused_are_old_at_once() -> None:
    with garbage_collection_paused():
        assert not gc.isenabled()
        made: list[object] = [[] for _ in range(10)]
    assert gc.isenabled()
    old = {id(each) for each in gc.get_objects(generation=2)}
    assert {id(each) for each in made} <= old


def test_pause_leaves_frozen_objects_frozen() -> None:
    gc.freeze()
    try:
        with garbage_collection_paused():
            pass
        assert gc.get_freeze_count()
    finally:
        gc.unfreeze()


def test_pause_leaves_disabled_collector_disabled() -> None:
    gc.disable()
    try:
        with garbage_collection_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
