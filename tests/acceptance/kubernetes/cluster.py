"""The test cluster, as `kubectl` shows it."""

import json
import os
import subprocess
import time
from collections.abc import Mapping
from typing import Any

import patience

MEMORY = {"limits": {"memory": "128Mi"}, "requests": {"memory": "32Mi", "cpu": "50m"}}
"""What a test's pod may take."""


_ATTEMPTS = 5
_NO_ANSWER = (
    "TLS handshake timeout",
    "Unable to connect",
    "client connection lost",
    "connection refused",
    "connection reset",
    "context deadline exceeded",
    "currently unable to handle",
    "etcdserver: ",
    "i/o timeout",
    "unexpected EOF",
)


def kubectl(*arguments: str, stdin: str | None = None, check: bool = True) -> str:
    """Run kubectl and return its output; again where the API server of a busy machine is silent."""
    for _ in range(_ATTEMPTS):
        done = subprocess.run(
            ["kubectl", *arguments], input=stdin, capture_output=True, text=True, check=False
        )
        if not (done.returncode and any(words in done.stderr for words in _NO_ANSWER)):
            break
        time.sleep(1)
    assert not check or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
    return done.stdout + ("" if check else done.stderr)


class Namespace:
    """A namespace of the tests' own."""

    def __init__(self, name: str) -> None:
        self.name = name

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Run kubectl in it."""
        return kubectl("--namespace", self.name, *arguments, stdin=stdin, check=check)

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Create or change objects."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(items))

    def pods(self, selector: str = "dagster-sqlmesh-pipes.keep") -> list[dict[str, Any]]:
        """Return the launcher's pods."""
        found = json.loads(self.kubectl("get", "pods", "-l", selector, "-o", "json"))
        items: list[dict[str, Any]] = found["items"]
        return items

    def pod(self, name: str) -> dict[str, Any]:
        """Return a pod."""
        pod: dict[str, Any] = json.loads(self.kubectl("get", "pod", name, "-o", "json"))
        return pod

    def service_account(self, name: str, rules: list[dict[str, Any]]) -> str:
        """Create a service account with these rights, and return its token."""
        api = "rbac.authorization.k8s.io"
        role = {"apiGroup": api, "kind": "Role", "name": name}
        subject = {"kind": "ServiceAccount", "name": name, "namespace": self.name}
        rbac = {"apiVersion": f"{api}/v1", "metadata": {"name": name}}
        token = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/service-account-token",
            "metadata": {
                "name": f"{name}-token",
                "annotations": {"kubernetes.io/service-account.name": name},
            },
        }
        self.apply(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}},
            {**rbac, "kind": "Role", "rules": rules},
            {**rbac, "kind": "RoleBinding", "roleRef": role, "subjects": [subject]},
        )
        self.apply(token)
        template = "{{with .data}}{{with .token}}{{. | base64decode}}{{end}}{{end}}"
        return patience.wait_until(
            lambda: self.kubectl("get", "secret", f"{name}-token", "-o", f"go-template={template}"),
            f"service account {name} has a token",
            every=0.2,
        )


def kubeconfig_of_admin() -> dict[str, Any]:
    """Return the kubeconfig that the tests were started with, with its certificates in it."""
    config: dict[str, Any] = json.loads(
        kubectl("config", "view", "--raw", "--flatten", "--minify", "-o", "json")
    )
    return config


def restart(program: str, *options: str) -> subprocess.Popen[bytes]:
    """Restart a program of the cluster by the command in TEST_K8S_RESTART, in the background."""
    return subprocess.Popen(
        [*os.environ["TEST_K8S_RESTART"].split(), program, *options], stdout=subprocess.DEVNULL
    )
