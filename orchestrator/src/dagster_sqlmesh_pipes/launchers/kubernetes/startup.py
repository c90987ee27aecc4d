"""Waiting for a runner's container to start."""

import logging
import time
from http import HTTPStatus

from dagster_sqlmesh_pipes.errors import LaunchError
from dagster_sqlmesh_pipes.launchers.kubernetes.api import (
    API_ERRORS,
    Cluster,
    explained,
    explanation,
    is_status,
    is_transient,
)
from dagster_sqlmesh_pipes.launchers.kubernetes.status import PodState, Waiting, pod_state

__all__ = ["wait_for_container"]

_POLL = 0.25  # seconds between two checks of a pod that is about to start
_SLOW_POLL = 2.0  # the same of a pod that has waited for a while
_SLOW_AFTER = 20.0  # seconds
_PATIENCE = 20.0  # seconds for what may go away by itself: a registry that does not answer

_DELETED = "somebody deleted it before it started"

_logger = logging.getLogger("dagster_sqlmesh_pipes")


def wait_for_container(
    cluster: Cluster, name: str, *, start_timeout: float, reconnect_timeout: float
) -> None:
    """Wait until the container of a pod has started.

    Raises:
        LaunchError: it can't start, or has not within `start_timeout` seconds; has Kubernetes'
            reason and the pod's last warning events.
    """
    wait = _Wait(cluster, name, start_timeout=start_timeout, reconnect_timeout=reconnect_timeout)
    while not wait.is_over():
        time.sleep(wait.interval)


class _Wait:
    def __init__(
        self, cluster: Cluster, name: str, *, start_timeout: float, reconnect_timeout: float
    ) -> None:
        self._cluster = cluster
        self._name = name
        self._start_timeout = start_timeout
        self._reconnect_timeout = reconnect_timeout
        self._began = self._answered = time.monotonic()
        self._slow_since: float | None = None
        self._logged: set[str] = set()

    @property
    def interval(self) -> float:
        """Seconds until the next check."""
        return _POLL if self._elapsed() < _SLOW_AFTER else _SLOW_POLL

    def is_over(self) -> bool:
        """Return whether the container has started; raise if it can't."""
        state = self._read()
        if state is None:
            return False
        if state.has_started:
            return True
        if state.is_deleted:
            raise self._failure(_DELETED)
        if state.has_ended and state.waiting is None:  # its command could not be started
            ended = Waiting(reason=state.reason or "Failed", message=state.message)
            raise self._failure(str(ended), ended)
        self._check(state.waiting)
        if self._elapsed() > self._start_timeout:
            reason = state.waiting or "its container is not created yet"
            text = f"it has not started within start_timeout={self._start_timeout:g} s ({reason})"
            raise self._failure(text, state.waiting)
        return False

    def _read(self) -> PodState | None:
        """Return the pod's state; None while the API server does not answer."""
        try:
            state = pod_state(self._cluster.read_pod(self._name))
        except API_ERRORS as exc:
            if is_status(exc, HTTPStatus.NOT_FOUND):
                raise self._failure(_DELETED) from exc
            silent = time.monotonic() - self._answered
            if not is_transient(exc) or silent > self._reconnect_timeout:
                with explained(f"read pod {self._name}", self._cluster):
                    raise
            self._log(f"it can't be read: {explanation(exc)}")
            return None
        self._answered = time.monotonic()
        return state

    def _check(self, waiting: Waiting | None) -> None:
        if waiting is None:
            self._slow_since = None
            if self._elapsed() > _SLOW_AFTER:  # volumes that can't be mounted are in events only
                for event in self._cluster.warnings(self._name):
                    self._log(event)
            return
        self._log(str(waiting))
        self._slow_since = self._slow_since or time.monotonic()
        is_too_slow = waiting.is_slow and time.monotonic() - self._slow_since > _PATIENCE
        if waiting.is_fatal or is_too_slow:
            raise self._failure(str(waiting), waiting)

    def _log(self, text: str) -> None:
        if text not in self._logged:
            self._logged.add(text)
            _logger.warning("Pod %s waits: %s", self._name, text)

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    def _failure(self, text: str, waiting: Waiting | None = None) -> LaunchError:
        where = f"in namespace {self._cluster.namespace} of the cluster at {self._cluster.server}"
        lines = [f"Pod {self._name} {where} could not start: {text}"]
        lines += [f"- {event}" for event in self._cluster.warnings(self._name)]
        lines += [waiting.hint if waiting else ""]
        return LaunchError("\n".join(filter(None, lines)))
