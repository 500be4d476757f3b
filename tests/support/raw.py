"""Records that no well-behaved producer writes: through librdkafka itself, since Python's client takes text only."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import ClassVar

from bridge.sandbox.broker import _librdkafka
from tests.support.needs import require_or_skip

_TOPIC, _VALUE, _FLAGS, _HEADER = 1, 4, 7, 9
_COPY = 2


class _Bytes(ctypes.Structure):
    _fields_: ClassVar = [("at", ctypes.c_char_p), ("size", ctypes.c_size_t)]


class _Header(ctypes.Structure):
    _fields_: ClassVar = [("name", ctypes.c_char_p), ("value", ctypes.c_char_p), ("size", ctypes.c_ssize_t)]


class _Union(ctypes.Union):
    _fields_: ClassVar = [
        ("text", ctypes.c_char_p),
        ("number", ctypes.c_int),
        ("bytes", _Bytes),
        ("header", _Header),
        ("room", ctypes.c_char * 64),
    ]


class _Part(ctypes.Structure):
    _fields_: ClassVar = [("kind", ctypes.c_int), ("of", _Union)]


class RawProducer:
    """Writes records whose headers have any bytes but zeros for names."""

    def __init__(self, bootstrap_servers: str) -> None:
        library = _librdkafka()
        if library is None:
            require_or_skip("librdkafka as a file of its own: it is in confluent-kafka's wheels")
        self._c = library
        library.rd_kafka_conf_new.restype = ctypes.c_void_p
        library.rd_kafka_new.restype = ctypes.c_void_p
        library.rd_kafka_produceva.restype = ctypes.c_void_p
        said = ctypes.create_string_buffer(512)
        conf = ctypes.c_void_p(library.rd_kafka_conf_new())
        for name, value in (("bootstrap.servers", bootstrap_servers), ("log_level", "0")):
            library.rd_kafka_conf_set(conf, name.encode(), value.encode(), said, ctypes.c_size_t(len(said)))
        self._handle = ctypes.c_void_p(library.rd_kafka_new(0, conf, said, ctypes.c_size_t(len(said))))

    def produce(self, topic: str, value: bytes, headers: Sequence[tuple[bytes, bytes]]) -> None:
        parts = (_Part * (3 + len(headers)))()
        parts[0].kind, parts[0].of.text = _TOPIC, topic.encode()
        parts[1].kind, parts[1].of.bytes = _VALUE, _Bytes(value, len(value))
        parts[2].kind, parts[2].of.number = _FLAGS, _COPY
        for part, (name, content) in zip(parts[3:], headers, strict=True):
            part.kind, part.of.header = _HEADER, _Header(name, content, len(content))
        assert not self._c.rd_kafka_produceva(self._handle, parts, ctypes.c_size_t(len(parts)))

    def close(self) -> None:
        """Waits until everything is written."""
        assert self._c.rd_kafka_flush(self._handle, 10_000) == 0
        self._c.rd_kafka_destroy(self._handle)
