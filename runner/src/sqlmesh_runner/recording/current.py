"""Which model a thread is running a batch of."""

import threading

__all__ = ["current_model", "set_current_model"]


class _Thread(threading.local):
    model: str | None = None


_thread = _Thread()


def current_model() -> str | None:
    """Return the FQN of the model whose batch this thread runs; None between batches."""
    return _thread.model


def set_current_model(name: str | None) -> None:
    """Note that this thread starts a batch of a model, or has ended it (None)."""
    _thread.model = name
