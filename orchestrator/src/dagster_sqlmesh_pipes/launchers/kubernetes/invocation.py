"""One runner in one pod: its messages, its log, its end."""

import logging
import signal
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from dagster_sqlmesh_pipes.launchers.base import ExitStatus
from dagster_sqlmesh_pipes.launchers.container import image_hint
from dagster_sqlmesh_pipes.launchers.invocation import RunnerInvocation
from dagster_sqlmesh_pipes.launchers.kubernetes.api import (
    API_ERRORS,
    Cluster,
    explanation,
    is_status,
)
from dagster_sqlmesh_pipes.launchers.kubernetes.launcher import KubernetesLauncher
from dagster_sqlmesh_pipes.launchers.kubernetes.logs import PodLog, PodLostError
from dagster_sqlmesh_pipes.launchers.kubernetes.pod import debug_command
from dagster_sqlmesh_pipes.launchers.kubernetes.status import PodState, memory_limit, pod_state

__all__ = ["PodInvocation"]

_SIGKILLED, _SIGTERMED = 137, 143  # exit codes, as a shell gives them
_LOST = 255  # exit code of a runner whose own is not known
_POLL = 0.2  # seconds between two checks whether a container has ended
_RETRY = 1.0  # seconds between two attempts to stop a pod
_KILL_WAIT = 15.0  # seconds the kubelet has to end a container after its grace period

_logger = logging.getLogger("dagster_sqlmesh_pipes")


class PodInvocation(RunnerInvocation):
    """A runner's pod. Messages and log come over one stream: Kubernetes joins stdout and stderr."""

    def __init__(
        self, launcher: KubernetesLauncher, cluster: Cluster, pod: Mapping[str, Any]
    ) -> None:
        self._grace = launcher.stop_grace + launcher.kill_grace
        # Kubernetes sends SIGTERM, and SIGKILL after the pod's grace period.
        super().__init__([(signal.SIGTERM, self._grace)])
        self._pod_name: str = pod["metadata"]["name"]
        where = f"namespace {cluster.namespace}, image {launcher.image}"
        self.name = f"pod {self._pod_name} ({where})"
        self.debug_command = debug_command(pod, cluster.namespace)
        self.command = launcher.command or self.command
        self._launcher = launcher
        self._cluster = cluster
        self._pod = pod
        self._abandoned = threading.Event()
        self._read_error: str | None = None
        self._log = PodLog(cluster, self._pod_name, patience=launcher.reconnect_timeout)
        self._thread = threading.Thread(target=self._run, name="sqlmesh-pod", daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        try:
            if not self._ended.is_set():
                self.stop()
                self._ended.wait(self._grace + _KILL_WAIT)
        finally:
            self._abandoned.set()
            self._log.abandon()
            self._remove()
            self._cluster.close()

    def abandon(self) -> None:
        """Read no further: the runner has taken too long. Leaving the context deletes its pod."""
        self._read_error = "it did not end in time"
        self._abandoned.set()
        self._log.abandon()

    # The reader's thread

    def _run(self) -> None:
        try:
            for line in self._log.lines():
                self._output.add_line(line, line + b"\n")
                self._log.is_complete = self._output.is_closed
        except PodLostError as exc:
            self._read_error = str(exc)
        except Exception as exc:  # noqa: BLE001 - whatever it was, a hanging step helps nobody
            self._read_error = f"reading its log failed: {exc!r}"
        if self._read_error is not None:
            self.stop()  # nobody would know what it does
        try:
            status = self._exit_status()
        except Exception as exc:  # noqa: BLE001 - see above
            status = ExitStatus(code=_LOST, reason=f"its end could not be read: {exc!r}")
        self._finish(status)

    # The end

    def _exit_status(self) -> ExitStatus:
        try:
            state = self._wait_for_end()
        except PodLostError as exc:
            return ExitStatus(code=_LOST, reason=f"lost: {self._read_error or exc}")
        code = self._exit_code(state)
        reasons = [self._ended_by(state, code), self._read_error, self._no_output_hint(code)]
        if code and not self._shutdown.is_requested and state.reason not in ("Error", "Completed"):
            reasons += self._cluster.warnings(self._pod_name)
        return ExitStatus(code=code, reason="; ".join(filter(None, reasons)) or None)

    def _wait_for_end(self) -> PodState:
        """Wait for the container's end, which Kubernetes reports later than the log ends.

        After a stop, some versions never report it.
        """
        patience = 0.0 if self._read_error else None  # it has been had
        give_up = time.monotonic() + self._grace + _KILL_WAIT
        state = self._log.pod_state(patience=patience)
        while not (state.has_ended or state.has_pod_failed):
            if self._abandoned.wait(_POLL) or time.monotonic() > give_up:
                break
            state = self._log.pod_state(patience=patience)
        return state

    def _exit_code(self, state: PodState) -> int:
        if state.exit_code is not None:
            return state.exit_code
        if state.was_stopped and self._shutdown.is_requested:
            return _SIGTERMED if self._output.is_closed else _SIGKILLED
        return _LOST

    def _ended_by(self, state: PodState, code: int) -> str | None:
        if state.reason == "OOMKilled":
            return f"killed: out of memory ({memory_limit(self._pod)})"
        if self._shutdown.is_requested:
            if code == _SIGKILLED:
                return f"killed: it did not stop within {self._grace:g} seconds of being asked to"
            return None
        if state.was_stopped:
            return "stopped from outside: its activeDeadlineSeconds passed"
        if state.is_deleted:
            return "somebody deleted the pod"
        if code == _SIGKILLED:
            return "killed from outside: by the node, or by another process"
        if state.reason in ("Error", "Completed", None):
            return None
        return ": ".join(filter(None, [state.reason, state.message]))

    def _no_output_hint(self, code: int) -> str | None:
        if self._output.has_messages:
            return None
        return image_hint(self._launcher.image, code)

    # Stopping and cleaning up

    def _signal(self, number: signal.Signals) -> None:  # noqa: ARG002 - Kubernetes sends its own
        while not self._abandoned.is_set() and not self._ended.is_set():
            try:
                _stop_pod(self._cluster, self._pod_name)
            except API_ERRORS as exc:
                _logger.warning("%s could not be stopped: %s", self.name, explanation(exc))
                self._ended.wait(_RETRY)
            else:
                return

    def _remove(self) -> None:
        if self._launcher.is_kept(self._exit.code if self._exit else None):
            _logger.info("Kept %s. Read it with `kubectl logs %s`.", self.name, self._pod_name)
            return
        try:
            self._cluster.delete_pod(self._pod_name)
        except API_ERRORS as exc:
            if not is_status(exc, HTTPStatus.NOT_FOUND):
                _logger.warning(
                    "%s could not be deleted (%s). Delete it with `kubectl delete pod %s`.",
                    self.name,
                    explanation(exc),
                    self._pod_name,
                )


def _stop_pod(cluster: Cluster, name: str) -> None:
    """Stop a pod without deleting it; where that is not allowed, delete it in order."""
    try:
        if pod_state(cluster.read_pod(name)).has_ended:
            return
        cluster.stop_pod(name)
    except API_ERRORS as exc:
        if is_status(exc, HTTPStatus.NOT_FOUND):
            return
        if not is_status(exc, HTTPStatus.FORBIDDEN):
            raise
        _logger.warning(
            "Pod %s is deleted to stop it, and its last messages may be lost with its log: %s",
            name,
            explanation(exc),
        )
        cluster.delete_pod(name)
