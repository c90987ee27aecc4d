"""The deployment of the folder `docker/kubernetes`, applied to a namespace of the tests' own."""

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import patience
from acceptance.docker.stack import JOB, Stack
from acceptance.kubernetes.cluster import Namespace, kubectl

ROOT = Path(__file__).resolve().parents[3]
IMAGES = {"shop-runner": "shop-runner:test", "shop-dagster": "shop-dagster:test"}

__all__ = ["IMAGES", "JOB", "Deployment", "build_images", "deployed"]


class Deployment(Stack):
    """A deployment that is up. Its GraphQL is that of a Compose stack."""

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        super().__init__(folder)
        self.namespace = namespace

    def sql(self, statement: str, *, database: str = "shop") -> list[str]:
        """Run SQL on the deployment's PostgreSQL, and return its rows as lines."""
        psql = ["psql", "-U", "postgres", "-d", database, "-Atc", statement]
        return self.namespace.kubectl("exec", "deploy/postgres", "--", *psql).splitlines()

    def interactive_psql(self) -> list[str]:
        """Return the command line of a psql that reads statements from its standard input."""
        execute = ["kubectl", "-n", self.namespace.name, "exec", "-i", "deploy/postgres", "--"]
        return [*execute, "psql", "-U", "postgres", "-d", "shop", "-At"]

    def logged(self, run_id: str) -> str:
        """Return a run's messages, for a test that fails."""
        return "\n".join(str(event.get("message")) for event in self.events(run_id))


def build_images() -> None:
    """Build both images, and load them into the cluster by the command in TEST_K8S_LOAD."""
    build = ["docker", "build", "--quiet"]
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    runner = ["--build-arg", "PROJECT=examples/shop", "--build-arg", "EXTRAS=postgres"]
    for name, file, options in (
        ("shop-runner", "docker/runner.Dockerfile", runner),
        ("shop-dagster", "docker/dagster.Dockerfile", []),
    ):
        command = [*build, "-f", file, "-t", IMAGES[name], *options, "."]
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
    if load := os.environ.get("TEST_K8S_LOAD"):
        subprocess.run([*load.split(), *IMAGES.values(), "postgres:16"], check=True)


@contextlib.contextmanager
def deployed(name: str, folder: Path) -> Iterator[Deployment]:
    """Apply the deployment to a new namespace, wait until it is up, and delete it at the end."""
    overlay = folder / "overlay"
    overlay.mkdir()
    for secret in ("warehouse", "dagster"):
        example = ROOT / "docker/kubernetes/secrets" / f"{secret}.env.example"
        file = example.with_suffix("")
        if not file.exists():
            file.write_text(example.read_text())
    images = "".join(
        f"  - {{name: {image}, newName: {full.split(':')[0]}, newTag: {full.split(':')[1]}}}\n"
        for image, full in IMAGES.items()
    )
    base = os.path.relpath(ROOT / "docker/kubernetes", overlay.resolve())
    (overlay / "kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
        f"namespace: {name}\nresources: [{base}]\nimages:\n{images}"
    )
    objects = kubectl("kustomize", str(overlay))
    # The replacement is made in the base, before an overlay's images: as one, it is made anew.
    objects = re.sub(
        r"(name: RUNNER_IMAGE\n\s+value: )shop-runner\n", rf"\1{IMAGES['shop-runner']}\n", objects
    )
    try:
        kubectl("apply", "-f", "-", stdin=objects)
        deployment = Deployment(Namespace(name), folder)
        with _forwarded(deployment):
            yield deployment
    finally:
        kubectl("delete", "namespace", name, "--wait=false")


@contextlib.contextmanager
def _forwarded(deployment: Deployment) -> Iterator[None]:
    wait = ["wait", "--timeout=400s", "--for"]
    deployment.namespace.kubectl(*wait, "condition=complete", "job/plan")
    for name in ("code-location", "webserver", "daemon"):
        deployment.namespace.kubectl(*wait, "condition=available", f"deploy/{name}")
    forward = ["kubectl", "-n", deployment.namespace.name, "port-forward", "svc/webserver"]
    with subprocess.Popen(
        [*forward, f"{deployment.port}:3000"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert "Forwarding" in process.stdout.readline()
            patience.wait_until(
                deployment.reaches_code_location, "the webserver has the code location", every=1.0
            )
            yield
        finally:
            process.terminate()
