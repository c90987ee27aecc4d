"""Stand in for a program that a preloaded process forks: the executable that Dagster starts.

It hands its descriptors over, passes signals on, and ends as the program does. It imports little:
it is started as often as the program. See `preloaded`.
"""

import json
import os
import signal
import socket
import sys
from contextlib import suppress

__all__ = ["main"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main(address: str, name: str) -> None:
    """Start the program, and end with its exit code or by its signal."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    fds = [fd for fd in _open_descriptors() if fd != connection.fileno()]
    request = {
        "program": [name, *sys.argv[1:]],
        "cwd": os.getcwd(),  # noqa: PTH109 - pathlib takes long to import
        "env": dict(os.environ),
        "fds": fds,
        "session": os.getsid(0) == os.getpid(),
    }
    socket.send_fds(connection, [json.dumps(request).encode()], fds)
    for fd in fds:  # whoever waits for their end waits for that of the program
        os.close(fd)
    lines = connection.makefile("r")
    pid = int(lines.readline())

    def pass_on(number: int, _frame: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    for number in _SIGNALS:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    _end(os.waitstatus_to_exitcode(int(lines.readline() or signal.SIGKILL)))


def _open_descriptors() -> list[int]:
    found = []
    for fd in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208
        with suppress(OSError):  # that of the listing itself
            os.fstat(fd)
            found.append(fd)
    return sorted(found)


def _end(code: int) -> None:
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)
