"""One runner in one container: its messages, its log, its end."""

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

import docker
from docker.errors import APIError, NotFound
from docker.models.containers import Container

from dagster_sqlmesh_pipes.launchers.base import ExitStatus
from dagster_sqlmesh_pipes.launchers.container import ContainerLauncher, image_hint
from dagster_sqlmesh_pipes.launchers.docker.engine import ENGINE_ERRORS
from dagster_sqlmesh_pipes.launchers.docker.logs import (
    ContainerLostError,
    LogStream,
    ReplayFilter,
    container_state,
)
from dagster_sqlmesh_pipes.launchers.framing import LineBuffer
from dagster_sqlmesh_pipes.launchers.invocation import RunnerInvocation
from dagster_sqlmesh_pipes.launchers.output import STDERR
from dagster_sqlmesh_pipes.launchers.shutdown import signal_steps

__all__ = ["ContainerInvocation"]

_WATCH = 5.0  # seconds between two checks of a container; silent streams of a stopped one are cut
_POLL = 0.5  # seconds between two checks whether a container that is being stopped has ended
_KILL_WAIT = 10.0  # seconds the engine has to end a container that was sent SIGKILL
_SIGKILLED = 137  # exit code, as a shell and docker-init give it

_logger = logging.getLogger("dagster_sqlmesh_pipes")


class ContainerInvocation(RunnerInvocation):
    """A runner's container. Its messages come over its stdout; its stderr goes to the compute
    logs.
    """

    def __init__(
        self,
        launcher: ContainerLauncher,
        client: docker.DockerClient,
        container: Container,
        *,
        engine: str,
        debug_command: str,
        command: Sequence[str] | None,
    ) -> None:
        super().__init__(
            signal_steps(stop_grace=launcher.stop_grace, kill_grace=launcher.kill_grace)
        )
        self.name = f"container {container.name} (image {launcher.image}, engine {engine})"
        self.debug_command = debug_command
        self.command = command or self.command
        self._launcher = launcher
        self._client = client
        self._container = container
        self._abandoned = threading.Event()
        self._read_error: str | None = None
        self._stdout = LogStream(container, "stdout", patience=launcher.reconnect_timeout)
        self._stderr = LogStream(container, "stderr", patience=launcher.reconnect_timeout)
        self._readers = [
            threading.Thread(target=self._guard, args=(read,), name=f"sqlmesh-{name}", daemon=True)
            for name, read in (("messages", self._read_messages), ("log", self._read_log))
        ]
        watch = threading.Thread(target=self._watch, name="sqlmesh-watch", daemon=True)
        for thread in (*self._readers, watch):
            thread.start()

    def __exit__(self, *_: object) -> None:
        try:
            if not self._ended.is_set():
                self.stop()
                self._ended.wait(self._launcher.stop_grace + self._launcher.kill_grace + _KILL_WAIT)
        finally:
            self._abandoned.set()
            self._stdout.abandon()
            self._stderr.abandon()
            self._remove()
            self._client.close()

    # The readers' threads

    def _guard(self, read: Callable[[], None]) -> None:
        """Keep the error that ends a reader: it belongs in the exit status."""
        try:
            read()
        except ContainerLostError as exc:
            self._read_error = self._read_error or str(exc)
        except Exception as exc:  # noqa: BLE001 - whatever it was, a hanging step helps nobody
            self._read_error = self._read_error or f"reading its log failed: {exc!r}"

    def _read_messages(self) -> None:
        replays = ReplayFilter()
        rest = b""
        for chunks in self._stdout.read_attempts():
            replays.rewind()
            buffer = LineBuffer()
            for chunk in chunks:
                for line in buffer.feed(chunk):
                    self._output.add_line(line, replays.unseen(line + b"\n"))
                self._stdout.complete = self._output.is_closed
            # After a cut, this is the start of a line that the next attempt has whole.
            rest = buffer.flush()
        if rest:
            self._output.add_line(rest, replays.unseen(rest))

    def _read_log(self) -> None:
        replays = ReplayFilter()
        for chunks in self._stderr.read_attempts():
            replays.rewind()
            for chunk in chunks:
                self._output.add_log(STDERR, replays.unseen(chunk))

    # The end

    def _watch(self) -> None:
        is_running = True
        while any(reader.is_alive() for reader in self._readers):
            for reader in self._readers:
                reader.join(_WATCH / 2)
            if not is_running:  # for a whole round, yet a reader waits: on a dead connection?
                self._stdout.cut_if_silent()
                self._stderr.cut_if_silent()
            is_running = self._is_running()
        if self._read_error is not None:
            self._stop_unreadable()
        self._finish(self._exit_status())

    def _state(self, *, patience: float) -> dict[str, Any]:
        return container_state(self._container, patience=patience, abandoned=self._abandoned)

    def _is_running(self) -> bool:
        try:
            return bool(self._state(patience=0)["Running"])
        except ContainerLostError:
            return False  # as far as we can see; the readers ask again, and have the patience

    def _stop_unreadable(self) -> None:
        """Stop a runner that cannot be read any more: nobody would know what it does."""
        self.stop()
        with contextlib.suppress(ContainerLostError):
            while self._state(patience=0)["Running"] and not self._abandoned.wait(_POLL):
                pass

    def _exit_status(self) -> ExitStatus:
        patience = 0 if self._read_error else self._launcher.reconnect_timeout
        try:
            state = self._state(patience=patience)
        except ContainerLostError as exc:
            return ExitStatus(code=255, reason=f"lost: {self._read_error or exc}")
        reasons = [
            self._killed_by(state),
            state["Error"],
            self._read_error,
            self._no_output_hint(state["ExitCode"]),
        ]
        return ExitStatus(
            code=state["ExitCode"], reason="; ".join(reason for reason in reasons if reason) or None
        )

    def _killed_by(self, state: dict[str, Any]) -> str | None:
        # The engine sets OOMKilled for any process in the container, and every killed runner ends
        # with 137.
        if state["ExitCode"] == _SIGKILLED:
            if self._shutdown.last_signal == signal.SIGKILL:
                grace = self._launcher.stop_grace + self._launcher.kill_grace
                return f"killed: it did not stop within {grace:g} seconds of being asked to"
            if state["OOMKilled"]:
                return f"killed: probably out of memory ({self._memory_limit()})"
            return "killed from outside: by `docker kill`, a stopped engine, or the host"
        if state["OOMKilled"] and state["ExitCode"]:
            return f"a process in the container was killed for its memory ({self._memory_limit()})"
        return None

    def _memory_limit(self) -> str:
        limit = self._container.attrs["HostConfig"]["Memory"]
        return f"limit {limit / 2**20:g} MiB" if limit else "no mem_limit set: the host had no more"

    def _no_output_hint(self, code: int) -> str | None:
        return None if self._output.has_messages else image_hint(self._launcher.image, code)

    # Stopping and cleaning up

    def _signal(self, number: signal.Signals) -> None:
        try:
            self._container.kill(number.name)
        except NotFound:
            return
        except ENGINE_ERRORS as exc:
            if not _is_conflict(exc):  # it has ended
                _logger.warning("%s could not be sent to %s: %s", number.name, self.name, exc)

    def _remove(self) -> None:
        if self._launcher.is_kept(self._exit.code if self._exit else None):
            _logger.info("Kept %s. Read it with `docker logs %s`.", self.name, self._container.name)
            return
        try:
            self._container.remove(force=True, v=True)
        except NotFound:
            pass
        except ENGINE_ERRORS as exc:
            if not _is_conflict(exc):  # it is being removed
                _logger.warning(
                    "%s could not be removed (%s). Remove it with `docker rm -f %s`.",
                    self.name,
                    exc,
                    self._container.name,
                )


def _is_conflict(exc: BaseException) -> bool:
    return isinstance(exc, APIError) and exc.status_code == HTTPStatus.CONFLICT
