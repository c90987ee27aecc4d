"""A TCP proxy whose connections a test can cut, slow down and let die."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

ENGINE = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")


class CuttableProxy:
    """Pass bytes between TCP clients and a server until asked to cut."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.base_url = f"tcp://127.0.0.1:{self.port}"
        self.connections = 0
        self.refusing = False
        self.silent = False
        """Whether every connection stays open and passes nothing more on, as when the engine's
        machine has lost its network.
        """
        self.log_rate: float | None = None
        """Bytes a second of logs that come through."""
        self.cut_log_after: int | None = None
        """Bytes after which the next connection that carries a log is cut, once."""
        self.log_was_cut = False
        self._following: list[socket.socket] = []
        self._muted: frozenset[socket.socket] = frozenset()
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Cut all connections, as an engine does that is restarted."""
        with self._lock:
            pairs, self._open = self._open, []
        for end in pairs:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def mute_logs(self) -> None:
        """Pass nothing more through the connections that carry logs, and leave them open: a
        firewall that forgot them.
        """
        self._muted = frozenset(self._following)

    def close(self) -> None:
        """Stop."""
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.refusing:
                    client.close()
                    continue
                self.connections += 1
                server = self._connect()
                with self._lock:
                    self._open += [client, server]
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while chunk := source.recv(16384):
                if b"/logs?" in chunk:
                    self._following.append(sink)
                if self.silent or source in self._muted:
                    continue
                if source in self._following:
                    passed += len(chunk)
                    if self.cut_log_after and not self.log_was_cut and passed > self.cut_log_after:
                        self.log_was_cut = True
                        break
                    if self.log_rate:
                        time.sleep(len(chunk) / self.log_rate)
                sink.sendall(chunk)
            sink.shutdown(socket.SHUT_WR)


def connect_to_engine() -> socket.socket:
    """Connect to the Docker engine's socket."""
    engine = socket.socket(socket.AF_UNIX)
    engine.connect(ENGINE)
    return engine


@contextlib.contextmanager
def cuttable_proxy(connect: Callable[[], socket.socket]) -> Iterator[CuttableProxy]:
    """Run a proxy."""
    proxy = CuttableProxy(connect)
    try:
        yield proxy
    finally:
        proxy.close()
