"""Brokers for tests: a real Apache Kafka (Java), and the embedded one. Same handle, same suite.

`real_kafka` and `embedded_kafka` live for the session: give every test topics and groups of its own (`unique`).
`any_kafka` is both, one after the other; its real half is marked `kafka`.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import itertools
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from bridge.sandbox.broker import EmbeddedBroker
from bridge.sandbox.children import free_port
from tests.support.needs import require_or_skip

KAFKA = "4.1.1"
START_SECONDS_MAX = 60.0

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>meisa-bridge</groupId>
  <artifactId>test-kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""

_UNTIL_TOLD = """
"$@" </dev/null & child=$!
read -r how
kill -"${how:-KILL}" $child
wait $child
"""
"""Runs a broker until a line names a signal for it, or until the pipe closes: no broker outlives the test run."""

_numbers = itertools.count(1)


def unique(prefix: str) -> str:
    """A name for a topic or group that no other test has."""
    return f"{prefix}-{os.getpid()}-{next(_numbers)}"


class Cluster:
    """What tests do with a broker of either kind."""

    kind = ""
    bootstrap_servers = ""

    def create_topic(self, name: str, partitions: int = 1, **config: str) -> str:
        raise NotImplementedError

    def delete_records(self, topic: str, partition: int, before_offset: int) -> None:
        raise NotImplementedError

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})

    def restart(self) -> None:
        """Everybody is disconnected; records and groups stay."""
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError

    def produce(self, topic: str, *records: bytes | dict[str, Any]) -> None:
        """Writes values, or dicts of Producer.produce's arguments (key, value, partition, headers, timestamp)."""
        producer = Producer({"bootstrap.servers": self.bootstrap_servers, "linger.ms": 1, "log_level": 0})
        failed: list[Any] = []
        for record in records:
            arguments = {"value": record} if isinstance(record, bytes) else record
            producer.produce(topic, on_delivery=lambda error, _: failed.append(error) if error else None, **arguments)
            producer.poll(0)
        left = producer.flush(30)
        assert not failed and not left, f"{left} records were not written: {failed[:3]}"

    def committed(self, group: str, topic: str, partition: int = 0) -> tuple[int, str]:
        """Offset and metadata as the group has them; -1001 where it has none."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap_servers, "group.id": group, "log_level": 0})
        try:
            (answer,) = consumer.committed([TopicPartition(topic, partition)], timeout=10)
            assert answer.error is None, answer.error
            return answer.offset, answer.metadata or ""
        finally:
            consumer.close()

    def commit(self, group: str, topic: str, partition: int, offset: int, metadata: str = "") -> None:
        """Commits for a group without members."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap_servers, "group.id": group, "log_level": 0})
        try:
            consumer.commit(offsets=[TopicPartition(topic, partition, offset, metadata)], asynchronous=False)
        finally:
            consumer.close()

    def end(self, topic: str, partition: int = 0) -> int:
        """The offset after the last record."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap_servers, "group.id": unique("end"), "log_level": 3})
        try:
            end: int = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)[1]
            return end
        finally:
            consumer.close()

    def read(self, topic: str, count: int, partition: int = 0) -> list[Any]:
        """The first `count` messages of a partition, as confluent-kafka gives them."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap_servers, "group.id": unique("read"), "log_level": 0})
        try:
            consumer.assign([TopicPartition(topic, partition, 0)])
            found: list[Any] = []
            deadline = time.monotonic() + 15
            while len(found) < count and time.monotonic() < deadline:
                found += [message for message in consumer.consume(count - len(found), 0.5) if message.error() is None]
            return found
        finally:
            consumer.close()


class EmbeddedKafka(Cluster):
    """librdkafka's mock cluster with quick heartbeats; `broker` reaches its switches."""

    kind = "embedded"

    def __init__(self, *, session_seconds: float = 3.0) -> None:
        self.broker = EmbeddedBroker(heartbeat_seconds=0.2, session_seconds=session_seconds).start()
        self.bootstrap_servers = self.broker.bootstrap_servers

    def create_topic(self, name: str, partitions: int = 1, **config: str) -> str:
        self.broker.create_topic(name, partitions)
        return name

    def delete_records(self, topic: str, partition: int, before_offset: int) -> None:
        self.broker.delete_records(topic, partition, before_offset)

    def restart(self) -> None:
        self.broker.disconnect()
        self.broker.reconnect()

    def stop(self) -> None:
        self.broker.stop()


class RealKafka(Cluster):
    """One Apache Kafka broker (KRaft, in one process), with the short group timers that tests want."""

    kind = "real"

    def __init__(self, libs: Path, folder: Path, *, users: Sequence[str] = (), **overrides: str) -> None:
        """`users` are SCRAM credentials as `kafka-storage format --add-scram` takes them."""
        self._libs = libs
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        port, controller_port = free_port(), free_port()
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller_port}",
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "log.dirs": str(folder / "data"),
            "auto.create.topics.enable": "false",
            # A killed broker may be registered again only when its former session has ended.
            "broker.session.timeout.ms": "1500",
            "broker.heartbeat.interval.ms": "300",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "2",
            "group.initial.rebalance.delay.ms": "0",
            "group.consumer.min.heartbeat.interval.ms": "100",
            "group.consumer.heartbeat.interval.ms": "300",
            "group.consumer.min.session.timeout.ms": "1000",
            "group.consumer.session.timeout.ms": "6000",
            "group.min.session.timeout.ms": "1000",
            **overrides,
        }
        # The first listener is the one that the helpers here use.
        self.bootstrap_servers = settings["advertised.listeners"].split(",")[0].partition("://")[2]
        self._settings = folder / "server.properties"
        self._settings.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # In one word: an id may begin with a dash.
        scram = [f"--add-scram={user}" for user in users]
        self._run(
            *("kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(self._settings)),
            *("--standalone", *scram),
        )
        self.start()

    def _command(self, main: str, *arguments: str) -> list[str]:
        # Only the first compiler tier and a serial collector: the broker lives for minutes on a small machine.
        flags = [
            "-Xmx512m",
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        ]
        return ["java", *flags, "-cp", f"{self._libs}/*", main, *arguments]

    def _run(self, main: str, *arguments: str) -> None:
        done = subprocess.run(self._command(main, *arguments), capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{main}: {done.stdout}{done.stderr}"

    def start(self) -> None:
        with (self._folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", _UNTIL_TOLD, "sh", *self._command("kafka.Kafka", str(self._settings))],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + START_SECONDS_MAX
        client = self._admin()
        while True:
            with contextlib.suppress(Exception):
                if client.list_topics(timeout=1).brokers:
                    return
            assert self._process.poll() is None, f"the broker ended: {self._log_tail()}"
            assert time.monotonic() < deadline, f"the broker did not come up: {self._log_tail()}"
            time.sleep(0.1)

    def _log_tail(self) -> str:
        return (self._folder / "broker.log").read_text(errors="replace")[-2_000:]

    def stop(self, *, kill: bool = False) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.write(b"KILL\n" if kill else b"TERM\n")
        process.stdin.close()
        process.wait(30)

    def restart(self) -> None:
        self.stop(kill=True)
        self.start()

    def create_topic(self, name: str, partitions: int = 1, **config: str) -> str:
        settings = {key.replace("_", "."): value for key, value in config.items()}
        client = self._admin()
        topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=settings)
        for future in client.create_topics([topic]).values():
            future.result(15)
        # A broker may answer for a moment as if a new topic did not exist.
        deadline = time.monotonic() + 10
        while len(client.list_topics(name, timeout=5).topics[name].partitions) < partitions:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return name

    def delete_records(self, topic: str, partition: int, before_offset: int) -> None:
        client = self._admin()
        for future in client.delete_records([TopicPartition(topic, partition, before_offset)]).values():
            future.result(15)

    def delete_topic(self, name: str) -> None:
        client = self._admin()
        for future in client.delete_topics([name]).values():
            future.result(15)

    def recreate_topic(self, name: str) -> None:
        """Another topic of the same name, with one partition."""
        self.delete_topic(name)
        deadline = time.monotonic() + 10
        while True:
            try:
                self.create_topic(name)
                return
            except KafkaException:  # it exists until the deletion has come through
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def static_members(self, group: str) -> set[str | None]:
        """The group's members by their group.instance.id, as the coordinator has them."""
        client = self._admin()
        asked = client.describe_consumer_groups([group], request_timeout=10)
        return {each.group_instance_id for each in asked[group].result(10).members}


def kafka_libs() -> Path:
    """The broker's jars, from Maven Central the first time (54 MB, about a minute). Skips where that cannot be."""
    if shutil.which("java") is None:
        require_or_skip("a real Kafka needs Java 17 (Debian: apt-get install openjdk-17-jre-headless)")
    cache = Path(os.environ.get("MEISA_BRIDGE_CACHE", Path.home() / ".cache" / "meisa-bridge")).expanduser()
    home = cache / f"kafka-{KAFKA}"
    libs = home / "libs"
    home.mkdir(parents=True, exist_ok=True)
    with (home / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two runs at once, one downloads and the other waits
        if _complete(libs):
            return libs
        if shutil.which("mvn") is None:
            require_or_skip("the jars of a real Kafka come with Maven (Debian: apt-get install maven)")
        (home / "pom.xml").write_text(_POM)
        fresh = home / "libs.new"
        shutil.rmtree(fresh, ignore_errors=True)
        command = ["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={fresh}"]
        done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode or not _complete(fresh):
            require_or_skip(f"Maven could not fetch Kafka's jars: {(done.stdout + done.stderr).strip()[-300:]}")
        shutil.rmtree(libs, ignore_errors=True)
        fresh.rename(libs)  # whole or not at all
    return libs


def _complete(libs: Path) -> bool:
    return (libs / f"kafka_2.13-{KAFKA}.jar").exists() and any(libs.glob("slf4j-simple-*.jar"))


@pytest.fixture(scope="session")
def real_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealKafka]:
    kafka = RealKafka(kafka_libs(), tmp_path_factory.mktemp("kafka"))
    yield kafka
    kafka.stop(kill=True)


@pytest.fixture(scope="session")
def embedded_kafka() -> Iterator[EmbeddedKafka]:
    kafka = EmbeddedKafka()
    yield kafka
    kafka.stop()


@pytest.fixture(scope="session", params=["embedded", pytest.param("real", marks=pytest.mark.kafka)])
def any_kafka(request: pytest.FixtureRequest) -> Cluster:
    cluster: Cluster = request.getfixturevalue(f"{request.param}_kafka")
    return cluster
