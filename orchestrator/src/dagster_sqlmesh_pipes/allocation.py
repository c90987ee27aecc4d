"""Allocate many long-lived objects at once.

A manifest of 5,000 models becomes about a million objects, none of them garbage. Python's cyclic
garbage collector goes through them again and again while they are made, which takes longer than
making them.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["garbage_collection_paused"]


@contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """Keep the cyclic garbage collector from running meanwhile; also usable as a decorator.

    What is there at the end goes to the oldest generation at once: the collector would go through
    it three times on its way there.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # what someone has frozen stays frozen
            gc.freeze()
            gc.unfreeze()
        gc.enable()
