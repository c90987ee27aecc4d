"""A real cluster for every test here, and nothing left on it afterwards."""

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import patience
import pytest
from acceptance.kubernetes.cluster import MEMORY, Namespace, kubectl

from dagster_sqlmesh_pipes.launchers.kubernetes import KubernetesLauncher

IMAGE = os.environ.get("TEST_PYTHON_IMAGE", "python:3.11-slim-bookworm")
TALKER = Path(__file__).parents[1] / "talker.py"

MakeLauncher = Callable[..., KubernetesLauncher]


@pytest.fixture(scope="session")
def cluster() -> None:
    """Find a cluster, or skip (fail, with REQUIRE_K8S=1)."""
    problem = None
    if not os.environ.get("KUBECONFIG"):
        problem = "KUBECONFIG is not set"
    else:
        try:
            kubectl("get", "nodes")
        except (OSError, AssertionError) as exc:
            problem = str(exc)
    if problem is not None:
        if os.environ.get("REQUIRE_K8S") == "1":
            pytest.fail(f"no Kubernetes cluster: {problem}")
        pytest.skip(f"no Kubernetes cluster: {problem}")


@pytest.fixture(scope="session")
def namespace(cluster: None) -> Iterator[Namespace]:
    """Make a namespace for these tests."""
    name = f"sqlmesh-pipes-{secrets.token_hex(4)}"
    kubectl("create", "namespace", name)
    made = Namespace(name)
    made.kubectl("create", "configmap", "talker", f"--from-file={TALKER}")
    patience.wait_until(
        lambda: "/default" in made.kubectl("get", "serviceaccounts", "-o", "name"),
        "the namespace has the service account of its pods",
        every=0.2,
    )
    yield made
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def mine() -> dict[str, str]:
    """Return the label of this test's pods."""
    return {"test": secrets.token_hex(4)}


@pytest.fixture
def talker(namespace: Namespace, mine: dict[str, str]) -> Iterator[MakeLauncher]:
    """Make launchers whose runner is the talker, and check that they leave nothing behind."""

    def make(**fields: Any) -> KubernetesLauncher:
        given = {
            "image": IMAGE,
            "image_pull_policy": "IfNotPresent",
            "namespace": namespace.name,
            "command": ["python", "/talk/talker.py"],
            "volumes": [{"name": "talk", "config_map": {"name": "talker"}}],
            "volume_mounts": [{"name": "talk", "mount_path": "/talk"}],
            "env": {"TALK_GO": "/tmp/go", "TALK_PART": "3900"},
            "security_context": {"run_as_user": 65534},
            "resources": MEMORY,
            "labels": mine,
            **fields,
        }
        return KubernetesLauncher(**given)

    yield make
    selector = f"test={mine['test']}"

    def gone() -> bool:
        return not namespace.pods(selector)

    try:
        patience.wait_until(gone, f"the pods of {selector} are deleted", every=0.3)
    finally:
        namespace.kubectl(
            "delete", "pods", "-l", selector, "--force", "--grace-period=0", check=False
        )
