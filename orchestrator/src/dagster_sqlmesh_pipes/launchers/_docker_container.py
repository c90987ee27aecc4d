"""One runner in one container: its messages, its log, its end."""

import contextlib
import json
import logging
import os
import threading
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import docker
from docker.errors import APIError, NotFound
from docker.models.containers import Container

from dagster_sqlmesh_pipes._messages import LineBuffer, split_message
from dagster_sqlmesh_pipes.launchers._docker_engine import ENGINE_ERRORS, NO_COMMAND, NOT_EXECUTABLE, engine_url
from dagster_sqlmesh_pipes.launchers._docker_logs import ContainerLostError, HighWater, LogStream, container_state
from dagster_sqlmesh_pipes.launchers.base import Exit, Invocation, LogTail

if TYPE_CHECKING:
    from dagster_sqlmesh_pipes.launchers.docker import DockerLauncher

__all__ = ["ContainerInvocation", "doubt"]

_WATCH = 5.0  # seconds between two looks at whether the container is at work; if not, streams that are silent until the next are cut
_POLL = 0.5  # seconds between two looks at whether a container that is being stopped has ended
_KILL_WAIT = 10.0  # seconds the engine has to end a container that was sent SIGKILL
_SIGKILLED = 137  # exit code, as a shell and docker-init give it

_logger = logging.getLogger("dagster_sqlmesh_pipes")


class ContainerInvocation(Invocation):
    """A runner's container. Its messages come over its stdout, and its stderr passes through into Dagster's compute logs."""

    def __init__(self, launcher: "DockerLauncher", client: docker.DockerClient, container: Container) -> None:
        self.name = f"container {container.name} (image {launcher.image}, engine {engine_url(launcher.base_url)})"
        self._launcher = launcher
        self._client = client
        self._container = container
        self._lines: deque[bytes] = deque()
        self._arrived = threading.Condition()
        self._heard = False
        self._tail = LogTail()
        self._exit: Exit | None = None
        self._ended = threading.Event()
        self._stopping = threading.Event()
        self._abandoned = threading.Event()
        self._killed = False
        self._trouble: str | None = None
        self._stdout = LogStream(container, "stdout", patience=launcher.reconnect_timeout)
        self._stderr = LogStream(container, "stderr", patience=launcher.reconnect_timeout)
        self._readers = [
            threading.Thread(target=self._reading, args=(read,), name=f"sqlmesh-{name}", daemon=True)
            for name, read in (("messages", self._read_messages), ("log", self._read_log))
        ]
        for thread in (*self._readers, threading.Thread(target=self._watch, name="sqlmesh-watch", daemon=True)):
            thread.start()

    def read(self) -> bytes | None:
        """See `Invocation.read`."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._lines or self._ended.is_set())
        return self._lines.popleft() if self._lines else None

    def stop(self) -> None:
        """See `Invocation.stop`."""
        if not self._stopping.is_set():
            self._stopping.set()
            threading.Thread(target=self._escalate, name="sqlmesh-stop", daemon=True).start()

    def wait(self) -> Exit:
        """See `Invocation.wait`."""
        self._ended.wait()
        assert self._exit is not None
        return self._exit

    def log_tail(self) -> str:
        """See `Invocation.log_tail`."""
        return str(self._tail)

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

    def _reading(self, read: Any) -> None:
        try:
            read()
        except Exception as exc:  # noqa: BLE001 - whatever it was, it belongs in the verdict, and a hanging step helps nobody
            self._trouble = self._trouble or (str(exc) if isinstance(exc, ContainerLostError) else f"reading its log failed: {exc!r}")

    def _read_messages(self) -> None:
        passed_on = HighWater()
        rest = b""
        for chunks in self._stdout.passes():
            passed_on.rewind()
            buffer = LineBuffer()
            for chunk in chunks:
                for line in buffer.feed(chunk):
                    self._take(line, passed_on.fresh(line + b"\n"))
            rest = buffer.flush()  # after a cut it is the start of a line that the next pass has whole
        if rest:
            self._take(rest, passed_on.fresh(rest))

    def _take(self, line: bytes, fresh: bytes) -> None:
        printed, message = split_message(line)
        if message is None:
            self._pass_on(1, fresh)
            return
        if fresh and printed:
            self._pass_on(1, printed + b"\n")
        with self._arrived:
            self._heard = True
            self._lines.append(message)
            self._arrived.notify()
        if _is_last(message):
            self._stdout.complete = True

    def _read_log(self) -> None:
        passed_on = HighWater()
        for chunks in self._stderr.passes():
            passed_on.rewind()
            for chunk in chunks:
                self._pass_on(2, passed_on.fresh(chunk))

    def _pass_on(self, fd: int, chunk: bytes) -> None:
        # To the descriptor, not to sys.stdout: that is what Dagster's compute log manager captures.
        self._tail.feed(chunk, str(fd))
        view = memoryview(chunk)
        while view:
            try:
                view = view[os.write(fd, view) :]
            except OSError:  # nobody reads our output any more; the messages still count
                return

    # The end

    def _watch(self) -> None:
        at_work = True
        while any(reader.is_alive() for reader in self._readers):
            for reader in self._readers:
                reader.join(_WATCH / 2)
            if not at_work:  # for a whole round, yet a reader still waits: on a connection that died without a word?
                self._stdout.cut_if_silent()
                self._stderr.cut_if_silent()
            at_work = self._is_at_work()
        if self._trouble is not None:
            self._see_it_end()
        self._exit = self._tell_end()
        self._ended.set()
        with self._arrived:
            self._arrived.notify()

    def _state(self, *, patience: float) -> dict[str, Any]:
        return container_state(self._container, patience=patience, abandoned=self._abandoned)

    def _is_at_work(self) -> bool:
        try:
            return bool(self._state(patience=0)["Running"])
        except ContainerLostError:
            return False  # as far as anyone can see; the readers ask again, and have the patience

    def _see_it_end(self) -> None:
        """Stop a runner that cannot be read any more: what it does would be known to nobody."""
        self.stop()
        with contextlib.suppress(ContainerLostError):
            while self._state(patience=0)["Running"] and not self._abandoned.wait(_POLL):
                pass

    def _tell_end(self) -> Exit:
        try:
            state = self._state(patience=self._launcher.reconnect_timeout if self._trouble is None else 0)
        except ContainerLostError as exc:
            return Exit(code=255, reason=f"lost: {self._trouble or exc}")
        reasons = [self._killed_by(state), state["Error"], self._trouble, self._silence(state["ExitCode"])]
        return Exit(code=state["ExitCode"], reason="; ".join(reason for reason in reasons if reason) or None)

    def _killed_by(self, state: dict[str, Any]) -> str | None:
        # The engine sets OOMKilled for any process in the container, and 137 is the end of every runner that is killed.
        if state["ExitCode"] == _SIGKILLED:
            if self._killed:
                return f"killed: it did not stop within {self._launcher.stop_grace + self._launcher.kill_grace:g} seconds of being asked to"
            if state["OOMKilled"]:
                return f"killed: probably out of memory ({self._memory_limit()})"
            return "killed from outside: by `docker kill`, by an engine that was stopped, or by the host"
        if state["OOMKilled"] and state["ExitCode"]:
            return f"a process in the container was killed for its memory ({self._memory_limit()})"
        return None

    def _memory_limit(self) -> str:
        limit = self._container.attrs["HostConfig"]["Memory"]
        return f"limit {limit / 2**20:g} MiB" if limit else "no mem_limit set: the host had no more"

    def _silence(self, code: int) -> str | None:
        return None if self._heard else doubt(self._launcher.image, code)

    # Stopping and cleaning up

    def _escalate(self) -> None:
        for signal, grace in (("SIGINT", self._launcher.stop_grace), ("SIGTERM", self._launcher.kill_grace), ("SIGKILL", 0.0)):
            self._killed = signal == "SIGKILL"
            try:
                self._container.kill(signal)
            except NotFound:
                return
            except APIError as exc:
                if exc.status_code == HTTPStatus.CONFLICT:  # it has ended
                    return
                _logger.warning("%s could not be sent to %s: %s", signal, self.name, exc)
            except ENGINE_ERRORS as exc:
                _logger.warning("%s could not be sent to %s: %s", signal, self.name, exc)
            if self._ended.wait(grace):
                return

    def _remove(self) -> None:
        keep = self._launcher.keep
        failed = self._exit is not None and self._exit.code != 0
        if keep == "always" or (keep == "failed" and failed):
            _logger.info("Kept %s. Read it with `docker logs %s`.", self.name, self._container.name)
            return
        try:
            self._container.remove(force=True, v=True)
        except NotFound:
            pass
        except ENGINE_ERRORS as exc:
            if not (isinstance(exc, APIError) and exc.status_code == HTTPStatus.CONFLICT):  # or it is being removed
                _logger.warning("%s could not be removed (%s). Remove it with `docker rm -f %s`.", self.name, exc, self._container.name)


def doubt(image: str, code: int) -> str:
    """Tell what may be wrong with an image whose container ended without a word of the runner's."""
    by_code = {126: NOT_EXECUTABLE, 127: NO_COMMAND}  # as a shell and docker-init give them
    return by_code.get(code) or f"if the log is not the runner's, check that `sqlmesh-runner` is the ENTRYPOINT of image {image}"


def _is_last(message: bytes) -> bool:
    if b'"closed"' not in message:
        return False
    try:
        return bool(json.loads(message)["method"] == "closed")
    except (ValueError, KeyError, TypeError):
        return False
