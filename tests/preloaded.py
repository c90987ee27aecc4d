"""Start programs as forks of a process that has imported what they need.

Importing SQLMesh or Dagster costs a process more than a second of CPU, and the suites start
hundreds. A fork is a process like any other, with its own arguments, variables, folder, files and
signals; only what it imports is there already. What a test says of starting itself (another
interpreter, variables that are read on import) needs a process of its own.
"""

import atexit
import fcntl
import gc
import importlib
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

__all__ = ["RUNNER_MODULES", "PreloadedProcess", "Preloader", "preloader"]

RUNNER_MODULES = (
    "sqlmesh.core.context",
    "sqlmesh_runner.commands.manifest",
    "sqlmesh_runner.commands.restate",
    "sqlmesh_runner.commands.run",
    "sqlmesh_runner.commands.state",
    "multiprocessing.synchronize",
    "pandas",
    "rich._emoji_codes",
    "rich.progress",
    "sqlmesh.magics",
)
"""What the programs of the runner's environment import, some of it once they are at work."""

_HIGH = 512  # received descriptors go above this one first: below are the ones asked for
_ENOUGH = 65536  # bytes of a request


class PreloadedProcess:
    """A started program, with the part of `subprocess.Popen` that tests use."""

    def __init__(self, connection: socket.socket, stdin: int) -> None:
        self._connection = connection.makefile("r")
        connection.close()
        self.pid = int(self._connection.readline())
        self.stdin = os.fdopen(stdin, "wb", buffering=0)
        self.returncode: int | None = None
        self._ended = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        status = int(self._connection.readline() or -signal.SIGKILL)
        self.returncode = os.waitstatus_to_exitcode(status) if status >= 0 else status
        self._connection.close()
        self._ended.set()

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Preloader:
    """An interpreter that has imported `modules` and starts programs by forking."""

    def __init__(
        self, python: Sequence[str], modules: Sequence[str], environ: Mapping[str, str]
    ) -> None:
        self._python = python[0]
        self._folder = tempfile.TemporaryDirectory()
        self._address = str(Path(self._folder.name) / "socket")
        self._server = subprocess.Popen(
            [*python, __file__, self._address, *modules],
            env=environ,
            stdin=subprocess.PIPE,  # its end ends the server
            stdout=subprocess.PIPE,
            cwd="/",
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == b"ready\n"
        atexit.register(self.close)

    def close(self) -> None:
        self._server.kill()
        self._server.wait()
        for pipe in (self._server.stdin, self._server.stdout):
            assert pipe is not None
            pipe.close()
        self._folder.cleanup()

    def popen(
        self,
        program: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdout: IO[Any],
        stderr: IO[Any],
        pass_fds: Sequence[int] = (),
        start_new_session: bool = False,
    ) -> PreloadedProcess:
        """Start `program`: a script of the interpreter's folder, or `-m` and a module."""
        reading, writing = os.pipe()
        request = {
            "program": list(program),
            "cwd": str(cwd),
            "env": dict(env),
            "fds": [0, 1, 2, *pass_fds],
            "session": start_new_session,
        }
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._address)
        fds = [reading, stdout.fileno(), stderr.fileno(), *pass_fds]
        socket.send_fds(connection, [json.dumps(request).encode()], fds)
        os.close(reading)
        return PreloadedProcess(connection, writing)

    def executable(self, name: str) -> Path:
        """Return a file that is executed as the script `name` of the interpreter's folder is.

        What starts it gets a process that ends, and is stopped, as the program is.
        """
        path = Path(self._folder.name) / name
        if not path.exists():
            path.write_text(
                f"#!{self._python} -IS\n"
                "import sys\n"
                f"sys.path.append({str(Path(__file__).parent)!r})\n"
                "from preloaded_client import main\n"
                f"main({self._address!r}, {name!r})\n"
            )
            path.chmod(0o755)
        return path

    def run(
        self, program: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout: float
    ) -> "subprocess.CompletedProcess[str]":
        """Run `program` to its end, as `subprocess.run` does with `capture_output`."""
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
            process = self.popen(program, cwd=cwd, env=env, stdout=output, stderr=errors)
            process.stdin.close()
            try:
                code = process.wait(timeout)
            finally:
                process.kill()
            output.seek(0)
            errors.seek(0)
            return subprocess.CompletedProcess(program, code, output.read(), errors.read())


@cache
def preloader(python: Sequence[str], modules: Sequence[str]) -> Preloader:
    """Return this process's preloader for the command of an interpreter."""
    environ = {**os.environ, "MAX_FORK_WORKERS": "1", "PYTHONDONTWRITEBYTECODE": ""}
    environ["SQLMESH__DISABLE_ANONYMIZED_ANALYTICS"] = "true"
    environ["OPENBLAS_NUM_THREADS"] = "1"  # NumPy's: who forks has no threads
    return Preloader(python, modules, environ)


# The server: this file as a program, without anything of the tests


def _serve(address: str) -> Mapping[str, Any]:
    """Fork for each request. Returns in the forks only."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([listener.fileno(), 0], [], [])
        if 0 in ready:  # the end of its standard input: whoever started it is gone
            os._exit(0)
        connection, _ = listener.accept()
        if not os.fork():
            listener.close()
            return _fork_and_watch(connection)
        connection.close()
        _reap()


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _fork_and_watch(connection: socket.socket) -> Mapping[str, Any]:
    """Fork the program, report its process id and its status. Returns in the program only."""
    text, fds, *_ = socket.recv_fds(connection, _ENOUGH, 64)
    while True:
        try:
            request: Mapping[str, Any] = json.loads(text)
        except json.JSONDecodeError:
            more = connection.recv(_ENOUGH)
            if not more:
                os._exit(1)
            text += more
        else:
            break
    pid = os.fork()
    if pid:
        for fd in fds:
            os.close(fd)
        connection.sendall(f"{pid}\n".encode())
        if request["session"]:
            threading.Thread(target=_kill_with, args=(connection, pid), daemon=True).start()
        _, status = os.waitpid(pid, 0)
        with suppress(BrokenPipeError):  # nobody is there to be told
            connection.sendall(f"{status}\n".encode())
        os._exit(0)
    connection.close()
    _place(fds, request["fds"])
    if request["session"]:
        os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    if "PYTHONUNBUFFERED" in os.environ and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(write_through=True)
    return request


def _kill_with(connection: socket.socket, pid: int) -> None:
    """Kill a program that has a session of its own when whoever started it is gone."""
    with suppress(ConnectionResetError):
        connection.recv(1)  # nothing is sent: this ends with the connection
    for kill in (os.killpg, os.kill):  # it may not have its session yet
        with suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)


def _place(received: Sequence[int], wanted: Sequence[int]) -> None:
    """Give received descriptors the numbers that were asked for."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, _HIGH) for fd in received]
    for fd in received:
        os.close(fd)
    for fd, number in zip(high, wanted, strict=True):
        os.dup2(fd, number)
        os.close(fd)


def _start(program: Sequence[str]) -> None:
    sys.orig_argv = [sys.executable, *program]
    sys.path[1:1] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    if program[0] == "-m":
        sys.argv = list(program[1:])
        runpy.run_module(program[1], run_name="__main__", alter_sys=True)
    else:
        script = Path(sys.executable).with_name(program[0])
        sys.argv = [str(script), *program[1:]]
        sys.path[0] = str(script.parent)
        runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    for module in sys.argv[2:]:
        importlib.import_module(module)
    gc.freeze()  # no fork has to look through all of that at its end
    _start(_serve(sys.argv[1])["program"])
