"""`check` without --offline: each problem of the outside has its code, its place, and what to do about it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bridge import preflight
from bridge.cli import main
from bridge.config import load
from bridge.errors import Problem
from bridge.preflight import CODES, check_online
from bridge.sandbox.children import free_port
from bridge.sandbox.server import SandboxServer
from tests.support.inprocess import Place, sandbox_options
from tests.support.kafka import Cluster, unique
from tests.support.redis import redis_server

RULES = """\
rules:
  - name: signup
    match: user.signed_up
    do:
      - upsert: {email: "${data.email}"}
      - trigger: {trigger_key: welcome, to_email: "${data.email}"}
"""
CONFIG = """\
kafka:
  bootstrap_servers: BROKER
  properties: {}
topics:
  TOPIC: {}
meisa:
  base_url: URL
  environment: test
  api_key: {env: MEISA_API_KEY}
  keys:
    trigger: {env: TRIGGER_KEY}
rules: [rules.yaml]
dead_letters:
  topic: LETTERS
"""


@pytest.fixture
async def sandbox() -> AsyncIterator[SandboxServer]:
    keys = (
        "meisa_test_poor=events:track",
        "meisa_test_mail=emails:trigger",
        "meisa_test_sync=contacts:read,contacts:write",
        "meisa_test_rich=contacts:read,contacts:write,emails:trigger,tags:write",
        "meisa_test_other=contacts:read,emails:trigger",
    )
    async with SandboxServer(sandbox_options(keys=keys)) as server:
        yield server


Checker = Callable[..., Any]


@pytest.fixture
def checked(embedded_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path) -> Checker:
    """Checks a configuration in which `changes` were made to the text of a right one."""
    place = Place(embedded_kafka, tmp_path, sandbox.base_url, rules=RULES)
    right = {
        "BROKER": embedded_kafka.bootstrap_servers,
        "TOPIC": place.topic,
        "LETTERS": place.letters_topic,
        "URL": sandbox.base_url,
    }

    async def check(
        create: bool = False, key: str = "meisa_test_sync", mail: str = "meisa_test_mail", **changes: str
    ) -> list[tuple[str, int, int, str]]:
        text = CONFIG
        for name, value in {**right, **changes}.items():
            text = text.replace(name, value)
        place.config.write_text(text)
        settings = load(place.config, {"MEISA_API_KEY": key, "TRIGGER_KEY": mail})
        problems = await asyncio.to_thread(check_online, settings, create=create)
        return [told(problem, place.config) for problem in problems]

    return check


def told(problem: Problem, file: Path) -> tuple[str, int, int, str]:
    assert problem.file == str(file)
    assert problem.severity == ("warning" if problem.code == "MB214" else "error")
    assert problem.code in CODES
    assert "\n" not in str(problem)
    assert "meisa_test_" not in str(problem), "no key in a message"
    return problem.code, problem.line, problem.column, f"{problem.message} ({problem.hint})"


async def test_all_well(checked: Checker) -> None:
    assert await checked() == []


async def test_no_broker(checked: Checker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "ASK_SECONDS", 0.5)
    nowhere = f"127.0.0.1:{free_port()}"
    ((code, line, column, words),) = await checked(BROKER=nowhere)
    assert (code, line, column) == ("MB201", 2, 22)
    assert f"no Kafka broker answers at {nowhere}" in words


async def test_a_missing_topic(checked: Checker) -> None:
    name = unique("missing")
    assert await checked(TOPIC=name) == [
        ("MB202", 5, 3, f"topic {name} does not exist (create it, or let check do it: --create-topics)")
    ]


async def test_a_missing_dead_letter_topic(checked: Checker) -> None:
    name = unique("missing")
    hint = "create it, or let check do it: --create-topics"
    assert await checked(LETTERS=name) == [("MB203", 14, 10, f"the dead-letter topic {name} does not exist ({hint})")]


async def test_a_property_that_librdkafka_does_not_know(checked: Checker) -> None:
    """Told where it stands, and not as a broker that does not answer."""
    ((code, line, _, words),) = await checked(**{"properties: {}": "properties: {sesion.timeout.ms: 6000}"})
    assert (code, line) == ("MB204", 3)
    assert 'No such configuration property: "sesion.timeout.ms"' in words


async def test_meisa_cannot_be_reached(checked: Checker) -> None:
    """Once for each key, at the address's place."""
    port = free_port()
    problems = await checked(URL=f"http://127.0.0.1:{port}/api/v1")
    assert {problem[:3] for problem in problems} == {("MB211", 7, 13)}
    assert f"cannot connect to 127.0.0.1:{port}: Connection refused (check meisa.base_url" in problems[0][3]


async def test_something_else_than_meisa_answers(checked: Checker, sandbox: SandboxServer) -> None:
    problems = await checked(URL=f"{sandbox.url}/elsewhere")
    assert {problem[:3] for problem in problems} == {("MB211", 7, 13)}
    assert "is not Meisa's API (404: There is no such path.): check meisa.base_url" in problems[0][3]


async def test_refused_keys_have_the_places_of_their_settings(checked: Checker) -> None:
    ((code, line, column, words),) = await checked(key="meisa_test_nobody")
    assert (code, line, column) == ("MB212", 9, 12)
    assert "refuses the key of meisa.api_key (401)" in words
    ((code, line, column, words),) = await checked(mail="meisa_test_nobody")
    assert (code, line, column) == ("MB212", 11, 14)
    assert "refuses the key of meisa.keys.trigger (401)" in words


async def test_a_missing_scope_is_told_of_the_key_that_needs_it(checked: Checker) -> None:
    """Each key is asked for what it is used for only: triggers have a key of their own here."""
    (code, line, column, words), _ = await checked(key="meisa_test_poor")
    assert (code, line, column) == ("MB213", 9, 12)
    assert words.startswith("the key lacks the scope contacts:write, which upsert needs (grant it in Meisa")
    (code, line, column, words), _ = await checked(mail="meisa_test_poor")
    assert (code, line, column) == ("MB213", 11, 14)
    assert words.startswith("the key lacks the scope emails:trigger, which trigger needs")


async def test_scopes_that_a_key_does_not_need_are_a_warning(checked: Checker) -> None:
    """Named for each key; one key may read the suppression list, a second one need not."""
    (rich, other) = await checked(key="meisa_test_rich", mail="meisa_test_other")
    assert rich[:3] == ("MB214", 9, 12) and other[:3] == ("MB214", 11, 14)
    assert rich[3].startswith("the key has scopes that nothing is done with here: emails:trigger, tags:write (make one")
    assert other[3].startswith("the key has scopes that nothing is done with here: contacts:read (")
    assert await checked(mail="meisa_test_mail") == []


ENROLLS = """\
rules:
  - name: onboard
    match: user.signed_up
    do:
      - enroll: {sequence_slug: SLUG, email: "${data.email}"}
      - enroll: {sequence_slug: "${data.slug}", email: "${data.email}"}
  - name: not-yet
    enabled: false
    match: user.signed_up
    do: [{enroll: {sequence_slug: nowhere, email: "${data.email}"}}]
"""


@pytest.mark.parametrize(
    ("slug", "says"),
    [
        ("onboarding", ""),
        ("onbording", "Meisa has no sequence onbording: enrollments would be refused (did you mean onboarding?)"),
        (
            "old-trial",
            "the sequence old-trial is inactive in Meisa: enrollments would be refused (activate it in Meisa",
        ),
    ],
)
async def test_sequences_that_are_not_active(embedded_kafka: Cluster, tmp_path: Path, slug: str, says: str) -> None:
    """Told where the rule names them; of enabled rules, and slugs that no event decides."""
    catalogue = {"onboarding": "active", "old-trial": "inactive"}
    async with SandboxServer(sandbox_options(sequences=catalogue)) as server:
        place = Place(embedded_kafka, tmp_path, server.base_url, rules=ENROLLS.replace("SLUG", slug))
        problems = await asyncio.to_thread(check_online, place.settings())
        assert [entry.endpoint for entry in server.sandbox.ledger.entries if entry.endpoint not in READS] == []
    if not says:
        assert problems == []
        return
    (problem,) = problems
    assert (problem.code, problem.severity, problem.line, problem.column) == ("MB220", "error", 5, 33)
    assert problem.file.endswith(".yaml") and f"{problem.message} ({problem.hint})".startswith(says)


READS = {"ping", "sequences"}


async def test_sequences_of_a_sandbox_without_a_catalogue_are_active(embedded_kafka: Cluster, tmp_path: Path) -> None:
    async with SandboxServer(sandbox_options()) as server:
        place = Place(embedded_kafka, tmp_path, server.base_url, rules=ENROLLS.replace("SLUG", "any"))
        assert await asyncio.to_thread(check_online, place.settings()) == []


async def test_a_key_that_may_not_list_sequences_is_only_a_notice(embedded_kafka: Cluster, tmp_path: Path) -> None:
    """It can enroll; what it cannot tell is said."""
    async with SandboxServer(sandbox_options(keys=("meisa_test_enroll=sequences:enroll",))) as server:
        place = Place(embedded_kafka, tmp_path, server.base_url, rules=ENROLLS.replace("SLUG", "any"))
        (problem,) = await asyncio.to_thread(check_online, place.settings(MEISA_API_KEY="meisa_test_enroll"))
    assert (problem.code, problem.severity) == ("MB221", "notice")
    assert "lacks the scope sequences:read" in problem.message


async def test_both_sides_are_told_at_once(checked: Checker) -> None:
    problems = await checked(LETTERS=unique("missing"), key="meisa_test_nobody")
    assert {problem[0] for problem in problems} == {"MB203", "MB212"}


async def test_it_calls_nothing_but_ping(checked: Checker, sandbox: SandboxServer) -> None:
    """Checking a configuration in production must not change anything there."""
    assert await checked() == []
    assert {entry.endpoint for entry in sandbox.sandbox.ledger.entries} == {"ping"}


@pytest.mark.kafka
async def test_topics_are_created_only_when_told(real_kafka: Cluster, checked: Checker) -> None:
    """On a real Kafka: a check creates nothing, --create-topics creates both, and the next check is content."""
    topic, letters = unique("created"), unique("created-letters")
    changes = {"BROKER": real_kafka.bootstrap_servers, "TOPIC": topic, "LETTERS": letters}
    for _ in range(2):
        assert [code for code, *_ in await checked(**changes)] == ["MB202", "MB203"]
    assert await checked(create=True, **changes) == []
    assert await checked(**changes) == []
    real_kafka.produce(letters, b"a letter")
    assert real_kafka.end(letters) == 1


@pytest.mark.kafka
async def test_a_topic_that_cannot_be_created_is_told_at_its_place(real_kafka: Cluster, checked: Checker) -> None:
    """One that cannot be does not keep the other from being made."""
    topic, taken = unique("created"), unique("taken_name")
    real_kafka.create_topic(taken)
    letters = taken.replace("_", ".")  # Kafka's metrics could not tell the two apart, so it refuses the second
    problems = await checked(create=True, BROKER=real_kafka.bootstrap_servers, TOPIC=topic, LETTERS=letters)
    assert [problem[:2] for problem in problems] == [("MB203", 14)]
    assert "could not be created: " in problems[0][3]
    real_kafka.produce(topic, b"an event")


async def test_the_redis_of_a_shared_quota_is_asked(
    embedded_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path
) -> None:
    """Without it no call would leave. No password in a message; partitions may be as many as they like."""
    place = Place(embedded_kafka, tmp_path, sandbox.base_url)
    place.sections["meisa"]["quota"] = {"per_minute": 1, "shared": {"env": "QUOTA_REDIS"}}
    nowhere = place.settings(QUOTA_REDIS=f"redis://:secret@127.0.0.1:{free_port()}/0")
    (problem,) = await asyncio.to_thread(check_online, nowhere)
    assert (problem.code, problem.severity) == ("MB206", "error")
    assert "Redis at 127.0.0.1:" in problem.message and "secret" not in str(problem)
    with redis_server() as redis:
        assert await asyncio.to_thread(check_online, place.settings(QUOTA_REDIS=redis.url)) == []


async def test_more_partitions_than_calls_of_a_minute_is_a_warning(
    embedded_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path
) -> None:
    """Some of them own no call; one instance that has all of them is in order."""
    place = Place(embedded_kafka, tmp_path, sandbox.base_url)
    place.sections["meisa"]["quota"] = {"per_minute": 1, "per_hour": 100}
    problems = await asyncio.to_thread(check_online, place.settings())
    assert [(each.code, each.severity) for each in problems] == [("MB205", "warning")]
    assert "2 partitions, which share 1 calls a minute: 1 of them own none" in problems[0].message


# What the topics' records say


STATE = """\
rules:
  - name: state
    match: user.updated
    do: [{upsert: {email: "${data.email}"}}]
"""


def updates(count: int, now: float, age: float = 0.0, of: str = "a") -> list[dict[str, Any]]:
    """Records of as many contacts, the last of them `age` seconds old."""
    return [
        {
            "value": json.dumps({"type": "user.updated", "data": {"email": f"{of}{n}@example.com"}}).encode(),
            "partition": n % 2,
            "timestamp": int((now - age) * 1000) - (count - n),
        }
        for n in range(count)
    ]


async def test_the_calls_of_a_day_are_told_beside_the_quota(
    any_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path
) -> None:
    """A notice where the quota allows them, a warning where it does not; nothing of a topic without records."""
    place = Place(any_kafka, tmp_path, sandbox.base_url, rules=STATE)
    place.sections["meisa"]["quota"] = {"per_minute": 2, "per_hour": 10}
    settings = place.settings(key="meisa_test_sync")
    assert await asyncio.to_thread(check_online, settings) == []
    any_kafka.produce(place.topic, *updates(200, time.time()))
    (notice,) = await asyncio.to_thread(check_online, settings)
    assert (notice.code, notice.severity) == ("MB222", "notice")
    assert f"about 200 calls a day at the last day's traffic ({place.topic}: 200 events)" in notice.message
    assert notice.message.endswith("upsert 200; the quota allows 240 (10 an hour)")
    any_kafka.produce(place.topic, *updates(100, time.time(), of="b"))
    warning, *more = await asyncio.to_thread(check_online, settings)
    assert (warning.code, warning.severity) == ("MB222", "warning") and "about 300 calls" in warning.message
    # The embedded broker does not tell how long it keeps records.
    told = [problem.message for problem in more]
    assert len(told) == (any_kafka.kind == "real") and all(
        "does not drain: the day's own calls" in each for each in told
    )
    assert any_kafka.committed(place.group, place.topic)[0] < 0, "nothing was committed"


@pytest.mark.kafka
async def test_records_of_other_days_are_not_of_the_last_day(
    real_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path
) -> None:
    """They are a backlog, which the quota takes long for: longer than the topic keeps them."""
    place = Place(real_kafka, tmp_path, sandbox.base_url, rules=STATE)
    topic = real_kafka.create_topic(unique("kept"), 2, **{"retention.ms": str(7 * 86_400_000)})
    place.sections["topics"] = {topic: {}}
    place.sections["meisa"]["quota"] = {"per_minute": 2, "per_hour": 2}
    now = time.time()
    real_kafka.produce(topic, *updates(400, now, age=3 * 86_400.0), *updates(20, now))
    found = await asyncio.to_thread(check_online, place.settings(key="meisa_test_sync"))
    assert [(problem.code, problem.severity) for problem in found] == [("MB222", "notice"), ("MB223", "warning")]
    assert f"about 20 calls a day at the last day's traffic ({topic}: 20 events)" in found[0].message
    assert f"the backlog of {topic} (420 events) takes 15 days at the quota (2 an hour)" in found[1].message
    assert "the topic keeps records for 7 days" in found[1].message
    for partition in range(2):
        real_kafka.commit(place.group, topic, partition, 195)
    (notice,) = await asyncio.to_thread(check_online, place.settings(key="meisa_test_sync"))
    assert notice.code == "MB222", "what the group has finished is no backlog"


async def test_rules_that_fail_for_what_the_topic_holds(
    embedded_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path
) -> None:
    place = Place(embedded_kafka, tmp_path, sandbox.base_url, rules=STATE)
    place.produce({"type": "user.updated", "data": {"mail": "ada@example.com"}}, b"no JSON")
    found = await asyncio.to_thread(check_online, place.settings(key="meisa_test_sync"))
    assert [(problem.code, problem.file) for problem in found] == [
        ("MB226", str(place.config)),
        ("MB224", found[1].file),
    ]
    assert "upsert.email: data.email is missing" in found[1].message and "ada@" not in str(found)


async def test_the_command_tells_offline_and_online_problems_together(
    embedded_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path
) -> None:
    """In the order of their places; notices fail nothing, what is ignored is not told."""
    place = Place(embedded_kafka, tmp_path, sandbox.base_url, rules=STATE)
    place.sections["topics"][place.topic] = {}
    place.settings()
    embedded_kafka.produce(place.topic, *updates(50, time.time()))

    async def check(*more: str) -> tuple[int, list[str]]:
        arguments = ["check", "-c", str(place.config), "--strict", "--json", *more]
        environ = {"MEISA_API_KEY": "meisa_test_sync"}
        result = await asyncio.to_thread(CliRunner().invoke, main, arguments, None, environ)
        return result.exit_code, [problem["code"] for problem in json.loads(result.stdout)]

    assert await check() == (0, ["MB222"])
    assert await check("--ignore", "MB222") == (0, [])
    (tmp_path / "rules.yaml").write_text(STATE.replace("    do:", "    topic: elsewhere\n    do:"))
    assert await check() == (1, ["MB170"]), "no event reaches the rule: it plans no calls"
