"""Standard output kept for what programs read."""

import os
import sys
from io import FileIO
from typing import Final

__all__ = ["take_stdout"]

_STDOUT: Final = 1
_STDERR: Final = 2


def take_stdout() -> FileIO:
    """Give a stream to standard output that is ours alone.

    What user code prints there goes to stderr from now on: it would cut a message in two, or be taken for one.
    """
    sys.stdout.flush()
    stream = open(os.dup(_STDOUT), "wb", buffering=0)  # noqa: SIM115, PTH123 - a descriptor; closed by whom it is given to
    os.dup2(_STDERR, _STDOUT)
    return stream
