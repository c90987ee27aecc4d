"""What happens to a run when the network fails, or the rights do."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from acceptance.cuttable import CuttableProxy, cuttable_proxy
from acceptance.invocations import messages_of, payloads_of, request_for, wait_for
from acceptance.kubernetes.cluster import Namespace, kubeconfig_of_admin
from acceptance.kubernetes.conftest import MakeLauncher

from dagster_sqlmesh_pipes.errors import LaunchError
from dagster_sqlmesh_pipes.launchers.base import ExitStatus

pytestmark = pytest.mark.kubernetes

POD_RIGHTS = ["create", "get", "list", "patch", "delete"]
RIGHTS = {"pods": POD_RIGHTS, "pods/log": ["get"], "events": ["list"]}

Configure = Callable[..., str]


@pytest.fixture
def configure(tmp_path: Path, cluster: None) -> Configure:
    """Write kubeconfigs: with another server, or with a service account's token."""

    def write(*, port: int | None = None, token: str | None = None) -> str:
        config = kubeconfig_of_admin()
        server = config["clusters"][0]["cluster"]
        if port is not None:
            server["tls-server-name"] = urlsplit(server["server"]).hostname
            server["server"] = f"https://127.0.0.1:{port}"
        if token is not None:
            config["users"][0]["user"] = {"token": token}
        file = tmp_path / f"kubeconfig-{len(list(tmp_path.iterdir()))}"
        file.write_text(json.dumps(config))
        return str(file)

    return write


@contextmanager
def proxy_to_api_server() -> Iterator[CuttableProxy]:
    address = urlsplit(kubeconfig_of_admin()["clusters"][0]["cluster"]["server"])

    def connect() -> socket.socket:
        return socket.create_connection((str(address.hostname), address.port or 443))

    with cuttable_proxy(connect) as proxy:
        yield proxy


# The connection


def test_cut_connections_lose_and_double_nothing(
    talker: MakeLauncher, configure: Configure
) -> None:
    with proxy_to_api_server() as proxy:
        launcher = talker(kubeconfig_file=configure(port=proxy.port))
        with launcher.launch(request_for("many", "3000", "1000", "150000")) as runner:
            wait_for(runner, "opened")
            cuts = [threading.Timer(delay, proxy.cut) for delay in (0.5, 1.5, 2.5, 3.5)]
            for cut in cuts:
                cut.start()
            messages, sequence = messages_of(runner, after=0)
            assert runner.wait() == ExitStatus(code=0)
        assert proxy.connections > 5
    numbers = [int(payload.split()[0]) for payload in payloads_of(messages)]
    assert numbers == list(range(3000))
    assert sequence.missing == []


def test_connection_that_hangs_is_opened_again(talker: MakeLauncher, configure: Configure) -> None:
    with proxy_to_api_server() as proxy:
        launcher = talker(kubeconfig_file=configure(port=proxy.port))
        with launcher.launch(request_for("many", "100", "1000", "20000")) as runner:
            wait_for(runner, "opened")
            proxy.silent = True
            threading.Timer(3.0, setattr, (proxy, "silent", False)).start()
            messages, sequence = messages_of(runner, after=0)
            assert runner.wait() == ExitStatus(code=0)
    assert len(payloads_of(messages)) == 100
    assert sequence.missing == []


def test_api_server_that_stays_away_ends_the_wait(
    talker: MakeLauncher, configure: Configure, namespace: Namespace
) -> None:
    with proxy_to_api_server() as proxy:
        launcher = talker(
            kubeconfig_file=configure(port=proxy.port),
            reconnect_timeout=5,
            stop_grace=0,
            kill_grace=0,
        )
        with launcher.launch(request_for("stubborn")) as runner:
            wait_for(runner, "opened")
            name = runner.name.split()[1]
            proxy.refusing = True
            proxy.cut()
            end = runner.wait()
    assert end.code == 255
    assert "did not answer for 5 seconds" in (end.reason or "")
    assert "may still be running" in (end.reason or "")
    namespace.kubectl("delete", "pod", name, "--force", "--grace-period=0")


def test_stop_is_repeated_until_the_api_server_answers(
    talker: MakeLauncher, configure: Configure
) -> None:
    with proxy_to_api_server() as proxy:
        launcher = talker(kubeconfig_file=configure(port=proxy.port))
        with launcher.launch(request_for("wait-for-signal")) as runner:
            wait_for(runner, "opened")
            proxy.refusing = True
            proxy.cut()
            runner.stop()
            threading.Timer(4.0, setattr, (proxy, "refusing", False)).start()
            messages, sequence = messages_of(runner, after=0)
            assert runner.wait() == ExitStatus(code=143)
    assert payloads_of(messages) == ["SIGTERM"]
    assert sequence.missing == []


def test_api_server_that_is_not_there_is_one_clear_error(
    talker: MakeLauncher, configure: Configure
) -> None:
    with pytest.raises(LaunchError, match=r"Could not create pod(.|\n)*kubectl cluster-info"):
        talker(kubeconfig_file=configure(port=9)).launch(request_for("finish"))


# Rights


def rules(**rights: list[str]) -> list[dict[str, list[str]]]:
    return [
        {"apiGroups": [""], "resources": [resource], "verbs": verbs}
        for resource, verbs in rights.items()
        if verbs
    ]


def test_documented_role_is_enough(
    talker: MakeLauncher, configure: Configure, namespace: Namespace
) -> None:
    token = namespace.service_account("documented", rules(**RIGHTS))
    launcher = talker(kubeconfig_file=configure(token=token))
    with launcher.launch(request_for("wait-for-signal")) as runner:
        wait_for(runner, "opened")
        runner.stop()
        assert runner.wait() == ExitStatus(code=143)
    assert launcher.list_runners({"test": "none"}) == []


@pytest.mark.parametrize(
    ("verbs", "words"),
    [
        (["get"], 'cannot create resource "pods"'),
        (["create", "delete"], 'cannot get resource "pods"'),
    ],
)
def test_missing_right_is_one_clear_error(
    talker: MakeLauncher,
    configure: Configure,
    namespace: Namespace,
    verbs: list[str],
    words: str,
) -> None:
    token = namespace.service_account(f"only-{verbs[0]}", rules(pods=verbs))
    with pytest.raises(LaunchError) as caught:
        talker(kubeconfig_file=configure(token=token)).launch(request_for("finish"))
    assert words in str(caught.value)
    assert "Bind the Role of docs/how-to/kubernetes.md" in str(caught.value)


def test_runner_whose_log_may_not_be_read_is_stopped(
    talker: MakeLauncher, configure: Configure, namespace: Namespace
) -> None:
    token = namespace.service_account("no-log", rules(**{**RIGHTS, "pods/log": []}))
    launcher = talker(kubeconfig_file=configure(token=token), stop_grace=1, kill_grace=1)
    with launcher.launch(request_for("stubborn")) as runner:
        end = runner.wait()
    assert end.code != 0
    assert 'cannot get resource "pods/log"' in (end.reason or "")


def test_without_the_right_to_patch_a_stop_deletes(
    talker: MakeLauncher,
    configure: Configure,
    namespace: Namespace,
    caplog: pytest.LogCaptureFixture,
) -> None:
    without = [verb for verb in POD_RIGHTS if verb != "patch"]
    token = namespace.service_account("no-patch", rules(**{**RIGHTS, "pods": without}))
    with talker(kubeconfig_file=configure(token=token)).launch(
        request_for("wait-for-signal")
    ) as runner:
        wait_for(runner, "opened")
        runner.stop()
        end = runner.wait()
    assert end.code in (143, 255)
    assert "is deleted to stop it" in caplog.text
