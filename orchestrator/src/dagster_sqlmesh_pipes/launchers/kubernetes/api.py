"""The part of the Kubernetes API that a launcher needs, as JSON, and its errors in plain words."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
from kubernetes import client, config
from kubernetes.config.config_exception import ConfigException

from dagster_sqlmesh_pipes.errors import LaunchError

__all__ = [
    "API_ERRORS",
    "ApiError",
    "Cluster",
    "explained",
    "explanation",
    "is_status",
    "is_transient",
]


class ApiError(Exception):
    """The API's answer is an error. The message is the API's own."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


API_ERRORS = (ApiError, ConfigException, urllib3.exceptions.HTTPError, OSError)
"""What a request raises: an answer other than 2xx, no credentials, or no answer at all."""

_TIMEOUT = (5.0, 30.0)  # seconds to connect, and to wait for an answer
_LOG_TIMEOUT = (5.0, 5.0)  # a silent log is opened again: the connection may be dead
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

Json = Mapping[str, Any]


class Cluster:
    """A cluster's API, and a namespace in it. Thread-safe.

    In a pod with a service account it is the pod's own cluster; elsewhere that of the kubeconfig.

    Raises:
        LaunchError: there is no such configuration.
    """

    def __init__(
        self,
        *,
        namespace: str | None,
        load_incluster_config: bool | None,
        kubeconfig_file: str | None,
        kube_context: str | None,
    ) -> None:
        settings = client.Configuration()
        own_namespace = None
        try:
            if _is_in_cluster(setting=load_incluster_config, kubeconfig_file=kubeconfig_file):
                config.load_incluster_config(settings)
                own_namespace = _read_own_namespace()
            else:
                config.load_kube_config(
                    kubeconfig_file, context=kube_context, client_configuration=settings
                )
                own_namespace = _context_namespace(kubeconfig_file, kube_context)
        except (ConfigException, OSError) as exc:
            msg = (
                f"No Kubernetes cluster is configured: {exc}. In a pod, give it a service account "
                "with a token; elsewhere set KUBECONFIG, or kubeconfig_file= and kube_context= of "
                "the KubernetesLauncher."
            )
            raise LaunchError(msg) from exc
        settings.retries = False
        self.namespace = namespace or own_namespace or "default"
        self.server = str(settings.host)
        self._client = client.ApiClient(settings)
        self._pool: urllib3.PoolManager = self._client.rest_client.pool_manager

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def create_pod(self, pod: Json) -> None:
        """Create a pod."""
        self._json("POST", self._path("pods"), body=pod)

    def read_pod(self, name: str) -> Json:
        """Return a pod."""
        pod: Json = self._json("GET", self._path("pods", name))
        return pod

    def list_pods(self, label_selector: str) -> Sequence[Json]:
        """Return the pods that a label selector matches."""
        query = [("labelSelector", label_selector)]
        items: Sequence[Json] = self._json("GET", self._path("pods"), query=query)["items"]
        return items

    def stop_pod(self, name: str) -> None:
        """Stop a pod's containers in order, and keep the pod: deleting it would delete its log."""
        self._json(
            "PATCH",
            self._path("pods", name),
            body={"spec": {"activeDeadlineSeconds": 1}},
            content_type="application/merge-patch+json",
        )

    def delete_pod(self, name: str) -> None:
        """Delete a pod: its containers have their grace period to end."""
        self._json("DELETE", self._path("pods", name))

    def warnings(self, name: str) -> list[str]:
        """Return the last warning events of a pod, oldest first; none without the right to."""
        query = [("fieldSelector", f"involvedObject.name={name},type=Warning")]
        try:
            items = self._json("GET", self._path("events"), query=query)["items"]
        except API_ERRORS:
            return []
        items.sort(key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
        texts = [f"{event.get('reason')}: {event.get('message')}" for event in items]
        return list(dict.fromkeys(texts))[-3:]

    @contextmanager
    def open_log(
        self, name: str, container: str, *, follow: bool, since: str | None
    ) -> Iterator[Iterator[bytes]]:
        """Read a container's log, each line with its timestamp, in chunks."""
        query = [
            ("container", container),
            ("timestamps", "true"),
            ("follow", "true" if follow else "false"),
        ]
        if since:
            query.append(("sinceTime", since))
        path = self._path("pods", name, "log")
        response = self._request("GET", path, query=query, timeout=_LOG_TIMEOUT)
        try:
            yield response.stream(65536, decode_content=False)
        finally:
            response.close()  # not back to the pool: there may be more to come
            response.release_conn()

    def _path(self, *parts: str) -> str:
        return "/".join([f"/api/v1/namespaces/{self.namespace}", *parts])

    def _json(self, method: str, path: str, **options: Any) -> Any:
        response = self._request(method, path, **options)
        try:
            return json.loads(response.data)
        finally:
            response.release_conn()

    def _request(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: Json | None = None,
        content_type: str = "application/json",
        timeout: tuple[float, float] = _TIMEOUT,
    ) -> urllib3.HTTPResponse:
        # The client's configuration, credentials and pool, but not its methods: they decode a log
        # to the text "b'...'", and know no `sinceTime`.
        headers = {"Accept": "application/json, */*", "Content-Type": content_type}
        parameters = list(query)
        self._client.update_params_for_auth(headers, parameters, ["BearerToken"])
        response: urllib3.HTTPResponse = self._pool.request(  # type: ignore[assignment]
            method,
            f"{self.server}{path}{'?' if parameters else ''}{urlencode(parameters)}",
            body=None if body is None else json.dumps(body),
            headers=headers,
            timeout=urllib3.Timeout(connect=timeout[0], read=timeout[1]),
            preload_content=False,
            retries=False,
        )
        if not HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
            raise ApiError(response.status, _error_text(response.data, response.reason))
        return response


@contextmanager
def explained(action: str, cluster: Cluster) -> Iterator[None]:
    """Turn what the client raises into a LaunchError: what failed, where, and what to do."""
    try:
        yield
    except API_ERRORS as exc:
        where = f"namespace {cluster.namespace} of the cluster at {cluster.server}"
        msg = f"Could not {action} in {where}: {explanation(exc)}\n{_advice(exc)}"
        raise LaunchError(msg) from exc


def explanation(exc: BaseException) -> str:
    """Return the API's own words, or those of the connection that failed."""
    return str(exc).strip() or type(exc).__name__


def is_status(exc: BaseException, *statuses: HTTPStatus) -> bool:
    """Return whether an error is an answer with one of these statuses."""
    return isinstance(exc, ApiError) and exc.status in statuses


def is_transient(exc: BaseException) -> bool:
    """Return whether the same request may succeed later."""
    if not isinstance(exc, ApiError):
        return True
    if exc.status == HTTPStatus.TOO_MANY_REQUESTS:
        return True
    return exc.status >= HTTPStatus.INTERNAL_SERVER_ERROR and "too large" not in str(exc)


_ADVICE: Sequence[tuple[str, str]] = (
    ("exceeded quota", "Ask for less (`resources`), or raise the namespace's quota."),
    ("too large", "Select fewer assets in one run, or split the project into several."),
    ('namespaces "', "Create the namespace, or set namespace= of the KubernetesLauncher."),
    (
        "is forbidden: User",
        (
            "Bind the Role of docs/how-to/kubernetes.md to the step's service account: create, "
            "get, list, patch and delete on pods, get on pods/log, list on events."
        ),
    ),
    ("Unauthorized", "The credentials are not valid any more: log in again, or mount a new token."),
    ("", "Check the launcher's settings against the message above."),
)
"""What to do, by the API's words. The first that fits counts."""


def _advice(exc: BaseException) -> str:
    if not isinstance(exc, ApiError):
        return (
            "Is the API server reachable from here (`kubectl cluster-info`)? Check KUBECONFIG, "
            "kubeconfig_file= and kube_context=."
        )
    return next(advice for words, advice in _ADVICE if words in str(exc))


def _error_text(body: bytes, reason: str | None) -> str:
    text = body.decode(errors="replace").strip()
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text[:2000] or str(reason)


def _is_in_cluster(*, setting: bool | None, kubeconfig_file: str | None) -> bool:
    if setting is not None:
        return setting
    if kubeconfig_file or os.environ.get("KUBECONFIG"):
        return False
    return "KUBERNETES_SERVICE_HOST" in os.environ and (_SERVICE_ACCOUNT / "token").exists()


def _read_own_namespace() -> str | None:
    file = _SERVICE_ACCOUNT / "namespace"
    return file.read_text(encoding="utf-8").strip() if file.exists() else None


def _context_namespace(kubeconfig_file: str | None, kube_context: str | None) -> str | None:
    contexts, current = config.list_kube_config_contexts(kubeconfig_file)
    if kube_context:
        current = next(each for each in contexts if each["name"] == kube_context)
    namespace: str | None = current["context"].get("namespace")
    return namespace
