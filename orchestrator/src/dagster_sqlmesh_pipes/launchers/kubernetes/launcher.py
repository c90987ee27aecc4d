"""Run the runner in a pod on a Kubernetes cluster, in the project's own image."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from dagster_sqlmesh_pipes.errors import LaunchError
from dagster_sqlmesh_pipes.launchers.base import Invocation, LaunchRequest, RunnerInfo
from dagster_sqlmesh_pipes.launchers.container import ContainerLauncher

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["KubernetesLauncher"]

_RESERVED_CONTAINER = {
    "args": "the launcher sets it from the run",
    "command": "use command=",
    "image": "use image=",
    "name": "the launcher sets it",
    "stdin": "nothing is written to a runner",
    "terminationMessagePolicy": "the launcher sets it",
    "tty": "a terminal mixes the runner's messages with its log",
}
_RESERVED_POD = {
    "activeDeadlineSeconds": "the launcher stops a runner by it; use Dagster's dagster/max_runtime",
    "containers": "use container_config",
    "restartPolicy": "a failed run would silently be started again; use Dagster's retry policy",
    "terminationGracePeriodSeconds": "use stop_grace and kill_grace",
}


class KubernetesLauncher(ContainerLauncher):
    """Start the runner in a pod.

    Options that dagster-k8s has too bear its names, and take its shapes (snake or camel case). The
    tag `dagster-k8s/config` of the Dagster run and of the op is applied to the runner's pod, the
    op's over the run's: its `container_config`, `pod_spec_config` and `pod_template_spec_metadata`.

    A runner is stopped by SIGTERM, after `stop_grace` and `kill_grace` seconds by SIGKILL. It runs
    without root, on a read-only root file system with `/tmp` and SQLMesh's cache writable, and
    without a service account token; `security_context`, `pod_spec_config` and
    `container_config` can change that.
    """

    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    """When to pull the image. Default: Kubernetes' (`Always` for the tag `latest`)."""
    image_pull_secrets: Sequence[Mapping[str, str]] = ()
    """Secrets with credentials for the image's registry: `[{"name": "registry"}]`."""
    namespace: str | None = None
    """Where pods are created. Default: the step's own in a cluster, else the kubeconfig's."""
    service_account_name: str | None = None
    """The runner's service account, where warehouse credentials come from one (IRSA, Workload
    Identity). If it needs a token, set `pod_spec_config={"automount_service_account_token": True}`.
    """
    env_secrets: Sequence[str] = ()
    """Names of secrets whose keys become variables."""
    env_config_maps: Sequence[str] = ()
    """Names of config maps whose keys become variables."""
    volumes: Sequence[Mapping[str, Any]] = ()
    """The pod's volumes, as in its spec."""
    volume_mounts: Sequence[Mapping[str, Any]] = ()
    """Where the volumes are mounted in the container."""
    resources: Mapping[str, Mapping[str, str]] = Field(default_factory=dict)
    """Requests and limits: `{"requests": {"cpu": "500m"}, "limits": {"memory": "2Gi"}}`."""
    security_context: Mapping[str, Any] = Field(default_factory=dict)
    """The container's security context, over the default one."""
    annotations: Mapping[str, str] = Field(default_factory=dict)
    """Annotations of the pod."""
    container_config: Mapping[str, Any] = Field(default_factory=dict, repr=False)
    """Any further field of the container's spec."""
    pod_spec_config: Mapping[str, Any] = Field(default_factory=dict, repr=False)
    """Any further field of the pod's spec: `node_selector`, `tolerations`, …"""
    pod_metadata: Mapping[str, Any] = Field(default_factory=dict)
    """Further `labels` and `annotations` of the pod, in the shape of dagster-k8s."""
    command: Sequence[str] | None = None
    """The command before the runner's arguments, where it is not the image's entrypoint."""
    start_timeout: float = 600.0
    """Seconds a pod may wait for a node, its volumes or a webhook. Autoscalers take minutes."""
    load_incluster_config: bool | None = None
    """Whether to use the pod's own service account. Default: in a pod without KUBECONFIG."""
    kubeconfig_file: str | None = None
    """The kubeconfig. Default: `$KUBECONFIG`, else `~/.kube/config`."""
    kube_context: str | None = None
    """The kubeconfig's context. Default: its current one."""

    @field_validator("container_config")
    @classmethod
    def _check_container(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        _refuse("container_config", value, _RESERVED_CONTAINER)
        return value

    @field_validator("pod_spec_config")
    @classmethod
    def _check_pod(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        _refuse("pod_spec_config", value, _RESERVED_POD)
        return value

    @field_validator("pod_metadata")
    @classmethod
    def _check_metadata(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        unknown = sorted(value.keys() - {"labels", "annotations"})
        if unknown:
            msg = f"pod_metadata may have labels and annotations, not {', '.join(unknown)}"
            raise ValueError(msg)
        return value

    def launch(self, request: LaunchRequest) -> Invocation:
        """Start a runner, and wait for its container. See `Launcher.launch`."""
        invocation: Invocation = _runners().launch(self, request)
        return invocation

    def run_to_end(self, arguments: Sequence[str], *, timeout: float | None = None) -> str:
        """Run the runner to its end and return its stdout. See `Launcher.run_to_end`."""
        output: str = _runners().run_to_end(self, arguments, timeout=timeout)
        return output

    def list_runners(self, labels: Mapping[str, str]) -> Sequence[RunnerInfo]:
        """Return the namespace's pods that have all labels. See `Launcher.list_runners`."""
        found: Sequence[RunnerInfo] = _runners().list_runners(self, labels)
        return found

    def remove_runner(self, runner: RunnerInfo) -> None:
        """Stop and delete a pod, and wait until it has gone. See `Launcher.remove_runner`."""
        _runners().remove_runner(self, runner)


def _runners() -> "ModuleType":
    # The client takes more than a second to import, and code locations load without it.
    try:
        from dagster_sqlmesh_pipes.launchers.kubernetes import runners  # noqa: PLC0415
    except ImportError as exc:
        msg = (
            f"The Kubernetes client can't be imported ({exc}). Install "
            "`dagster-sqlmesh-pipes[kubernetes]` where the step runs."
        )
        raise LaunchError(msg) from exc
    return runners


def _refuse(option: str, value: Mapping[str, Any], reserved: Mapping[str, str]) -> None:
    for name in value:
        first, *words = name.split("_")
        reason = reserved.get(first + "".join(word.capitalize() for word in words))
        if reason is not None:
            msg = f"{option} may not have {name!r}: {reason}"
            raise ValueError(msg)
