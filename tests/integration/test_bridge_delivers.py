"""The main promises end to end: a real process, a real broker (and the embedded one), the sandbox's ledger as judge."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.sandbox.stream import POISONS, SampleEvent, events
from tests.support.kafka import Cluster
from tests.support.service import Sandbox, Service, sandbox, service, wait_for


@pytest.fixture(scope="module")
def meisa() -> Iterator[Sandbox]:
    """One process for all tests here; `service` resets it."""
    with sandbox() as made:
        yield made


def stream(count: int, users: int, bad: int = 0, seed: int = 1) -> list[SampleEvent]:
    return list(events(seed, count, users, poison=bad, now_wall_seconds=time.time()))


def finished(made: Service, count: int) -> None:
    wait_for(lambda: made.committed() == count, f"{count} events committed")


def test_mixed_events_arrive_in_order_with_nothing_lost_and_poison_dead_lettered(
    any_kafka: Cluster, meisa: Sandbox, tmp_path: Path
) -> None:
    """1,500 events of 100 users with 30 bad ones: each user's calls in order, none lost or doubled, every bad event a
    dead letter of the right kind with its headers, and every offset committed."""
    produced = stream(1500, 100, bad=30)
    with service(any_kafka, tmp_path, meisa, latency_ms=2) as made:
        made.produce(produced)
        bridge = made.start()
        finished(made, 1500)
        told = made.status()
        bridge.end()
        found = made.audit(produced)
        assert (found.lost, found.out_of_order, found.repeated, found.wrong_letters) == ([], [], [], [])
        assert made.came_again() == set()
        assert found.merged > 0, "upserts that waited were to leave together"
        assert sum(found.letters.values()) == 30
        assert {poison for _, poison in found.letters} == set(POISONS)
        letter = next(m for m in made.letters() if dict(m.headers())["meisa-bridge.kind"] == b"rejected")
        headers = dict(letter.headers())
        assert headers["content-type"] == b"application/json", "the record's own headers stay"
        assert headers["meisa-bridge.status"] == b"400"
        assert headers["meisa-bridge.rule"] == b"login"
        assert headers["meisa-bridge.action"] == b"upsert"
        assert headers["meisa-bridge.undelivered"] == b"[0]"
        assert headers["meisa-bridge.source.topic"] == made.topic.encode()
        assert headers["meisa-bridge.attempts"] == b"1"
        uses = {use["name"]: use for use in told["rule_uses"]}
        assert told["traffic"]["consumed"] == 1500
        assert told["traffic"]["calls"]["400"] > 0
        assert sum(each["count"] for each in told["traffic"]["delays"]) > 1000
        assert uses["login"]["events"] >= uses["login"]["letters"] > 0 and uses["login"]["last_error"]


def test_kill_9_in_the_middle_loses_nothing(any_kafka: Cluster, meisa: Sandbox, tmp_path: Path) -> None:
    """What a crash leaves uncommitted comes again: every event arrives, no email goes out twice, and only what was in
    flight or not yet committed is repeated."""
    produced = stream(1000, 100, bad=10, seed=2)
    with service(any_kafka, tmp_path, meisa, latency_ms=5) as made:
        made.produce(produced)
        first = made.start()
        wait_for(lambda: made.sandbox.received() > 250 and made.committed() > 0, "the first calls and commits")
        first.crash()
        assert made.committed() < 1000, "it was to be killed in the middle"
        told_finished = made.finished_by_commits()
        made.start().check()
        finished(made, 1000)
        found = made.audit(produced)
        assert found.lost == []
        assert found.wrong_letters == []
        assert found.emails_twice == []
        assert made.came_again().isdisjoint(told_finished), "it was committed as finished"
        assert told_finished, "the crash came too early to prove anything"


@pytest.mark.slow
def test_a_graceful_stop_repeats_nothing(any_kafka: Cluster, meisa: Sandbox, tmp_path: Path) -> None:
    """SIGTERM in the middle: calls in flight are awaited and committed, and the next process goes on after them."""
    produced = stream(1000, 100, seed=3)
    with service(any_kafka, tmp_path, meisa, latency_ms=5) as made:
        made.produce(produced)
        first = made.start()
        wait_for(lambda: made.sandbox.received() > 250, "the first calls")
        first.end()
        assert 0 < made.committed() < 1000, "it was to be stopped in the middle"
        made.start().check()
        finished(made, 1000)
        found = made.audit(produced)
        assert (found.lost, found.repeated, found.out_of_order) == ([], [], [])
        assert made.came_again() == set()


@pytest.mark.slow
def test_a_refused_key_stops_without_loss_and_work_goes_on_by_itself(
    any_kafka: Cluster, meisa: Sandbox, tmp_path: Path
) -> None:
    """401 in the middle: nothing more is committed or dead-lettered, readiness says why; once the key is accepted again
    the rest is delivered, in order, nothing lost."""
    produced = stream(1000, 100, seed=4)
    with service(any_kafka, tmp_path, meisa, latency_ms=5) as made:
        made.produce(produced)
        bridge = made.start()
        wait_for(lambda: made.sandbox.received() > 250, "the first calls")
        made.sandbox.post("keys", key="meisa_test_sandbox", revoked=True)
        wait_for(lambda: made.status()["refused_keys"] == ["default"], "the refusal to show")
        before = made.committed()
        assert before < 1000
        wait_for(lambda: any(w["reason"] == "key_refused" for w in made.status()["waiting_for"]), "the reason to show")
        bridge.check()
        made.sandbox.post("keys", key="meisa_test_sandbox", revoked=False)
        finished(made, 1000)
        found = made.audit(produced)
        assert (found.lost, found.out_of_order, found.wrong_letters) == ([], [], [])
        assert found.refused.keys() <= {
            "upsert 401",
            "track 401",
            "trigger 401",
            "enroll 401",
            "add_tag 401",
            "remove_tag 401",
        }


@pytest.mark.kafka
def test_two_instances_share_the_partitions_and_repeat_nothing(
    real_kafka: Cluster, meisa: Sandbox, tmp_path: Path
) -> None:
    """A second member joins in the middle and leaves again: order holds, nothing is lost, nothing comes twice."""

    def by_key() -> Counter[str]:
        return Counter(entry["key"] for entry in meisa.ledger() if entry["endpoint"] != "ping")

    produced = stream(2000, 150, seed=5)
    with service(real_kafka, tmp_path, meisa, latency_ms=300) as made:
        meisa.post("keys", key="meisa_test_second", name="second")
        made.produce(produced[:1000])
        made.start()
        wait_for(lambda: meisa.received() > 100, "the first calls")
        second = made.start(key="meisa_test_second")
        wait_for(lambda: len(made.status()["partitions"]) == 2, "the second member's share")
        assert made.committed() < 1000, "it was to join in the middle"
        meisa.post("faults", latency_ms=20)
        made.produce(produced[1000:])
        wait_for(lambda: len(by_key()) == 2 and min(by_key().values()) > 50, "calls of both")
        second.end()
        assert made.committed() < 2000, "it was to leave in the middle"
        finished(made, 2000)
        found = made.audit(produced)
        assert (found.lost, found.repeated, found.out_of_order) == ([], [], [])
        assert made.came_again() == set()
