"""Run the runner as a process on this machine, in its own virtual environment."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dagster_pipes import (
    DAGSTER_PIPES_CONTEXT_ENV_VAR,
    DAGSTER_PIPES_MESSAGES_ENV_VAR,
    encode_param,
)
from pydantic import Field

from dagster_sqlmesh_pipes.errors import LaunchError
from dagster_sqlmesh_pipes.launchers.base import ExitStatus, Invocation, Launcher, LaunchRequest
from dagster_sqlmesh_pipes.launchers.environment import runner_environ
from dagster_sqlmesh_pipes.launchers.framing import LineBuffer
from dagster_sqlmesh_pipes.launchers.invocation import RunnerInvocation
from dagster_sqlmesh_pipes.launchers.output import STDERR, STDOUT
from dagster_sqlmesh_pipes.launchers.shutdown import signal_steps

__all__ = ["SubprocessLauncher"]

_TAIL_LINES = 30
_DRAIN = 5.0  # seconds a grandchild may hold the message pipe open after the runner's end


class SubprocessLauncher(Launcher):
    """Start the runner as a subprocess.

    The runner stops by itself when this process dies, however it dies: it watches its standard
    input, whose other end is held here.
    """

    executable: str | None = None
    """`sqlmesh-runner`, or the `python` of the environment it is installed in. Default:
    `$SQLMESH_RUNNER`, else `sqlmesh-runner` on the PATH.
    """
    env: Mapping[str, str] = Field(default_factory=dict)
    """Variables for the runner, over what is passed on."""
    inherit_env: bool = True
    """Pass this process's variables on, except those of Dagster's interpreter and instance
    (`WITHHELD_ENV`). False: only an allow-list (`ALLOWED_ENV`)."""
    pass_env: Sequence[str] = ()
    """Names or patterns (`AWS_*`) of variables to pass on in any case."""
    cwd: str | None = None
    """The runner's working directory. Default: this process's."""
    stop_grace: float = 30.0
    """Seconds a runner has to stop by itself after SIGINT, before SIGTERM."""
    kill_grace: float = 10.0
    """Seconds after SIGTERM before SIGKILL, which goes to its whole process group."""

    def launch(self, request: LaunchRequest) -> Invocation:
        """Start a runner. See `Launcher.launch`."""
        return _Process(self, request)

    def run_to_end(self, arguments: Sequence[str], *, timeout: float | None = None) -> str:
        """Run the runner to its end and return its stdout. See `Launcher.run_to_end`."""
        command = [*self.command(), *arguments]
        try:
            done = subprocess.run(  # noqa: S603 - the command is the user's setting
                command,
                capture_output=True,
                check=False,
                env=self.environ(),
                cwd=self.cwd,
                stdin=subprocess.DEVNULL,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired as exc:
            tail = _tail(exc.stderr)
            msg = f"`{' '.join(command)}` did not end within {timeout:g} seconds:\n{tail}"
            raise LaunchError(msg.rstrip()) from exc
        except OSError as exc:
            raise _not_started(command, exc) from exc
        if done.returncode:
            tail = _tail(done.stderr)
            msg = f"`{' '.join(command)}` ended with exit code {done.returncode}:\n{tail}"
            raise LaunchError(f"{msg}\n{_hint(command[0], tail)}".rstrip())
        return done.stdout.decode()  # UTF-8, whatever the locale

    def command(self) -> list[str]:
        """Return the command that starts the runner, without arguments.

        Raises:
            LaunchError: there is no such executable.
        """
        asked = self.executable or os.environ.get("SQLMESH_RUNNER") or "sqlmesh-runner"
        found = shutil.which(str(Path(asked).expanduser()))
        if found is None:
            origin = (
                "executable="
                if self.executable
                else "SQLMESH_RUNNER"
                if os.environ.get("SQLMESH_RUNNER")
                else "the PATH"
            )
            msg = (
                f"There is no executable {asked!r} to run SQLMesh with (from {origin}). Install "
                "sqlmesh-runner in an environment of its own (`python -m venv runner && "
                "runner/bin/pip install sqlmesh-runner`) and set SQLMESH_RUNNER, or "
                "SubprocessLauncher(executable=…), to its `sqlmesh-runner`."
            )
            raise LaunchError(msg)
        path = Path(found).absolute()  # looked up from here, started in `cwd`
        return (
            [str(path), "-m", "sqlmesh_runner"] if path.name.startswith("python") else [str(path)]
        )

    def environ(self) -> dict[str, str]:
        """Return the runner's environment variables: what is passed on, and `env` over it."""
        passed = runner_environ(os.environ, inherit=self.inherit_env, pass_env=self.pass_env)
        return {"PYTHONUNBUFFERED": "1", **passed, **self.env}


class _Process(RunnerInvocation):
    """A runner process. Messages come through a pipe; its stdout and stderr go to the compute
    logs.
    """

    def __init__(self, launcher: SubprocessLauncher, request: LaunchRequest) -> None:
        super().__init__(
            signal_steps(stop_grace=launcher.stop_grace, kill_grace=launcher.kill_grace)
        )
        self._launcher = launcher
        # It has no name, so that nothing is left of it if this process is killed.
        with tempfile.TemporaryFile("w+") as context:
            json.dump(request.context, context)
            context.seek(0)
            self._process, messages = self._start(request, context.fileno())
        self.name = f"process {self._process.pid} ({self._command[0]})"
        self.debug_command = f"cd {shlex.quote(str(launcher.cwd or Path.cwd()))}"
        self.command = launcher.command()
        self._threads = [
            threading.Thread(target=target, args=arguments, name=f"sqlmesh-{name}", daemon=True)
            for name, target, arguments in (
                ("messages", self._read_messages, (messages,)),
                ("stdout", self._forward, (self._process.stdout, STDOUT)),
                ("stderr", self._forward, (self._process.stderr, STDERR)),
            )
        ]
        for thread in self._threads:
            thread.start()
        threading.Thread(target=self._watch, name="sqlmesh-watch", daemon=True).start()

    def _start(self, request: LaunchRequest, context: int) -> "tuple[subprocess.Popen[bytes], int]":
        self._command = [*self._launcher.command(), *request.arguments, "--stop-when-stdin-closes"]
        reading, writing = os.pipe()
        bootstrap: dict[str, Any] = {
            DAGSTER_PIPES_CONTEXT_ENV_VAR: {"path": f"/dev/fd/{context}"},
            DAGSTER_PIPES_MESSAGES_ENV_VAR: {"path": f"/dev/fd/{writing}"},
        }
        try:
            process = subprocess.Popen(  # noqa: S603 - the command is the user's setting
                self._command,
                env={
                    **self._launcher.environ(),
                    **{name: encode_param(value) for name, value in bootstrap.items()},
                },
                cwd=self._launcher.cwd,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(context, writing),
                # A terminal's Ctrl-C reaches Dagster alone, which then stops the runner in order.
                start_new_session=True,
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
                    self._output.add_message(line)
        if rest := buffer.flush():
            self._output.add_message(rest)

    def _forward(self, pipe: Any, fd: int) -> None:
        with pipe:
            while chunk := pipe.read1(65536):
                self._output.add_log(fd, chunk)

    def _watch(self) -> None:
        code = self._process.wait()
        for thread in self._threads:
            thread.join(_DRAIN)
        self._finish(self._exit_status(code))

    def _exit_status(self, code: int) -> ExitStatus:
        if code >= 0:
            return ExitStatus(code=code, reason=_hint(self._command[0], self.log_tail()) or None)
        return ExitStatus(code=128 - code, reason=f"killed by {signal.Signals(-code).name}")

    def _signal(self, number: signal.Signals) -> None:
        if number == signal.SIGKILL:
            self._kill()
        else:
            self._process.send_signal(number)

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def __exit__(self, *_: object) -> None:
        if not self._ended.is_set():
            self.stop()
            self._ended.wait()
        self._kill()  # what the runner may have left in its process group
        assert self._process.stdin is not None
        self._process.stdin.close()


def _tail(log: bytes | None) -> str:
    return "\n".join((log or b"").decode(errors="replace").splitlines()[-_TAIL_LINES:])


def _not_started(command: Sequence[str], exc: OSError) -> LaunchError:
    return LaunchError(
        f"`{' '.join(command[:3])} …` could not be started: {exc.strerror or exc}. Check that it "
        "is executable and made for this machine."
    )


def _hint(executable: str, log: str) -> str:
    if "No module named" in log and "sqlmesh" in log:
        return (
            f"{executable} has no SQLMesh runner: install it there "
            f"(`{executable} -m pip install sqlmesh-runner`), or name another environment"
        )
    return ""
