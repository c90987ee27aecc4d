"""Standard output, kept for what programs read."""

import os
import sys
from io import FileIO
from typing import Final

__all__ = ["take_stdout"]

_STDOUT: Final = 1
_STDERR: Final = 2


def take_stdout() -> FileIO:
    """Return a stream to standard output that nothing else writes to.

    What user code prints goes to standard error from now on: it would cut a message in two, or be
    taken for one.
    """
    sys.stdout.flush()
    stream = open(os.dup(_STDOUT), "wb", buffering=0)  # noqa: SIM115, PTH123 - the caller closes it
    os.dup2(_STDERR, _STDOUT)
    return stream
