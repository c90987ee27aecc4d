"""What a pod's status says of our container: whether it has started, has ended, and why."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dagster_sqlmesh_pipes.launchers.kubernetes.pod import CONTAINER

__all__ = ["PodState", "Waiting", "memory_limit", "pod_state"]

_FATAL = {"InvalidImageName", "ErrImageNeverPull", "RunContainerError", "ContainerCannotRun"}
"""Reasons that do not go away by themselves."""

_SLOW = {
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImagePull",
    "ImageInspectError",
    "ImagePullBackOff",
    "RegistryUnavailable",
}
"""Reasons that may go away: a registry that answers late, a secret that is created meanwhile."""

_NOT_STARTED = {"StartError", "ContainerCannotRun"}
"""Reasons of a container that has ended before its command ran."""

_HINTS = {
    "CreateContainerConfigError": (
        "Create the secret or config map that it names, in the pod's namespace. Where the image "
        "runs as root or as a user without a number, set USER to a number in it, or "
        "security_context={'run_as_user': …}."
    ),
    "ErrImageNeverPull": "Load the image on the node, or set image_pull_policy='IfNotPresent'.",
    "ErrImagePull": "Check the image's name, and image_pull_secrets= for a private registry.",
    "ImagePullBackOff": "Check the image's name, and image_pull_secrets= for a private registry.",
    "InvalidImageName": "Check image= of the KubernetesLauncher.",
    "StartError": "The image must have `sqlmesh-runner` installed, and as its ENTRYPOINT.",
    "Unschedulable": (
        "Ask for less (`resources`), check node_selector and tolerations, or add nodes."
    ),
}


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Why a pod's container does not run yet."""

    reason: str
    message: str
    is_fatal: bool = False
    is_slow: bool = False
    """Whether it is fatal if it does not go away within seconds."""

    @property
    def hint(self) -> str:
        """What to do about it; empty where the reason says it."""
        return _HINTS.get(self.reason, "")

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}" if self.message else self.reason


@dataclass(frozen=True, kw_only=True)
class PodState:
    """A pod, as far as our container is concerned."""

    has_started: bool
    has_ended: bool
    """Whether the container has ended."""
    has_pod_failed: bool
    """Whether the pod was stopped or evicted. Its container has its grace period then, and some
    versions of Kubernetes never report its end."""
    waiting: Waiting | None
    exit_code: int | None
    reason: str | None
    """Why the container ended, or why its pod did: `OOMKilled`, `Evicted`, …"""
    message: str
    phase: str
    node: str | None
    is_deleted: bool
    """Whether somebody has asked for the pod's deletion."""

    @property
    def was_stopped(self) -> bool:
        """Whether the pod was stopped by its deadline, which is how a launcher stops it."""
        return self.reason == "DeadlineExceeded"


def pod_state(pod: Mapping[str, Any]) -> PodState:
    """Return what a pod says of our container. Sidecars may keep the pod itself running."""
    status = pod.get("status", {})
    container = _container_status(status)
    state = container.get("state", {})
    ended = state.get("terminated")
    phase = status.get("phase", "Pending")
    pod_failed = phase == "Failed" and bool(status.get("reason"))
    described = ended if ended and not pod_failed else status
    waiting = None if ended or "running" in state else _waiting(pod, state)
    return PodState(
        has_started="running" in state or bool(ended and ended.get("reason") not in _NOT_STARTED),
        has_ended=bool(ended) or (phase in ("Failed", "Succeeded") and not pod_failed),
        has_pod_failed=pod_failed,
        waiting=waiting,
        exit_code=ended.get("exitCode") if ended else None,
        reason=described.get("reason"),
        message=described.get("message", ""),
        phase=phase,
        node=pod.get("spec", {}).get("nodeName"),
        is_deleted="deletionTimestamp" in pod["metadata"],
    )


def memory_limit(pod: Mapping[str, Any]) -> str:
    """Return our container's memory limit, for messages."""
    for container in pod["spec"]["containers"]:
        if container["name"] == CONTAINER:
            limit = container.get("resources", {}).get("limits", {}).get("memory")
            return f"limit {limit}" if limit else "no limit set: the node had no more"
    return "unknown limit"


def _container_status(status: Mapping[str, Any]) -> Mapping[str, Any]:
    for container in status.get("containerStatuses") or ():
        if container["name"] == CONTAINER:
            found: Mapping[str, Any] = container
            return found
    return {}


def _waiting(pod: Mapping[str, Any], state: Mapping[str, Any]) -> Waiting | None:
    """Return the first thing that keeps our container from running, init containers included."""
    status = pod.get("status", {})
    if status.get("phase") == "Failed":
        reason, message = status.get("reason") or "Failed", status.get("message", "")
        return Waiting(reason=reason, message=message, is_fatal=True)
    for reason, message in _container_reasons(status, state):
        return Waiting(
            reason=reason, message=message, is_fatal=reason in _FATAL, is_slow=reason in _SLOW
        )
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return Waiting(
                reason=condition.get("reason", "Unschedulable"),
                message=condition.get("message", ""),
            )
    return None


def _container_reasons(
    status: Mapping[str, Any], state: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    states = [each.get("state", {}) for each in status.get("initContainerStatuses") or ()]
    for each in (*states, state):
        waiting = each.get("waiting") or {}
        reason = waiting.get("reason")
        if reason and reason not in ("PodInitializing", "ContainerCreating"):
            yield reason, waiting.get("message", "")
