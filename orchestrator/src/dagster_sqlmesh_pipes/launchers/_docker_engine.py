"""The Docker engine: how to reach it, what its containers are marked with, and its errors in plain words."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import docker
from docker.errors import APIError, DockerException, NotFound
from docker.models.containers import Container

from dagster_sqlmesh_pipes.errors import LaunchError

__all__ = ["ENGINE_ERRORS", "MARK", "RUN_ID", "STEP_KEY", "connect", "engine_url", "explained", "explanation", "stop_and_remove"]

ENGINE_ERRORS = (DockerException, OSError)
"""What the SDK raises: its own errors, and those of requests, which are OSErrors."""

MARK = "dagster-sqlmesh-pipes.keep"
"""The label every container of ours has; its value is the launcher's `keep`."""

RUN_ID = "dagster/run_id"
STEP_KEY = "dagster/step_key"


def engine_url(base_url: str | None) -> str:
    """Tell which engine is meant: the setting, else `DOCKER_HOST`, else the local socket."""
    return base_url or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


def connect(base_url: str | None) -> docker.DockerClient:
    """Connect to an engine. TLS comes from `DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH`, as with the docker command.

    Raises:
        LaunchError: there is no engine at that place, or we may not use it.
    """
    with explained("be reached", base_url):
        # docker.from_env() would let DOCKER_HOST win over an explicit setting.
        environment = dict(os.environ) if base_url is None else {**os.environ, "DOCKER_HOST": base_url}
        return docker.from_env(environment=environment)


@contextmanager
def explained(doing: str, base_url: str | None) -> Iterator[None]:
    """Turn what the SDK raises into a LaunchError that says what failed, where, and what to do."""
    try:
        yield
    except ENGINE_ERRORS as exc:
        msg = f"The Docker engine at {engine_url(base_url)} could not {doing}: {explanation(exc)}\n{_advice(exc)}"
        raise LaunchError(msg) from exc


def explanation(exc: BaseException) -> str:
    """Give the engine's own words, where it was the engine that failed."""
    return str((exc.explanation if isinstance(exc, APIError) else None) or exc)


def stop_and_remove(container: Container, *, grace: float) -> None:
    """Let a runner end in order within `grace` seconds, kill it if it does not, and remove its container. It may be gone already."""
    try:
        container.stop(timeout=int(grace))
        container.remove(force=True, v=True)
    except NotFound:
        pass
    except APIError as exc:
        if exc.status_code != HTTPStatus.CONFLICT:  # somebody else is removing it at this moment
            raise


def _advice(exc: BaseException) -> str:
    causes = list(_causes(exc))
    if any(isinstance(cause, PermissionError) for cause in causes):
        return (
            f"This process (uid {os.getuid()}) has no permission on the engine's socket. Add its user to the socket's group "
            "(`usermod -aG docker USER`; for a container `group_add: [GID of the socket]`), or use a socket proxy with base_url=."
        )
    if isinstance(exc, APIError) and exc.status_code == HTTPStatus.FORBIDDEN:
        return "Access was refused. A socket proxy must allow the containers, images and POST parts of the engine's API."
    if isinstance(exc, APIError):
        return "Check the launcher's settings against the engine's message above."
    if any(isinstance(cause, FileNotFoundError) for cause in causes):
        return (
            "There is no such socket. Is the engine installed, and is its socket mounted into this container? Set DOCKER_HOST or base_url=."
        )
    return "Is the engine running (`docker version`)? If it is elsewhere, set DOCKER_HOST or base_url=."


def _causes(exc: BaseException) -> Iterator[BaseException]:
    # requests and urllib3 hide the system's error in args, not in __cause__.
    yield exc
    nested = [exc.__cause__ or exc.__context__, *exc.args]
    for inner in nested:
        if isinstance(inner, BaseException):
            yield from _causes(inner)
