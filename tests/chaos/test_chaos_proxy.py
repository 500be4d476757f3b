"""The proxy of the chaos runs does to connections what it says: else those runs would prove nothing."""

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.support.chaos.proxy import Proxy


class Echo:
    """A server that sends back what it gets."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    @staticmethod
    def _serve(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(4096):
                    connection.sendall(data)
            except OSError:
                return

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    echo = Echo()
    made = Proxy(echo.port)
    yield made
    made.close()
    echo.close()


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def echoed(connection: socket.socket, text: bytes) -> bytes:
    connection.sendall(text)
    return connection.recv(4096)


def ends(connection: socket.socket) -> bool:
    """Whether the other side ends it: orderly or by a reset."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def test_bytes_pass_both_ways(proxy: Proxy) -> None:
    with connect(proxy) as one, connect(proxy) as other:
        assert echoed(one, b"a") == b"a"
        assert echoed(other, b"b") == b"b"
        assert proxy.connections == 2


def test_a_cut_ends_connections_and_new_ones_are_welcome(proxy: Proxy) -> None:
    """The end of either side is the end of both."""
    with connect(proxy) as one:
        assert echoed(one, b"a") == b"a"
        assert proxy.cut() == 1
        assert ends(one)
    with connect(proxy) as other:
        assert echoed(other, b"b") == b"b"


def test_a_stall_holds_bytes_back_until_they_flow(proxy: Proxy) -> None:
    with connect(proxy) as one:
        assert echoed(one, b"a") == b"a"
        proxy.stall()
        one.sendall(b"b")
        one.settimeout(0.1)
        with pytest.raises(TimeoutError):
            one.recv(1)
        one.settimeout(5)
        proxy.flow()
        assert one.recv(1) == b"b"


def test_while_refusing_nobody_gets_in_and_then_at_the_same_port(proxy: Proxy) -> None:
    with connect(proxy) as one:
        assert echoed(one, b"a") == b"a"
        proxy.refuse()
        with pytest.raises(OSError):
            connect(proxy)
        proxy.accept()
        with connect(proxy) as other:
            assert echoed(other, b"b") == b"b"


def test_without_a_target_connections_end(proxy: Proxy) -> None:
    """As with a broker that is down."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        lonely = Proxy(unused.getsockname()[1])
    try:
        with connect(lonely) as one:
            assert ends(one)
    finally:
        lonely.close()
