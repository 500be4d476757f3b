"""A record's headers, from a client that fails where a header's name is not UTF-8.

The trap: confluent-kafka then returns a list with a hole in it *and* leaves an exception set. CPython's specialized
calls do not look for that, so that the exception comes up anywhere later, and whoever touches the hole crashes the
process. `methodcaller` calls through the interpreter's checked path, always: it raises SystemError, and nobody sees the
list.
"""

from __future__ import annotations

from operator import methodcaller

from confluent_kafka import Message

from bridge.model import UNREADABLE_HEADERS

_checked_headers = methodcaller("headers")


def read_headers(message: Message) -> tuple[tuple[str, bytes | None], ...]:
    """The headers as they came; anybody can write a name that is not text, and must not stop who reads it."""
    try:
        headers = _checked_headers(message)
    except (SystemError, UnicodeDecodeError):
        return UNREADABLE_HEADERS
    return tuple(headers) if headers else ()
