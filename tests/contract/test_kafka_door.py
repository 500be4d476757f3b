"""A look at what stands where a broker should: nothing, something else, or nobody that can be found."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from bridge.errors import KafkaFault
from bridge.kafka.diagnosis import diagnosed
from bridge.sandbox.children import free_port

TLS = {"security.protocol": "SSL"}


@contextmanager
def answering(answer: Callable[[bytes], bytes]) -> Iterator[str]:
    """A server that answers the first bytes of each connection and closes it; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(answer(connection.recv(4096)))

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def test_nobody_is_there() -> None:
    """A closed port, and a name that is none: what the system says, and where to look."""
    for address, says in ((f"127.0.0.1:{free_port()}", "refused"), ("a..b:9092", "")):
        found = diagnosed(address, {}, [])
        assert found is not None and found.fault is KafkaFault.UNREACHABLE and found.setting == ("bootstrap_servers",)
        assert f"no Kafka broker answers at {address}" in str(found) and says in str(found)


@pytest.mark.parametrize("properties", [{}, TLS])
@pytest.mark.parametrize(
    "answer",
    [
        lambda asked: b"",
        lambda asked: b"HTTP/1.1 400 Bad Request\r\n\r\n",
        lambda asked: b"\x00\x00\x00\x0c\x00\x00\x00\x01\x00\x21\x00\x00\x00\x01\x7f\xff",
        lambda asked: b"\x7f" * 8_000,
    ],
    ids=["nothing", "http", "a length that lies", "too much"],
)
def test_something_else_is_there(answer: Callable[[bytes], bytes], properties: dict[str, str]) -> None:
    """It is not explained, and breaks nothing: whoever asked says what librdkafka said."""
    with answering(answer) as address:
        assert diagnosed(address, properties, []) is None


def test_of_several_brokers_one_that_is_up_tells_more() -> None:
    """The first is away, the second wants a user: that is what must be told."""
    names = b"".join(len(name).to_bytes(2, "big") + name for name in (b"SCRAM-SHA-512", b"PLAIN"))
    body = b"\x00\x00\x00\x01" + (33).to_bytes(2, "big") + (2).to_bytes(4, "big") + names
    with answering(lambda asked: len(body).to_bytes(4, "big") + body if asked[4:6] == b"\x00\x11" else b"") as address:
        found = diagnosed(f"127.0.0.1:{free_port()},{address}", {}, [])
        assert found is not None and found.fault is KafkaFault.PROTOCOL
        assert f"the broker at {address} wants a user" in str(found) and "one of PLAIN, SCRAM-SHA-512" in str(found)
