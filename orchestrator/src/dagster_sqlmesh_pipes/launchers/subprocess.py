"""Run the runner as a process on this machine, in its own virtual environment."""

import contextlib
import fnmatch
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, DAGSTER_PIPES_MESSAGES_ENV_VAR, encode_param
from pydantic import Field

from dagster_sqlmesh_pipes._messages import LineBuffer
from dagster_sqlmesh_pipes.errors import LaunchError
from dagster_sqlmesh_pipes.launchers.base import Exit, Invocation, Launcher, LaunchRequest, LogTail

__all__ = ["SubprocessLauncher"]

PASSED_ENV = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", "XDG_*", "LD_LIBRARY_PATH",
    "SSL_CERT_*", "REQUESTS_CA_BUNDLE", "*_PROXY", "*_proxy", "SQLMESH_*",
)  # fmt: skip
"""What the runner gets of this process's environment. Not PYTHONPATH or VIRTUAL_ENV: they belong to Dagster's interpreter."""

_DRAIN = 5.0  # seconds a grandchild may hold the message pipe open after the runner's end


class SubprocessLauncher(Launcher):
    """Start the runner as a subprocess.

    The runner stops by itself when this process dies, however it dies: it watches its standard input, whose other end is held here.
    """

    executable: str | None = None
    """`sqlmesh-runner`, or the `python` of the environment it is installed in. Default: `$SQLMESH_RUNNER`, else `sqlmesh-runner` on the PATH."""
    env: Mapping[str, str] = Field(default_factory=dict)
    """Variables for the runner, over what is passed on."""
    pass_env: Sequence[str] = ()
    """Names or patterns (`AWS_*`) of variables to pass on besides `PASSED_ENV`."""
    cwd: str | None = None
    """The runner's working directory. Default: this process's."""
    stop_grace: float = 30.0
    """Seconds a runner has to stop by itself after SIGINT, before SIGTERM."""
    kill_grace: float = 10.0
    """Seconds after SIGTERM before SIGKILL, which goes to its whole process group."""

    def launch(self, request: LaunchRequest) -> Invocation:
        """Start a runner. See `Launcher.launch`."""
        return _Process(self, request)

    def run_to_end(self, arguments: Sequence[str]) -> str:
        """Run the runner to its end and return its stdout. See `Launcher.run_to_end`."""
        command = [*self.command(), *arguments]
        try:
            done = subprocess.run(  # noqa: S603 - the command is the user's setting
                command, capture_output=True, check=False, env=self.environ(), cwd=self.cwd, stdin=subprocess.DEVNULL
            )
        except OSError as exc:
            raise _not_started(command, exc) from exc
        if done.returncode:
            tail = "\n".join(done.stderr.decode(errors="replace").splitlines()[-30:])
            msg = f"`{' '.join(command)}` ended with exit code {done.returncode}:\n{tail}\n{_hint(command[0], tail)}".rstrip()
            raise LaunchError(msg)
        return done.stdout.decode()  # UTF-8, whatever the locale

    def command(self) -> list[str]:
        """Give the command that starts the runner, without arguments.

        Raises:
            LaunchError: there is no such executable.
        """
        asked = self.executable or os.environ.get("SQLMESH_RUNNER") or "sqlmesh-runner"
        found = shutil.which(str(Path(asked).expanduser()))
        if found is None:
            origin = "executable=" if self.executable else "SQLMESH_RUNNER" if os.environ.get("SQLMESH_RUNNER") else "the PATH"
            msg = (
                f"There is no executable {asked!r} to run SQLMesh with (from {origin}). Install sqlmesh-runner in an environment of its own "
                "(`python -m venv runner && runner/bin/pip install sqlmesh-runner`) and set SQLMESH_RUNNER, or "
                "SubprocessLauncher(executable=…), to its `sqlmesh-runner`."
            )
            raise LaunchError(msg)
        path = Path(found).absolute()  # looked up from here, started in `cwd`
        return [str(path), "-m", "sqlmesh_runner"] if path.name.startswith("python") else [str(path)]

    def environ(self) -> dict[str, str]:
        """Give the runner's environment variables: an allow-list of this process's, and `env`."""
        patterns = (*PASSED_ENV, *self.pass_env)
        passed = {name: value for name, value in os.environ.items() if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)}
        return {"PYTHONUNBUFFERED": "1", **passed, **self.env}


class _Process(Invocation):
    """A runner process. Messages come through a pipe, and its stdout and stderr pass through here into Dagster's compute logs."""

    def __init__(self, launcher: SubprocessLauncher, request: LaunchRequest) -> None:
        self._launcher = launcher
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._tail = LogTail()
        self._stopping = threading.Event()
        self._directory = tempfile.TemporaryDirectory(prefix="dagster-sqlmesh-pipes-")
        try:
            self._process, messages = self._start(request)
        except BaseException:
            self._directory.cleanup()
            raise
        self.name = f"process {self._process.pid} ({self._command[0]})"
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._read_messages, args=(messages,), name="sqlmesh-messages", daemon=True),
            threading.Thread(target=self._forward, args=(self._process.stdout, 1), name="sqlmesh-stdout", daemon=True),
            threading.Thread(target=self._forward, args=(self._process.stderr, 2), name="sqlmesh-stderr", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        threading.Thread(target=self._watch, name="sqlmesh-watch", daemon=True).start()

    def _start(self, request: LaunchRequest) -> "tuple[subprocess.Popen[bytes], int]":
        context = Path(self._directory.name, "context.json")
        context.write_text(json.dumps(request.context))
        self._command = [*self._launcher.command(), *request.arguments, "--stop-when-stdin-closes"]
        reading, writing = os.pipe()
        bootstrap: dict[str, Any] = {
            DAGSTER_PIPES_CONTEXT_ENV_VAR: {"path": str(context)},
            DAGSTER_PIPES_MESSAGES_ENV_VAR: {"path": f"/dev/fd/{writing}"},
        }
        try:
            process = subprocess.Popen(  # noqa: S603 - the command is the user's setting
                self._command,
                env={**self._launcher.environ(), **{name: encode_param(value) for name, value in bootstrap.items()}},
                cwd=self._launcher.cwd,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(writing,),
                start_new_session=True,  # a terminal's Ctrl-C reaches Dagster alone, which then stops the runner in order
            )
        except OSError as exc:
            os.close(reading)
            raise _not_started(self._command, exc) from exc
        finally:
            os.close(writing)
        return process, reading

    def _read_messages(self, fd: int) -> None:
        buffer = LineBuffer()
        with open(fd, "rb", buffering=0) as pipe:
            while chunk := pipe.read(65536):
                for line in buffer.feed(chunk):
                    self._lines.put(line)
        if rest := buffer.flush():
            self._lines.put(rest)

    def _forward(self, pipe: Any, fd: int) -> None:
        # To the descriptor, not to sys.stdout: that is what Dagster's compute log manager captures.
        (sys.stdout if fd == 1 else sys.stderr).flush()
        with pipe:
            while chunk := pipe.read1(65536):
                self._tail.feed(chunk, stream=str(fd))
                _write(fd, chunk)

    def _watch(self) -> None:
        self._process.wait()
        for thread in self._threads:
            thread.join(_DRAIN)
        self._ended.set()
        self._lines.put(None)

    def read(self) -> bytes | None:
        """See `Invocation.read`."""
        line = self._lines.get()
        if line is None:
            self._lines.put(None)
        return line

    def stop(self) -> None:
        """See `Invocation.stop`."""
        if not self._stopping.is_set():
            self._stopping.set()
            threading.Thread(target=self._escalate, name="sqlmesh-stop", daemon=True).start()

    def _escalate(self) -> None:
        self._process.send_signal(signal.SIGINT)
        if not self._ended.wait(self._launcher.stop_grace):
            self._process.send_signal(signal.SIGTERM)
            if not self._ended.wait(self._launcher.kill_grace):
                self._kill()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def wait(self) -> Exit:
        """See `Invocation.wait`."""
        self._ended.wait()
        code = self._process.returncode
        if code >= 0:
            return Exit(code=code, reason=_hint(self._command[0], self.log_tail()) or None)
        return Exit(code=128 - code, reason=f"killed by {signal.Signals(-code).name}")

    def log_tail(self) -> str:
        """See `Invocation.log_tail`."""
        return str(self._tail)

    def __exit__(self, *_: object) -> None:
        if not self._ended.is_set():
            self.stop()
            self._ended.wait()
        self._kill()  # what the runner may have left in its process group
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._directory.cleanup()


def _write(fd: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except OSError:  # nobody reads our output any more; the runner must not block on that
            return


def _not_started(command: Sequence[str], exc: OSError) -> LaunchError:
    return LaunchError(
        f"`{' '.join(command[:3])} …` could not be started: {exc.strerror or exc}. Check that it is executable and made for this machine."
    )


def _hint(executable: str, log: str) -> str:
    if "No module named" in log and "sqlmesh" in log:
        return f"{executable} has no SQLMesh runner: install it there (`{executable} -m pip install sqlmesh-runner`), or name another environment"
    return ""
