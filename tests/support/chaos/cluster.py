"""A real Kafka with two doors: one for the test, which never fails, and one through the proxy, for the bridges."""

from __future__ import annotations

from pathlib import Path

from bridge.sandbox.children import free_port
from tests.support.chaos.proxy import Proxy
from tests.support.kafka import RealKafka

SESSION_SECONDS = 3.0


class ProxiedKafka(RealKafka):
    """`bootstrap_servers` is the test's door. Whoever enters by `proxied_servers` is told to come by the proxy only."""

    def __init__(self, libs: Path, folder: Path, *, session_seconds: float = SESSION_SECONDS) -> None:
        self._port, inner_port, controller_port = free_port(), free_port(), free_port()
        self.session_seconds = session_seconds
        self.proxy = Proxy(inner_port)
        self.proxied_servers = f"127.0.0.1:{self.proxy.port}"
        here = "127.0.0.1"
        super().__init__(
            libs,
            folder,
            **{
                "controller.quorum.bootstrap.servers": f"{here}:{controller_port}",
                "listeners": f"PLAINTEXT://{here}:{self._port},PROXIED://{here}:{inner_port},"
                f"CONTROLLER://{here}:{controller_port}",
                "advertised.listeners": f"PLAINTEXT://{here}:{self._port},PROXIED://{self.proxied_servers}",
                "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT",
                "group.consumer.session.timeout.ms": str(int(session_seconds * 1000)),
            },
        )

    def start(self) -> None:
        self.bootstrap_servers = f"127.0.0.1:{self._port}"  # not the port that RealKafka would have chosen
        super().start()

    def close(self) -> None:
        self.stop(kill=True)
        self.proxy.close()
