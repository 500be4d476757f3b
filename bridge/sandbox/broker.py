"""The embedded broker: librdkafka's mock cluster in a process of its own, for the demo and for tests without Java.

It speaks the Kafka protocol to ordinary clients: KIP-848 and classic groups, commit metadata, watermarks, headers,
topics created on first use. What it is not:

- it keeps at most 5 MiB per partition and silently drops older records: pace production into it;
- it forgets everything when it stops;
- AdminClient.create_topics is not answered (use `create_topic` here, else a topic appears on first use with 4
  partitions); `offsets_for_times` answers -1 for every time; commit metadata of any length is taken; transactions are
  not isolated.

The process serves one cluster and reads commands from standard input, one JSON list a line, answering each with one
JSON object. It ends when that pipe closes, so it cannot outlive its parent, whatever became of it. The mock's control
functions are not in confluent-kafka's Python interface; they are called in the very librdkafka that it ships.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import ctypes.util
import json
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bridge.errors import StartFailed

START_SECONDS_MAX = 20.0
"""Starting takes 0.3 s; a machine this much slower than that is better told than waited for."""
ANSWER_SECONDS_MAX = 10.0
STOP_SECONDS_MAX = 5.0

_RD_KAFKA_PRODUCER = 0


class EmbeddedBroker:
    """The parent's end. `start()` returns when the broker takes connections; use `async with` on an event loop.

    `heartbeat_seconds` is what KIP-848 members are told: a rebalance takes about two of these (Kafka: 5 s).
    """

    def __init__(self, *, brokers: int = 1, heartbeat_seconds: float = 0.5, session_seconds: float = 30.0) -> None:
        self._settings = {
            "brokers": brokers,
            "heartbeat_ms": int(heartbeat_seconds * 1000),
            "session_ms": int(session_seconds * 1000),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._brokers = brokers
        self.bootstrap_servers = ""

    def start(self) -> Self:
        """Starts the process; blocks for about 0.3 s. Raises StartFailed with what the process said."""
        self._process = subprocess.Popen(  # noqa: S603 - our own module by our own interpreter
            [sys.executable, "-m", "bridge.sandbox.broker", json.dumps(self._settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            answer = self._answer(START_SECONDS_MAX)
        except StartFailed:
            self.stop()
            raise
        self.bootstrap_servers = str(answer["bootstrap_servers"])
        # Nobody reads the child's standard error from here on; it says next to nothing, so the pipe never fills.
        return self

    def stop(self) -> None:
        """Ends the process and forgets all its records. May be called twice."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            process.stdin.close()  # type: ignore[union-attr]
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def create_topic(self, name: str, partitions: int = 4) -> None:
        """Raises StartFailed where the topic exists already or librdkafka's control functions cannot be reached."""
        self._ask("create_topic", name, partitions)

    def delete_records(self, topic: str, partition: int, before_offset: int) -> None:
        """As retention does: the log starts at `before_offset` from now on."""
        self._ask("delete_records", topic, partition, before_offset)

    def push_errors(self, api_key: int, errors: Sequence[int]) -> None:
        """The next requests of this kind are answered with these Kafka error codes, one each."""
        self._ask("push_errors", api_key, list(errors))

    def limit_api(self, api_key: int, version_min: int, version_max: int) -> None:
        """What the broker says it understands from now on, to new connections; -1, -1 takes an API away."""
        self._ask("limit_api", api_key, version_min, version_max)

    def disconnect(self) -> None:
        """Cuts all connections and refuses new ones until `reconnect`; records and groups stay."""
        for broker in range(1, self._brokers + 1):
            self._ask("set_down", broker)

    def reconnect(self) -> None:
        for broker in range(1, self._brokers + 1):
            self._ask("set_up", broker)

    def _ask(self, command: str, *arguments: Any) -> None:
        with self._lock:
            if self._process is None or self._process.stdin is None:
                raise StartFailed("the embedded broker is not running")
            self._process.stdin.write(json.dumps([command, *arguments]).encode() + b"\n")
            self._process.stdin.flush()
            self._answer(ANSWER_SECONDS_MAX)

    def _answer(self, seconds: float) -> dict[str, Any]:
        """One line of the process. It answers in one write, so a readable pipe holds a whole line."""
        process = self._process
        assert process is not None and process.stdout is not None and process.stderr is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                raise StartFailed(f"the embedded broker did not answer within {seconds:g} s")
        line = process.stdout.readline()
        if not line:
            said = process.stderr.read().decode("utf-8", "replace").strip().splitlines()
            raise StartFailed(f"the embedded broker ended: {said[-1] if said else 'it said nothing'}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise StartFailed(f"the embedded broker refused: {answer['error']}")
        return answer

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)


# --- inside the process -----------------------------------------------------------------------------------------------


class _Cluster:
    """A mock cluster through librdkafka's C interface (rdkafka_mock.h)."""

    def __init__(self, library: ctypes.CDLL, *, brokers: int, heartbeat_ms: int, session_ms: int) -> None:
        self._c = library
        self._c.rd_kafka_conf_new.restype = ctypes.c_void_p
        self._c.rd_kafka_new.restype = ctypes.c_void_p
        self._c.rd_kafka_handle_mock_cluster.restype = ctypes.c_void_p
        self._c.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
        self._c.rd_kafka_err2str.restype = ctypes.c_char_p
        said = ctypes.create_string_buffer(512)
        conf = ctypes.c_void_p(self._c.rd_kafka_conf_new())
        for name, value in (("test.mock.num.brokers", str(brokers)), ("log_level", "3")):
            self._c.rd_kafka_conf_set(conf, name.encode(), value.encode(), said, ctypes.c_size_t(len(said)))
        handle = self._c.rd_kafka_new(_RD_KAFKA_PRODUCER, conf, said, ctypes.c_size_t(len(said)))
        if not handle:
            raise StartFailed(f"librdkafka made no mock cluster: {said.value.decode()}")
        self._cluster = ctypes.c_void_p(self._c.rd_kafka_handle_mock_cluster(ctypes.c_void_p(handle)))
        # Classic groups wait this long for further members; the mock's own 3 s make every rebalance slow.
        self._c.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, ctypes.c_int32(100))
        self._c.rd_kafka_mock_set_group_consumer_heartbeat_interval_ms(self._cluster, heartbeat_ms)
        self._c.rd_kafka_mock_set_group_consumer_session_timeout_ms(self._cluster, session_ms)
        self.bootstrap_servers: str = self._c.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def _check(self, code: int) -> None:
        if code:
            raise StartFailed(self._c.rd_kafka_err2str(code).decode())

    def create_topic(self, name: str, partitions: int) -> None:
        self._check(self._c.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1))

    def delete_records(self, topic: str, partition: int, before_offset: int) -> None:
        self._check(
            self._c.rd_kafka_mock_partition_delete_records(
                self._cluster, topic.encode(), ctypes.c_int32(partition), ctypes.c_int64(before_offset)
            )
        )

    def push_errors(self, api_key: int, errors: list[int]) -> None:
        codes = (ctypes.c_int * len(errors))(*errors)
        self._c.rd_kafka_mock_push_request_errors_array(
            self._cluster, ctypes.c_int16(api_key), ctypes.c_size_t(len(errors)), codes
        )

    def limit_api(self, api_key: int, version_min: int, version_max: int) -> None:
        self._check(
            self._c.rd_kafka_mock_set_apiversion(
                self._cluster, ctypes.c_int16(api_key), ctypes.c_int16(version_min), ctypes.c_int16(version_max)
            )
        )

    def set_down(self, broker: int) -> None:
        self._check(self._c.rd_kafka_mock_broker_set_down(self._cluster, ctypes.c_int32(broker)))

    def set_up(self, broker: int) -> None:
        self._check(self._c.rd_kafka_mock_broker_set_up(self._cluster, ctypes.c_int32(broker)))


class _PlainCluster:
    """The same cluster without control functions, where the librdkafka in use cannot be found as a file."""

    def __init__(self, *, brokers: int) -> None:
        from confluent_kafka import Producer

        self._producer = Producer({"test.mock.num.brokers": brokers, "log_level": 3})
        nodes = self._producer.list_topics(timeout=10).brokers.values()
        self.bootstrap_servers = ",".join(f"{node.host}:{node.port}" for node in nodes)


def _librdkafka() -> ctypes.CDLL | None:
    """The library that confluent-kafka itself loaded: beside the package in wheels, else the system's."""
    import confluent_kafka

    package = Path(confluent_kafka.__file__).parent
    found: list[str] = []
    for folder in (package.parent / "confluent_kafka.libs", package / ".dylibs"):
        found += [str(path) for path in sorted(folder.glob("librdkafka*"))]
    system = ctypes.util.find_library("rdkafka")
    for path in [*found, *([system] if system else [])]:
        with contextlib.suppress(OSError):
            library = ctypes.CDLL(path)
            if hasattr(library, "rd_kafka_mock_topic_create"):
                return library
    return None


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _serve(settings: dict[str, int]) -> None:
    # Ctrl-C reaches the whole group of processes; the broker must outlast the bridge's draining.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    library = _librdkafka()
    cluster = _Cluster(library, **settings) if library else _PlainCluster(brokers=settings["brokers"])
    _say({"bootstrap_servers": cluster.bootstrap_servers})
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        action: Callable[..., None] | None = getattr(cluster, command, None)
        try:
            if action is None:
                raise StartFailed(f"{command} needs librdkafka's control functions, which were not found here")
            action(*arguments)
        except StartFailed as error:
            _say({"error": str(error)})
        else:
            _say({})


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
