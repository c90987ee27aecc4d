"""The Docker engine: how to reach it, what its containers are marked with, and its errors in plain
words.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus

import docker
import urllib3
from docker.errors import APIError, DockerException, NotFound, TLSParameterError
from docker.models.containers import Container

from dagster_sqlmesh_pipes.errors import LaunchError
from dagster_sqlmesh_pipes.launchers.container import NO_COMMAND, NOT_EXECUTABLE

__all__ = [
    "ENGINE_ERRORS",
    "connect",
    "engine_url",
    "explained",
    "explanation",
    "stop_and_remove",
]

ENGINE_ERRORS = (DockerException, OSError, urllib3.exceptions.HTTPError)
"""What the SDK raises: its own errors, those of requests, which are OSErrors, and for an answer
that breaks off those of urllib3.
"""

_CHECK = "Check the launcher's settings against the message above."
_ADVICE: Sequence[tuple[type[BaseException], str, str]] = (
    (
        PermissionError,
        "",
        (
            "This process's user has no permission on the engine's socket. Add it to the "
            "socket's group (`usermod -aG docker USER`; for a container `group_add: [GID of the "
            "socket]`), or use a socket proxy with base_url=."
        ),
    ),
    (
        FileNotFoundError,
        "",
        (
            "There is no such socket. Is the engine installed, and is its socket mounted into "
            "this container? Set DOCKER_HOST or base_url=: the docker command may have its engine "
            "from a context (`docker context inspect`), which counts for that command only."
        ),
    ),
    (
        TLSParameterError,
        "",
        (
            "DOCKER_TLS_VERIFY asks for TLS: DOCKER_CERT_PATH must be a folder with ca.pem, "
            "cert.pem and key.pem. Unset it for an engine without."
        ),
    ),
    (
        DockerException,
        "paramiko",
        "Run `pip install 'docker[ssh]'` where the step runs, or reach the engine by tcp:// or unix://.",
    ),
    (
        APIError,
        "403 client error",
        (
            "Access was refused. A socket proxy must allow the containers, images and POST parts "
            "of the engine's API."
        ),
    ),
    (APIError, "executable file not found", f"It seems that {NO_COMMAND}."),
    (APIError, "no such file or directory", f"It seems that {NO_COMMAND}."),
    (APIError, "permission denied", f"It seems that {NOT_EXECUTABLE}."),
    (
        APIError,
        "max-buffer-size",
        (
            "The engine adds its own default log options to the launcher's, and they may "
            "drop messages. Use the log driver that is not its default one: "
            "container_kwargs={'log_config': {'type': 'local'}}."
        ),
    ),
    (
        APIError,
        "network",
        "`docker network ls` shows the networks; Compose puts its project's name before theirs.",
    ),
    (APIError, "", _CHECK),
    (
        OSError,
        "",
        (
            "Is the engine running (`docker version`)? If it is elsewhere, set DOCKER_HOST or "
            "base_url=."
        ),
    ),
    (BaseException, "", _CHECK),
)
"""What to do, by a cause's kind and what it says in lower case. The first that fits counts."""


def engine_url(base_url: str | None) -> str:
    """Return the engine's address: the setting, else `DOCKER_HOST`, else the local socket."""
    return base_url or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


def connect(base_url: str | None) -> docker.DockerClient:
    """Connect to an engine. TLS comes from `DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH`, as with the
    docker command.

    Raises:
        LaunchError: there is no engine at that place, or we may not use it.
    """
    with explained("be reached", base_url):
        # docker.from_env() would let DOCKER_HOST win over an explicit setting.
        environment = (
            dict(os.environ) if base_url is None else {**os.environ, "DOCKER_HOST": base_url}
        )
        return docker.from_env(environment=environment)


@contextmanager
def explained(doing: str, base_url: str | None) -> Iterator[None]:
    """Turn what the SDK raises into a LaunchError that says what failed, where, and what to do."""
    try:
        yield
    except (
        *ENGINE_ERRORS,
        TypeError,
        ValueError,
    ) as exc:  # the latter two are the SDK's words for settings of the wrong kind
        msg = (
            f"The Docker engine at {engine_url(base_url)} could not {doing}: {explanation(exc)}\n"
            f"{_advice(exc)}"
        )
        raise LaunchError(msg) from exc


def explanation(exc: BaseException) -> str:
    """Return the engine's own words, where it was the engine that failed."""
    return str((exc.explanation if isinstance(exc, APIError) else None) or exc)


def stop_and_remove(container: Container, *, grace: float) -> None:
    """Let a runner end in order within `grace` seconds, kill it if it does not, and remove its
    container. It may be gone already.
    """
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
    return next(
        advice
        for kind, words, advice in _ADVICE
        if any(isinstance(cause, kind) and words in str(cause).lower() for cause in causes)
    )


def _causes(exc: BaseException) -> Iterator[BaseException]:
    # requests and urllib3 hide the system's error in args, not in __cause__.
    yield exc
    nested = [exc.__cause__ or exc.__context__, *exc.args]
    for inner in nested:
        if isinstance(inner, BaseException):
            yield from _causes(inner)
