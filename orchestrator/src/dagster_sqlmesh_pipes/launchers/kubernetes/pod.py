"""A runner's pod: its manifest, its labels, and the command that opens a shell in one like it."""

import functools
import hashlib
import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

from dagster_sqlmesh_pipes.launchers.base import LaunchRequest
from dagster_sqlmesh_pipes.launchers.kubernetes.fields import api_fields, merged, tag_config
from dagster_sqlmesh_pipes.launchers.kubernetes.launcher import KubernetesLauncher

__all__ = ["CONTAINER", "debug_command", "label_value", "pod_manifest", "read_labels"]

CONTAINER: Final = "sqlmesh-runner"
"""The name of our container: sidecars may be injected beside it."""

_ANNOTATIONS: Final = {
    # A runner that is moved to another node is a run that failed.
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}
_SECURITY_CONTEXT: Final = {
    "runAsNonRoot": True,
    "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
_WRITABLE: Final = {"/tmp": "tmp", "/var/cache/sqlmesh": "sqlmesh-cache"}  # noqa: S108
"""Folders on which the container has volumes of its own, where no others are mounted there."""

_LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")


def pod_manifest(
    launcher: KubernetesLauncher,
    *,
    name: str,
    arguments: Sequence[str],
    variables: Mapping[str, str],
    request: LaunchRequest | None = None,
    owner: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a runner's pod. `variables` are Pipes', `owner` is the step's own pod, if it has one.

    Raises:
        LaunchError: an option or a tag has a field that pods do not have.
    """
    layers = [_settings(launcher), _extra_settings(launcher)]
    if request is not None:
        layers.append(tag_config(request.run_tags, where="run"))
        layers.append(tag_config(request.op_tags, where="op"))
    settings: Any = functools.reduce(merged, layers)
    container = settings["container"]
    container["env"] = [
        *container.get("env", []),
        *({"name": name, "value": value} for name, value in variables.items()),
    ]
    spec = {
        **settings["spec"],
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": math.ceil(launcher.stop_grace + launcher.kill_grace),
        "containers": [
            {
                **container,
                "name": CONTAINER,
                "image": launcher.image,
                "args": list(arguments),
                "terminationMessagePolicy": "FallbackToLogsOnError",
            }
        ],
    }
    _add_writable_folders(spec)
    labels = launcher.runner_labels(request)
    metadata = settings["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {
                **metadata.get("labels", {}),
                **{key: label_value(value) for key, value in labels.items()},
            },
            "annotations": {**metadata.get("annotations", {}), **labels},
            **({"ownerReferences": [dict(owner)]} if owner else {}),
        },
        "spec": spec,
    }


def _settings(launcher: KubernetesLauncher) -> Mapping[str, Any]:
    """Return what the launcher's own fields say."""
    fields = functools.partial(api_fields, where="The KubernetesLauncher")
    spec = {
        "serviceAccountName": launcher.service_account_name,
        "imagePullSecrets": [dict(secret) for secret in launcher.image_pull_secrets],
        "volumes": fields("list[V1Volume]", list(launcher.volumes)),
        # As process 1, Python would ignore SIGTERM until it has a handler.
        "shareProcessNamespace": True,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
    }
    container = {
        "imagePullPolicy": launcher.image_pull_policy,
        "command": launcher.command and list(launcher.command),
        "envFrom": [
            *({"configMapRef": {"name": name}} for name in launcher.env_config_maps),
            *({"secretRef": {"name": name}} for name in launcher.env_secrets),
        ],
        "env": [{"name": name, "value": value} for name, value in launcher.own_variables().items()],
        "resources": fields("V1ResourceRequirements", launcher.resources),
        "volumeMounts": fields("list[V1VolumeMount]", list(launcher.volume_mounts)),
        "securityContext": {
            **_SECURITY_CONTEXT,
            **fields("V1SecurityContext", launcher.security_context),
        },
    }
    return {
        "metadata": {"annotations": {**_ANNOTATIONS, **launcher.annotations}},
        "spec": {name: value for name, value in spec.items() if value not in (None, [], {})},
        "container": {
            name: value for name, value in container.items() if value not in (None, [], {})
        },
    }


def _extra_settings(launcher: KubernetesLauncher) -> Mapping[str, Any]:
    return {
        "metadata": launcher.pod_metadata,
        "spec": api_fields("V1PodSpec", launcher.pod_spec_config, where="pod_spec_config"),
        "container": api_fields("V1Container", launcher.container_config, where="container_config"),
    }


def _add_writable_folders(spec: dict[str, Any]) -> None:
    (container,) = spec["containers"]
    mounts = container.get("volumeMounts", [])
    taken = {mount["mountPath"].rstrip("/") for mount in mounts}
    own = {folder: volume for folder, volume in _WRITABLE.items() if folder not in taken}
    container["volumeMounts"] = [
        *mounts,
        *({"name": volume, "mountPath": folder} for folder, volume in own.items()),
    ]
    spec["volumes"] = [
        *spec.get("volumes", []),
        *({"name": volume, "emptyDir": {}} for volume in own.values()),
    ]


def label_value(text: str) -> str:
    """Return a text as a label's value: where it can't be one, its start and a hash."""
    if _LABEL_VALUE.fullmatch(text):
        return text
    start = re.sub(r"[^A-Za-z0-9]+", "-", text)[:40].strip("-")
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"{start}-{digest}" if start else digest


def read_labels(pod: Mapping[str, Any]) -> Mapping[str, str]:
    """Return a pod's labels, whole: annotations of the same names have what labels can't hold."""
    metadata = pod["metadata"]
    whole = metadata.get("annotations", {})
    return {name: whole.get(name, value) for name, value in metadata.get("labels", {}).items()}


def debug_command(pod: Mapping[str, Any], namespace: str) -> str:
    """Return the command that opens a shell in a pod like this one.

    Values of variables are left out, because they may be secret.
    """
    container = next(each for each in pod["spec"]["containers"] if each["name"] == CONTAINER)
    shell = {
        **{name: value for name, value in container.items() if name != "args"},
        "command": ["sh"],
        "env": [variable for variable in container["env"] if "valueFrom" in variable],
        "stdin": True,
        "stdinOnce": True,
        "tty": True,
    }
    overrides = {"spec": {**pod["spec"], "containers": [shell]}}
    options = {
        "namespace": namespace,
        "image": container["image"],
        "restart": "Never",
        "overrides": json.dumps(overrides, separators=(",", ":")),
    }
    flags = " ".join(f"--{name}={shlex.quote(value)}" for name, value in options.items())
    return f"kubectl run {CONTAINER} --rm --stdin --tty {flags}"
