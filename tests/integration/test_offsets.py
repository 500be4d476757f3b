"""The group's offsets from the command line, beside a service that has done something."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bridge.cli import main
from bridge.core.progress import Progress, decode, encode
from bridge.sandbox.children import free_port
from bridge.sandbox.options import TEST_KEY
from bridge.sandbox.server import SandboxServer
from tests.support.inprocess import Place, calls, sandbox_options
from tests.support.kafka import Cluster

RULES = """\
rules:
- name: signup
  match: user.signed_up
  do:
  - upsert: {email: "${data.email}", first_name: "${data.name}"}
  - trigger: {trigger_key: welcome, to_email: "${data.email}"}
"""


@pytest.fixture
async def meisa() -> AsyncIterator[SandboxServer]:
    async with SandboxServer(sandbox_options()) as server:
        yield server


async def command(place: Place, *words: str) -> Result:
    def invoked() -> Result:
        runner = CliRunner(env={"MEISA_API_KEY": TEST_KEY})
        return runner.invoke(main, ["offsets", *words, "-c", str(place.config)])

    return await asyncio.to_thread(invoked)


async def told(place: Place, *words: str) -> Any:
    result = await command(place, *words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def signup(number: int, **more: Any) -> dict[str, Any]:
    data = {"email": f"user{number}@example.com", "name": "Ada"}
    return {"type": "user.signed_up", "data": data, **more}


def ago(**back: float) -> str:
    return (datetime.now(UTC) - timedelta(**back)).isoformat()


@pytest.mark.kafka
async def test_a_reset_says_what_it_does_does_it_and_buys_no_calls(
    real_kafka: Cluster, meisa: SandboxServer, tmp_path: Path
) -> None:
    """Shown, refused without an answer, tried without effect, done: then all is delivered again, but for emails that
    `max_age` stops; and what was used of the quota counts on."""
    place = Place(real_kafka, tmp_path, meisa.base_url, rules=RULES, partitions=1)
    place.produce(signup(1), signup(2), signup(3, time=ago(days=3)))
    async with place.running():
        await place.finished(3)
        refused = await command(place, "reset", "--to", "earliest", "--yes")
        assert refused.exit_code == 1 and "has 1 member" in refused.stderr and "127.0.0.1" in refused.stderr
    assert len(calls(meisa, "upsert")) == 3 and len(calls(meisa, "trigger")) == 2

    (shown,) = await told(place, "show")
    expected = {"committed": 3, "log_start": 0, "log_end": 3, "lag": 0, "finished_beyond": 0, "triggers_started": 0}
    assert {name: shown[name] for name in expected} == expected
    used = shown["calls_used"]["default"]
    assert used["hour"] >= 6 and used["minute"] >= 6, "five calls and a ping"
    text = await command(place, "show", "--topic", f"{place.topic}:0")
    assert f"{place.topic}/0  3" in text.stdout and place.group in text.stdout

    unanswered = await command(place, "reset", "--to", "earliest")
    assert unanswered.exit_code == 2 and "--yes" in unanswered.stderr
    tried = await told(place, "reset", "--to", "earliest", "--dry-run")
    assert tried["partitions"] == [{"topic": place.topic, "partition": 0, "from": 3, "to": 0}]
    again = tried["done_again"]
    assert (again["triggers"], again["triggers_stopped_by_max_age"]) == ({"welcome": 2}, {"welcome": 1})
    assert again["calls"] == {"upsert": 3} and tried["never_done"]["offsets"] == 0
    assert real_kafka.committed(place.group, place.topic)[0] == 3

    done = await command(place, "reset", "--to", "earliest", "--yes")
    assert done.exit_code == 0, done.output
    assert "welcome 2" in done.stdout and "1 offsets" in done.stderr
    offset, metadata = real_kafka.committed(place.group, place.topic)
    progress = decode(offset, metadata)
    assert offset == 0 and progress is not None and progress.seen == 3 and progress.topic is not None
    (shown,) = await told(place, "show")
    assert shown["calls_used"]["default"] == used, "a rewind buys no calls"

    async with place.running():
        await place.finished(3)
    assert len(calls(meisa, "upsert")) == 6
    assert len(calls(meisa, "trigger")) == 4, "the same keys: Meisa sends no second email"
    assert place.letters() == []


async def test_going_back_over_what_another_owner_told(
    embedded_kafka: Cluster, meisa: SandboxServer, tmp_path: Path
) -> None:
    """What had finished beyond the offset is told and done again; what had not is not told, and done as ever."""
    place = Place(embedded_kafka, tmp_path, meisa.base_url, rules=RULES, partitions=1)
    place.produce(*(signup(number) for number in range(6)))
    place.settings()
    told_of = Progress(0, bitmap=bytes([0b11000]), started={2: {7: 1}}, seen=5)
    embedded_kafka.commit(place.group, place.topic, 0, 2, encode(2, told_of, 4096))
    (shown,) = await told(place, "show")
    expected = {"committed": 2, "lag": 4, "finished_beyond": 2, "came_to": 5, "triggers_started": 1}
    assert {name: shown[name] for name in expected} == expected
    done = await told(place, "reset", "--to", "1", "--topic", f"{place.topic}:0", "--yes")
    assert done["done_again"]["triggers"] == {"welcome": 3} and done["done_again"]["offsets"] == 4
    async with place.running():
        await place.finished(6)
    assert {call.contact for call in calls(meisa, "upsert")} == {f"user{number}@example.com" for number in range(1, 6)}


async def test_going_forward_tells_what_is_never_done(
    embedded_kafka: Cluster, meisa: SandboxServer, tmp_path: Path
) -> None:
    place = Place(embedded_kafka, tmp_path, meisa.base_url, rules=RULES, partitions=1)
    place.produce(signup(1), signup(2), {"type": "nobody.cares"})
    place.settings()
    embedded_kafka.commit(place.group, place.topic, 0, 1)
    tried = await told(place, "reset", "--to", "latest", "--yes")
    assert tried["never_done"] | {"read": 0} == {
        "offsets": 2,
        "read": 0,
        "events": 2,
        "undecodable": 0,
        "triggers": {"welcome": 1},
        "triggers_stopped_by_max_age": {},
        "calls": {"upsert": 1},
    }
    assert embedded_kafka.committed(place.group, place.topic)[0] == 3
    stands = await command(place, "reset", "--to", "latest", "--yes")
    assert stands.exit_code == 0 and "stands there already" in stands.stderr


@pytest.mark.kafka
async def test_a_time_is_found_in_each_partition(real_kafka: Cluster, meisa: SandboxServer, tmp_path: Path) -> None:
    place = Place(real_kafka, tmp_path, meisa.base_url, rules=RULES, partitions=2)
    place.settings()
    old = int((datetime.now(UTC) - timedelta(hours=5)).timestamp() * 1000)
    value = json.dumps(signup(1)).encode()
    real_kafka.produce(
        place.topic,
        *[{"value": value, "partition": 0, "timestamp": old}] * 2,
        {"value": value, "partition": 0},
        {"value": value, "partition": 1, "timestamp": old},
    )
    tried = await told(place, "reset", "--to", "2h", "--yes")
    assert [(each["partition"], each["to"]) for each in tried["partitions"]] == [(0, 2), (1, 1)]
    assert [real_kafka.committed(place.group, place.topic, number)[0] for number in (0, 1)] == [2, 1]


async def test_whoever_is_in_the_group_is_not_overtaken(
    embedded_kafka: Cluster, meisa: SandboxServer, tmp_path: Path
) -> None:
    """Where the brokers do not tell who is there, they refuse the offset all the same."""
    place = Place(embedded_kafka, tmp_path, meisa.base_url, rules=RULES, partitions=1)
    place.produce(signup(1))
    async with place.running():
        await place.finished(1)
        refused = await command(place, "reset", "--to", "earliest", "--yes")
        assert refused.exit_code == 1 and "has members" in refused.stderr
    assert embedded_kafka.committed(place.group, place.topic)[0] == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--to", "soon"], "is no time"),
        (["--to", "1"], "name it with --topic T:P"),
        (["--to", "7", "--topic", "{topic}:0"], "has offsets 0 to 0"),
        (["--to", "earliest", "--topic", "{topic}:9"], "no such partition"),
        (["--to", "earliest", "--topic", "nobody"], "not among the configured topics"),
        (["--to", "earliest", "--topic", "{topic}:x"], "write T or T:P"),
        ([], "Missing option '--to'"),
    ],
)
async def test_what_cannot_be_meant_is_one_line(
    words: list[str], says: str, embedded_kafka: Cluster, tmp_path: Path
) -> None:
    place = Place(embedded_kafka, tmp_path, "http://127.0.0.1:9/api/v1", rules=RULES)
    place.settings()
    result = await command(place, "reset", *[word.format(topic=place.topic) for word in words])
    assert result.exit_code == 2 and says in result.stderr and "Traceback" not in result.stderr


@pytest.mark.slow
async def test_a_broker_that_is_away_is_one_line_too(embedded_kafka: Cluster, tmp_path: Path) -> None:
    """And nothing stands on standard output, which a program may read."""
    place = Place(embedded_kafka, tmp_path, "http://127.0.0.1:9/api/v1", rules=RULES)
    place.sections["kafka"]["bootstrap_servers"] = f"127.0.0.1:{free_port()}"
    place.settings()
    result = await command(place, "show", "--json")
    assert result.exit_code == 1 and result.stdout == ""
    assert "no Kafka broker answers" in result.stderr and len(result.stderr.splitlines()) == 1
