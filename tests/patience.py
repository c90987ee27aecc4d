"""Waiting for what comes about some time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 240.0  # seconds until something has failed; far more than it takes, for loaded machines


def wait_until(
    condition: Callable[[], T],
    what: str,
    *,
    every: float = 0.05,  # seconds
    patience: float = PATIENCE,
) -> T:
    """Ask again and again until a condition holds, and give what it gave."""
    deadline = time.monotonic() + patience
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {patience:g} s: {what}"
        time.sleep(every)
    return value
