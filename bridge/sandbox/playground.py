"""An embedded Kafka beside the sandbox (`--kafka`), so that the bridge can be tried without installing one.

    GET  /_sandbox/kafka                     its address, as text: what bootstrap_servers takes
    POST /_sandbox/kafka/TOPIC?key=u1        each line of the body becomes one record; without a key they have none

It forgets everything when the sandbox stops, and keeps 5 MiB per partition (broker.py says what else it is not).
"""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qs

import orjson
from confluent_kafka import KafkaException, Message, Producer

from bridge.sandbox.api import Reply, Request
from bridge.sandbox.broker import EmbeddedBroker
from bridge.sandbox.control import PREFIX

PATH: Final = f"{PREFIX}kafka"
TOPICS: Final = {"user-events": 6, "meisa-bridge.dead-letters": 1, "meisa-bridge.dead-letters.replays": 1}
"""Partitions by topic. An embedded broker answers no request to create one, so what a bridge would ask for is there."""
LINES_MAX: Final = 10_000
FLUSH_SECONDS_MAX: Final = 5.0
"""The sandbox answers nobody meanwhile; on loopback it takes some milliseconds."""


class Playground:
    """The broker, and a producer for it. Raises StartFailed where the broker does not start."""

    def __init__(self) -> None:
        self._broker = EmbeddedBroker()
        self._broker.start()
        for topic, partitions in TOPICS.items():
            self._broker.create_topic(topic, partitions)
        self.bootstrap_servers = self._broker.bootstrap_servers
        self._producer = Producer(
            {"bootstrap.servers": self.bootstrap_servers, "enable.idempotence": True, "log_level": 3}
        )

    def close(self) -> None:
        self._broker.stop()

    def handle(self, request: Request) -> Reply:
        """Answers what begins with PATH."""
        topic = request.path.removeprefix(PATH).strip("/")
        if request.method in ("GET", "HEAD") and not topic:
            return Reply(200, f"{self.bootstrap_servers}\n".encode(), content_type="text/plain; charset=utf-8")
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
            return _refused(403, "foreign_origin", "Requests from other web pages are refused.")
        if request.method != "POST" or topic not in TOPICS:
            return _refused(404, "not_found", f"Send POST {PATH}/TOPIC; the topics are {', '.join(TOPICS)}.")
        lines = [line for line in request.body.splitlines() if line.strip()]
        if request.too_large or len(lines) > LINES_MAX:
            return _refused(413, "too_large", f"At most {LINES_MAX:,} lines at once.")
        key = parse_qs(request.query).get("key", [None])[0]
        return self._produce(topic, key, lines)

    def _produce(self, topic: str, key: str | None, lines: list[bytes]) -> Reply:
        failures: list[str] = []

        def told(error: object, message: Message) -> None:
            if error is not None:
                failures.append(str(error))

        try:
            for line in lines:
                self._producer.produce(topic, line, key, on_delivery=told)
        except (KafkaException, BufferError) as error:
            failures.append(str(error))
        left = self._producer.flush(FLUSH_SECONDS_MAX)
        if failures or left:
            return _refused(503, "not_produced", failures[0] if failures else "The broker did not answer in time.")
        return Reply(200, orjson.dumps({"produced": len(lines)}))


def _refused(status: int, code: str, message: str) -> Reply:
    return Reply(status, orjson.dumps({"error": {"code": code, "message": message}}))
