"""What the Kubernetes launcher does without a cluster; tests/acceptance/kubernetes has the rest."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from dagster_sqlmesh_pipes.errors import LaunchError
from dagster_sqlmesh_pipes.launchers.base import LaunchRequest
from dagster_sqlmesh_pipes.launchers.container import runner_name
from dagster_sqlmesh_pipes.launchers.kubernetes import KubernetesLauncher, logs
from dagster_sqlmesh_pipes.launchers.kubernetes.api import ApiError
from dagster_sqlmesh_pipes.launchers.kubernetes.logs import PodLog, PodLostError, TimestampFilter
from dagster_sqlmesh_pipes.launchers.kubernetes.pod import (
    debug_command,
    label_value,
    pod_manifest,
    read_labels,
)
from dagster_sqlmesh_pipes.launchers.kubernetes.status import PodState, pod_state

CONFIG = "dagster-k8s/config"


def request(**fields: Any) -> LaunchRequest:
    return LaunchRequest(arguments=["run"], context={}, **fields)  # type: ignore[typeddict-item]


def manifest(launcher: KubernetesLauncher, asked: LaunchRequest | None = None) -> dict[str, Any]:
    return pod_manifest(
        launcher, name="sqlmesh-1", arguments=["run"], variables={"P": "p"}, request=asked
    )


def container(launcher: KubernetesLauncher, asked: LaunchRequest | None = None) -> dict[str, Any]:
    (found,) = manifest(launcher, asked)["spec"]["containers"]
    return dict(found)


# The pod


def test_pod_has_no_rights_by_default() -> None:
    spec = manifest(KubernetesLauncher(image="shop:1"))["spec"]
    assert spec["restartPolicy"] == "Never"
    assert spec["automountServiceAccountToken"] is False
    security = spec["containers"][0]["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert [mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]] == [
        "/tmp",
        "/var/cache/sqlmesh",
    ]


def test_options_take_snake_and_camel_case() -> None:
    snake = KubernetesLauncher(
        image="i",
        volumes=[{"name": "c", "persistent_volume_claim": {"claim_name": "cache"}}],
        volume_mounts=[{"name": "c", "mount_path": "/var/cache/sqlmesh"}],
        pod_spec_config={"node_selector": {"disk_type": "ssd"}, "priority_class_name": "low"},
        container_config={"env_from": [{"config_map_ref": {"name": "settings"}}]},
        security_context={"run_as_user": 1000},
    )
    camel = KubernetesLauncher(
        image="i",
        volumes=[{"name": "c", "persistentVolumeClaim": {"claimName": "cache"}}],
        volume_mounts=[{"name": "c", "mountPath": "/var/cache/sqlmesh"}],
        pod_spec_config={"nodeSelector": {"disk_type": "ssd"}, "priorityClassName": "low"},
        container_config={"envFrom": [{"configMapRef": {"name": "settings"}}]},
        security_context={"runAsUser": 1000},
    )
    assert manifest(snake) == manifest(camel)
    spec = manifest(snake)["spec"]
    assert spec["nodeSelector"] == {"disk_type": "ssd"}
    assert [volume["name"] for volume in spec["volumes"]] == ["c", "tmp"]


def test_secrets_are_named_and_not_shown() -> None:
    launcher = KubernetesLauncher(
        image="i", env_secrets=["warehouse"], env_config_maps=["settings"], env={"A": "visible"}
    )
    assert container(launcher)["envFrom"] == [
        {"configMapRef": {"name": "settings"}},
        {"secretRef": {"name": "warehouse"}},
    ]
    command = debug_command(manifest(launcher), "data")
    assert "warehouse" in command
    assert "visible" not in command


def test_tags_of_op_and_run_change_the_pod() -> None:
    run = {
        "container_config": {
            "image": "the-run-worker's",
            "resources": {"limits": {"memory": "1Gi", "cpu": "1"}},
            "env": [{"name": "FROM_RUN", "value": "1"}],
        },
        "pod_spec_config": {"tolerations": [{"key": "batch"}]},
        "pod_template_spec_metadata": {"labels": {"team": "data"}},
        "job_spec_config": {"ttl_seconds_after_finished": 3},
    }
    op = {"container_config": {"resources": {"limits": {"memory": "8Gi"}}}}
    asked = request(run_tags={CONFIG: json.dumps(run)}, op_tags={CONFIG: json.dumps(op)})
    launcher = KubernetesLauncher(image="shop:1", resources={"limits": {"memory": "512Mi"}})
    pod = manifest(launcher, asked)
    (found,) = pod["spec"]["containers"]
    assert found["image"] == "shop:1"
    assert found["resources"] == {"limits": {"memory": "8Gi", "cpu": "1"}}
    assert [variable["name"] for variable in found["env"]] == ["FROM_RUN", "P"]
    assert pod["spec"]["tolerations"] == [{"key": "batch"}]
    assert pod["metadata"]["labels"]["team"] == "data"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "tag dagster-k8s/config of the op is not a JSON object"),
        ('{"container_config": {"memory": "1Gi"}}', "has 'memory', which Kubernetes' Container"),
        ('{"container_config": {"resources": {"limit": {}}}}', "has 'limit', which Kubernetes'"),
    ],
)
def test_bad_tag_is_an_error(text: str, words: str) -> None:
    with pytest.raises(LaunchError, match=words):
        manifest(KubernetesLauncher(image="i"), request(op_tags={CONFIG: text}))


@pytest.mark.parametrize(
    ("option", "name", "reason"),
    [
        ("container_config", "image", "use image="),
        ("container_config", "tty", "mixes"),
        ("pod_spec_config", "restart_policy", "retry policy"),
        ("pod_spec_config", "restartPolicy", "retry policy"),
        ("pod_spec_config", "active_deadline_seconds", "max_runtime"),
        ("pod_metadata", "name", "labels and annotations"),
    ],
)
def test_reserved_field_is_refused(option: str, name: str, reason: str) -> None:
    options: dict[str, Any] = {option: {name: "x"}}
    with pytest.raises(ValidationError, match=reason):
        KubernetesLauncher(image="i", **options)


def test_long_names_are_whole_in_annotations() -> None:
    job = "a job / with a name that is much longer than the 63 characters of a label"
    pod = manifest(KubernetesLauncher(image="i"), request(labels={"dagster/job": job}))
    assert pod["metadata"]["labels"]["dagster/job"] == label_value(job)
    assert len(label_value(job)) <= 63
    assert label_value(job) != label_value(f"{job}!")
    assert read_labels(pod)["dagster/job"] == job
    assert label_value("plain-1.0_x") == "plain-1.0_x"


def test_name_is_one_that_pods_may_have() -> None:
    named = request(labels={"dagster/run_id": "Run_1/x-and-more"})
    assert re.fullmatch(r"sqlmesh-run-1-x-[0-9a-f]{8}", runner_name(named))
    assert re.fullmatch(r"sqlmesh-[0-9a-f]{8}", runner_name(None))


def test_launcher_is_made_without_the_client() -> None:
    program = (
        "import sys; from dagster_sqlmesh_pipes.launchers.kubernetes import KubernetesLauncher\n"
        "KubernetesLauncher(image='i', container_config={'resources': {}})\n"
        "assert 'kubernetes' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# The status


def pod_with(state: dict[str, Any], **status: Any) -> PodState:
    statuses = [
        {"name": "mesh", "state": {"running": {}}},
        {"name": "sqlmesh-runner", "state": state},
    ]
    pod_status = {"phase": "Running", "containerStatuses": statuses, **status}
    return pod_state({"metadata": {"name": "p"}, "spec": {}, "status": pod_status})


def test_state_is_that_of_our_container() -> None:
    running = pod_with({"running": {"startedAt": "2026-01-01T00:00:00Z"}})
    assert (running.has_started, running.has_ended) == (True, False)
    ended = pod_with({"terminated": {"exitCode": 3, "reason": "Error"}})
    assert (ended.has_started, ended.has_ended, ended.exit_code) == (True, True, 3)


def test_stopped_pod_has_not_ended_before_its_container() -> None:
    """With its deadline passed, the pod is Failed while the container has its grace period."""
    stopped = pod_with({"running": {}}, phase="Failed", reason="DeadlineExceeded")
    assert (stopped.was_stopped, stopped.has_ended) == (True, False)


@pytest.mark.parametrize(
    ("reason", "fatal", "slow"),
    [
        ("InvalidImageName", True, False),
        ("ErrImagePull", False, True),
        ("CreateContainerConfigError", False, True),
        ("SomethingNew", False, False),
    ],
)
def test_waiting_reason_decides_how_long_to_wait(reason: str, *, fatal: bool, slow: bool) -> None:
    waiting = pod_with({"waiting": {"reason": reason, "message": "m"}}, phase="Pending").waiting
    assert waiting is not None
    assert (str(waiting), waiting.is_fatal, waiting.is_slow) == (f"{reason}: m", fatal, slow)


def test_evicted_pod_says_why() -> None:
    status = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."}
    state = pod_state({"metadata": {"name": "p"}, "spec": {}, "status": status})
    assert str(state.waiting) == "Evicted: The node was low on memory."
    assert state.waiting is not None
    assert state.waiting.is_fatal


# The log


def stamped(second: int, text: str, nanoseconds: int = 0) -> bytes:
    time = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
    return f"{time:%Y-%m-%dT%H:%M:%S}.{nanoseconds:09}Z {text}".encode()


def test_filter_drops_lines_that_were_read_before() -> None:
    lines = TimestampFilter()
    first = [lines.accept(stamped(at, f"line {at}")) for at in range(5)]
    assert first == [f"line {at}".encode() for at in range(5)]
    assert lines.since == "2026-01-01T00:00:03Z"
    again = [lines.accept(stamped(at, f"line {at}")) for at in range(3, 7)]
    assert again == [None, None, b"line 5", b"line 6"]


def test_filter_joins_long_lines_of_old_clusters() -> None:
    piece = "x" * 16384
    line = stamped(1, piece) + stamped(1, piece, 5) + stamped(1, "end", 7)
    assert TimestampFilter().accept(line) == f"{piece}{piece}end".encode()


class FakeCluster:
    """A cluster whose answers are scripted: pods' states, and what each log request yields."""

    def __init__(self, states: list[Any], logs: list[Any]) -> None:
        self._states = states
        self._logs = logs
        self.requests: list[tuple[bool, str | None]] = []

    def read_pod(self, name: str) -> Any:
        state = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        if isinstance(state, Exception):
            raise state
        if state == "evicted":
            status: dict[str, Any] = {
                "phase": "Failed",
                "reason": "Evicted",
                "message": "low on memory",
            }
            return {"metadata": {"name": name}, "spec": {}, "status": status}
        terminated: dict[str, Any] = {"terminated": {"exitCode": 0, "reason": "Completed"}}
        status = {
            "phase": "Running",
            "containerStatuses": [
                {
                    "name": "sqlmesh-runner",
                    "state": terminated if state == "ended" else {"running": {}},
                }
            ],
        }
        return {"metadata": {"name": name}, "spec": {}, "status": status}

    @contextmanager
    def open_log(
        self, _name: str, _container: str, *, follow: bool, since: str | None
    ) -> Iterator[Any]:
        self.requests.append((follow, since))
        chunks = self._logs.pop(0)
        if isinstance(chunks, Exception):
            raise chunks
        yield self._chunks(chunks)

    def _chunks(self, chunks: list[Any]) -> Iterator[bytes]:
        for chunk in chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk


def log_of(cluster: Any, patience: float = 60.0) -> PodLog:
    return PodLog(cluster, "p", patience=patience)


def test_log_is_read_until_an_attempt_after_the_end_is_whole() -> None:
    a, b, c = (stamped(at, text) + b"\n" for at, text in ((1, "a"), (2, "b"), (3, "c")))
    cluster = FakeCluster(
        ["running", "running", "ended", "ended"],
        [[a, b[:20], ConnectionError("cut")], [a, b], [b, ConnectionError("cut")], [b, c]],
    )
    assert list(log_of(cluster).lines()) == [b"a", b"b", b"c"]
    assert [follow for follow, _ in cluster.requests] == [True, True, False, False]
    assert cluster.requests[1][1] == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize("end", [[], [ConnectionError("cut")]])
def test_log_that_was_read_for_longer_than_patience_is_opened_again(
    monkeypatch: pytest.MonkeyPatch, end: list[Exception]
) -> None:
    now = 0.0
    monkeypatch.setattr(logs, "time", SimpleNamespace(monotonic=lambda: now))
    lines = [stamped(at, "a line") + b"\n" for at in range(9)]

    def slow() -> Iterator[bytes | Exception]:
        nonlocal now
        for line in lines:
            now += 60.0
            yield line
        yield from end

    cluster = FakeCluster(["running", "ended"], [slow(), lines[-2:]])
    assert len(list(log_of(cluster, patience=300.0).lines())) == 9


def test_log_of_evicted_pod_is_not_waited_for() -> None:
    a, b = (stamped(at, text) + b"\n" for at, text in ((1, "a"), (2, "b")))
    gone = ApiError(400, "container is not available")
    cluster = FakeCluster(["running", "evicted"], [[a], [b], gone, gone])
    assert list(log_of(cluster).lines()) == [b"a", b"b"]


def test_last_line_without_newline_is_read_once() -> None:
    last = stamped(1, "no newline")
    cluster = FakeCluster(["running", "ended"], [[last], [last]])
    assert list(log_of(cluster).lines()) == [b"no newline"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FakeCluster([ApiError(404, "not found")], []), "deleted from outside"),
        (lambda: FakeCluster([ApiError(403, "pods is forbidden")], []), "pods is forbidden"),
        (lambda: FakeCluster([ConnectionError("refused")], []), "did not answer for 0 seconds"),
        (
            lambda: FakeCluster(["running"], [ApiError(403, 'cannot get "pods/log"')]),
            "its log can't be read: cannot get",
        ),
        (
            lambda: FakeCluster(["running"], [ApiError(500, "dial tcp: refused")] * 3),
            "its log could not be read for 0 seconds",
        ),
    ],
)
def test_log_that_cannot_be_read_says_why(make: Callable[[], FakeCluster], words: str) -> None:
    with pytest.raises(PodLostError, match=words):
        list(log_of(make(), patience=0.0).lines())
