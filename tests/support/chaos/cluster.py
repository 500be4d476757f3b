"""A real Kafka with several ways in: one for the test, which never fails, and some through proxies, for the bridges."""

from __future__ import annotations

from pathlib import Path

from bridge.sandbox.children import free_port
from tests.support.chaos.proxy import Proxy
from tests.support.kafka import EmbeddedKafka, RealKafka

SESSION_SECONDS = 3.0


DOORS = 3
"""Bridges that have a way to Kafka of their own: one may be cut off while the others are not."""


class ProxiedKafka(RealKafka):
    """`bootstrap_servers` is the test's way in. Whoever enters by `door(n)` is told to come by that proxy only."""

    def __init__(self, libs: Path, folder: Path, *, session_seconds: float = SESSION_SECONDS) -> None:
        ports = [free_port() for _ in range(DOORS + 2)]
        self._port, controller_port = ports[DOORS:]
        self.session_seconds = session_seconds
        self.proxies = [Proxy(port) for port in ports[:DOORS]]
        here = "127.0.0.1"
        names = [f"DOOR{number}" for number in range(DOORS)]
        listeners = [f"{name}://{here}:{port}" for name, port in zip(names, ports, strict=False)]
        advertised = [f"{name}://{here}:{proxy.port}" for name, proxy in zip(names, self.proxies, strict=True)]
        super().__init__(
            libs,
            folder,
            **{
                "controller.quorum.bootstrap.servers": f"{here}:{controller_port}",
                "listeners": ",".join(
                    [f"PLAINTEXT://{here}:{self._port}", *listeners, f"CONTROLLER://{here}:{controller_port}"]
                ),
                "advertised.listeners": ",".join([f"PLAINTEXT://{here}:{self._port}", *advertised]),
                "listener.security.protocol.map": ",".join(
                    f"{name}:PLAINTEXT" for name in ("CONTROLLER", "PLAINTEXT", *names)
                ),
                "group.consumer.session.timeout.ms": str(int(session_seconds * 1000)),
            },
        )

    def door(self, number: int) -> str:
        """`bootstrap.servers` of one of the ways through a proxy."""
        return f"127.0.0.1:{self.proxies[number].port}"

    def start(self) -> None:
        self.bootstrap_servers = f"127.0.0.1:{self._port}"  # not the port that RealKafka would have chosen
        super().start()

    def close(self) -> None:
        self.stop(kill=True)
        for proxy in self.proxies:
            proxy.close()


class DirectKafka(EmbeddedKafka):
    """The embedded broker where a real one is not at hand: every door is the test's own, and no proxy stands there."""

    def __init__(self) -> None:
        super().__init__()
        self.session_seconds = SESSION_SECONDS
        self.proxies: list[Proxy] = []

    def door(self, number: int) -> str:
        return self.bootstrap_servers

    def close(self) -> None:
        self.stop()
