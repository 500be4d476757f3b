"""The embedded broker as a process: it starts, answers, refuses in words, and never outlives its parent."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer

from bridge.errors import StartFailed
from bridge.sandbox.broker import EmbeddedBroker


def test_topics_have_the_partitions_that_were_asked_for_and_exist_once() -> None:
    """A second creation is refused in words, and the broker goes on."""
    with EmbeddedBroker() as broker:
        broker.create_topic("six", 6)
        with pytest.raises(StartFailed, match="already exists"):
            broker.create_topic("six", 6)
        consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": "g", "log_level": 0})
        topics = consumer.list_topics(timeout=10).topics
        consumer.close()
        assert {name: len(topic.partitions) for name, topic in topics.items()} == {"six": 6}


async def test_it_ends_with_its_context() -> None:
    """After `async with` nothing of it is left, and it refuses commands."""
    async with EmbeddedBroker() as broker:
        pid = broker.pid
        assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(StartFailed, match="not running"):
        broker.create_topic("late", 1)


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for the process in /proc (Linux)")
def test_it_does_not_outlive_a_parent_that_was_killed() -> None:
    """The pipe closes when the parent dies, however it dies, and that ends the broker."""
    script = (
        "import os, signal\n"
        "from bridge.sandbox.broker import EmbeddedBroker\n"
        "broker = EmbeddedBroker().start()\n"
        "print(broker.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    # The broker shares no pipe of ours: it is gone once its own standard input is closed.
    parent.wait(30)
    parent.stdout.close()
    for _ in range(2_000):
        if _gone(pid):
            return
        time.sleep(0.01)
    pytest.fail(f"the broker (pid {pid}) outlived its parent")


def _gone(pid: int) -> bool:
    """Ended, though perhaps not yet collected by whoever inherited it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True
