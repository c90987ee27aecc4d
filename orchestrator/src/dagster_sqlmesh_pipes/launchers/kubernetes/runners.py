"""Runners' pods: started, listed and removed."""

import contextlib
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any

from dagster_pipes import DAGSTER_PIPES_MESSAGES_ENV_VAR, encode_param

from dagster_sqlmesh_pipes.errors import LaunchError
from dagster_sqlmesh_pipes.launchers.base import Invocation, LaunchRequest, RunnerInfo
from dagster_sqlmesh_pipes.launchers.container import runner_name
from dagster_sqlmesh_pipes.launchers.context import context_variables
from dagster_sqlmesh_pipes.launchers.framing import MAX_LINE
from dagster_sqlmesh_pipes.launchers.kubernetes.api import (
    API_ERRORS,
    Cluster,
    explained,
    is_status,
    is_transient,
)
from dagster_sqlmesh_pipes.launchers.kubernetes.invocation import PodInvocation
from dagster_sqlmesh_pipes.launchers.kubernetes.launcher import KubernetesLauncher
from dagster_sqlmesh_pipes.launchers.kubernetes.pod import label_value, pod_manifest, read_labels
from dagster_sqlmesh_pipes.launchers.kubernetes.startup import wait_for_container
from dagster_sqlmesh_pipes.launchers.kubernetes.status import pod_state
from dagster_sqlmesh_pipes.launchers.labels import KEEP_LABEL

__all__ = ["launch", "list_runners", "remove_runner", "run_to_end"]

_CONTEXT_LIMIT = 1_250_000
"""Bytes. etcd takes a pod of 1.5 MiB by default, which is kept in it more than once encoded."""

_CREATE_ATTEMPTS = 5
_RETRY = 1.0  # seconds between two attempts to create a pod
_POLL = 0.5  # seconds between two checks of a pod that is being deleted


def launch(launcher: KubernetesLauncher, request: LaunchRequest) -> Invocation:
    """Start a runner. See `Launcher.launch`."""
    variables = {**_messages_variable(), **context_variables(request.context, limit=_CONTEXT_LIMIT)}
    return _start(launcher, request.arguments, variables, request)


def run_to_end(
    launcher: KubernetesLauncher, arguments: Sequence[str], *, timeout: float | None
) -> str:
    """Run the runner to its end and return its stdout. See `Launcher.run_to_end`.

    A pod's log does not separate stdout from stderr, so the runner is asked for messages: it hands
    over what it would print as one (docs/reference/messages.md).
    """
    began = time.monotonic()
    if timeout is not None:
        start_timeout = min(timeout, launcher.start_timeout)
        launcher = launcher.model_copy(update={"start_timeout": start_timeout})
    invocation = _start(launcher, arguments, _messages_variable(), None)
    with invocation:
        remaining = None if timeout is None else timeout - (time.monotonic() - began)
        texts = _read_output(invocation, remaining)
        end = invocation.wait()
        if end.code or not texts:
            reason = f" ({end.reason})" if end.reason else ""
            msg = (
                f"`{' '.join(arguments)}` in {invocation.name} ended with exit code "
                f"{end.code}{reason}:\n{invocation.log_tail()}"
            )
            raise LaunchError(msg)
    return "".join(texts)


def _read_output(invocation: PodInvocation, timeout: float | None) -> list[str]:
    """Return what the runner printed, as far as it came in time."""
    texts = []
    timer = threading.Timer(timeout or 0, invocation.abandon)
    if timeout is not None:
        timer.start()
    while (line := invocation.read()) is not None:
        message = json.loads(line)
        if message["method"] == "output":
            texts.append(message["params"]["text"])
    timer.cancel()
    return texts


def list_runners(launcher: KubernetesLauncher, labels: Mapping[str, str]) -> Sequence[RunnerInfo]:
    """Return the pods that have all labels. See `Launcher.list_runners`."""
    selector = [KEEP_LABEL, *(f"{name}={label_value(value)}" for name, value in labels.items())]
    with contextlib.closing(_connect(launcher)) as cluster, explained("list pods", cluster):
        return [_info(pod) for pod in cluster.list_pods(",".join(selector))]


def remove_runner(launcher: KubernetesLauncher, runner: RunnerInfo) -> None:
    """Stop a pod in order, and delete it. See `Launcher.remove_runner`.

    Raises:
        LaunchError: it was not gone in time, or the API refuses.
    """
    patience = launcher.stop_grace + launcher.kill_grace + launcher.reconnect_timeout
    give_up = time.monotonic() + patience
    with (
        contextlib.closing(_connect(launcher)) as cluster,
        explained(f"remove pod {runner.name}", cluster),
    ):
        _delete(cluster, runner.name)
        while time.monotonic() < give_up:
            if not _exists(cluster, runner.name):
                return
            time.sleep(_POLL)
    msg = f"Pod {runner.name} has not gone {patience:g} seconds after its deletion was asked for."
    raise LaunchError(msg)


def _start(
    launcher: KubernetesLauncher,
    arguments: Sequence[str],
    variables: Mapping[str, str],
    request: LaunchRequest | None,
) -> PodInvocation:
    cluster = _connect(launcher)
    name = runner_name(request)
    try:
        pod = pod_manifest(
            launcher,
            name=name,
            arguments=arguments,
            variables=variables,
            request=request,
            owner=_own_pod(cluster) if launcher.keep == "never" else None,
        )
        with explained(f"create pod {name}", cluster):
            _create(cluster, pod)
        wait_for_container(
            cluster,
            name,
            start_timeout=launcher.start_timeout,
            reconnect_timeout=launcher.reconnect_timeout,
        )
        return PodInvocation(launcher, cluster, pod)
    except BaseException:
        # By name: the API may have created it although its answer never came.
        with contextlib.suppress(*API_ERRORS):
            _delete(cluster, name)
        cluster.close()
        raise


def _create(cluster: Cluster, pod: Mapping[str, Any]) -> None:
    """Create a pod; once more where no answer came. Its name is taken then, if it was created."""
    for attempt in range(_CREATE_ATTEMPTS):
        try:
            cluster.create_pod(pod)
        except API_ERRORS as exc:
            if attempt and is_status(exc, HTTPStatus.CONFLICT):
                return
            if not is_transient(exc) or attempt == _CREATE_ATTEMPTS - 1:
                raise
            time.sleep(_RETRY)
        else:
            return


def _delete(cluster: Cluster, name: str) -> None:
    try:
        cluster.delete_pod(name)
    except API_ERRORS as exc:
        if not is_status(exc, HTTPStatus.NOT_FOUND):
            raise


def _exists(cluster: Cluster, name: str) -> bool:
    try:
        cluster.read_pod(name)
    except API_ERRORS as exc:
        if is_status(exc, HTTPStatus.NOT_FOUND):
            return False
        raise
    return True


def _connect(launcher: KubernetesLauncher) -> Cluster:
    return Cluster(
        namespace=launcher.namespace,
        load_incluster_config=launcher.load_incluster_config,
        kubeconfig_file=launcher.kubeconfig_file,
        kube_context=launcher.kube_context,
    )


def _own_pod(cluster: Cluster) -> Mapping[str, Any] | None:
    """Return a reference to the pod of this process: Kubernetes deletes the runner's pod with it.

    None outside of a cluster, in another namespace, and where the pod can't be read.
    """
    if "KUBERNETES_SERVICE_HOST" not in os.environ:
        return None
    try:
        pod = cluster.read_pod(os.environ.get("HOSTNAME", ""))
    except API_ERRORS:
        return None
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": pod["metadata"]["name"],
        "uid": pod["metadata"]["uid"],
    }


def _messages_variable() -> dict[str, str]:
    params = {"stdio": "stdout", "max_line": MAX_LINE}
    return {DAGSTER_PIPES_MESSAGES_ENV_VAR: encode_param(params)}


def _info(pod: Mapping[str, Any]) -> RunnerInfo:
    state = pod_state(pod)
    labels = read_labels(pod)
    return RunnerInfo(
        name=pod["metadata"]["name"],
        labels=labels,
        created=datetime.fromisoformat(pod["metadata"]["creationTimestamp"]),
        status=state.phase,
        is_running=not state.has_ended,
        keep=labels[KEEP_LABEL],
    )
