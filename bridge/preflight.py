"""What can be asked of Kafka and Meisa before running: `check` without --offline. Nothing is changed, but for topics
that it was told to create.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from bridge.app import secrets
from bridge.decoders import registries
from bridge.errors import (
    KafkaFault,
    KafkaRefused,
    LedgerFailed,
    LogFailed,
    Problem,
    ProblemsFound,
    RegistryFailed,
    StartFailed,
    UsageError,
    UserError,
)
from bridge.introductions import introduction, not_meisa
from bridge.kafka.admin import Cluster, create_topics, probe, retention_seconds
from bridge.kafka.properties import validate
from bridge.kafka.rights import READ, WRITE, rights
from bridge.loading import load_rules
from bridge.meisa.client import MeisaClient
from bridge.meisa.endpoints import ENDPOINTS
from bridge.model import Call, Kind, Outcome, Verdict
from bridge.scopes import key_of, missing_scopes, unneeded_scopes
from bridge.sequences import sequence_problems
from bridge.state import open_ledger
from bridge.traffic import traffic_problems

if TYPE_CHECKING:
    from bridge.config import Settings
    from bridge.registry.client import RegistryClient
    from bridge.rules import RuleBook

REFUSALS = {
    KafkaFault.UNREACHABLE: "MB201",
    KafkaFault.CERTIFICATE: "MB230",
    KafkaFault.PROTOCOL: "MB231",
    KafkaFault.CREDENTIALS: "MB232",
    KafkaFault.CLIENT_CERTIFICATE: "MB233",
}
CODES = {
    "MB201": "no broker answers",
    "MB202": "a topic does not exist",
    "MB203": "the dead-letter topic does not exist",
    "MB204": "a property of `kafka.properties` cannot be used",
    "MB205": "the topics have more partitions than a minute has calls (a warning)",
    "MB206": "the Redis of `meisa.quota.shared` cannot be used",
    "MB211": "Meisa cannot be reached, or does not answer properly",
    "MB212": "Meisa refuses the key, or it is of the other environment",
    "MB213": "a key lacks a scope that rules need",
    "MB214": "a key has scopes that nothing is done with (a warning)",
    "MB215": "a schema registry cannot be asked, or something else answers there",
    "MB216": "a schema registry refuses the secret, or wants one",
    "MB220": "a sequence that rules enroll into is not active in Meisa, or there is none",
    "MB221": "whether sequences are active could not be asked (a notice)",
    "MB222": "how many calls a day the rules plan, against the quota (a notice; a warning where that is less)",
    "MB223": "the backlog drains more slowly than its topic keeps records (a warning)",
    "MB224": "a rule fails for sampled events (a warning)",
    "MB225": "a condition is false for all sampled events, for want of a field (a notice; a warning for changed rows)",
    "MB226": "sampled records are no events (a warning)",
    "MB227": "a rule's type is almost that of events which no rule matches (a warning)",
    "MB228": "a topic's traffic could not be looked at (a notice)",
    "MB230": "the certificate of a Kafka broker is not accepted: its authority, its name or its date",
    "MB231": "a Kafka broker and `security.protocol` do not speak alike: TLS, SASL, or neither",
    "MB232": "a Kafka broker refuses the user, the password, the token or the mechanism",
    "MB233": "a Kafka broker refuses the client's certificate, or wants one",
    "MB234": "an ACL is missing: a topic may not be read",
    "MB235": "an ACL is missing: the group may not be used",
    "MB236": "an ACL is missing: dead letters may not be written, or not read (a warning)",
    "MB237": "an ACL is missing: the topic of replays may not be read or written (a warning)",
    "MB238": "whether ACLs suffice could not be asked (a notice)",
}

ASK_SECONDS = 10.0
PARTITIONS_OF_NEW_TOPICS = -1
"""The broker's default: whoever runs it has thought about it."""


def check_online(settings: Settings, book: RuleBook | None = None, *, create: bool = False) -> list[Problem]:
    """Asks both sides at once. Every problem carries the place of the setting that it is about.

    `book` are the rules, where they are loaded already.
    """
    return asyncio.run(_check(settings, book, create))


async def _check(settings: Settings, book: RuleBook | None, create: bool) -> list[Problem]:
    if book is None:
        with contextlib.suppress(UserError):  # told with its places already
            book = load_rules(settings)
    kafka, quota, schemas, meisa = await asyncio.gather(
        asyncio.to_thread(_kafka_and_traffic, settings, book, create),
        _quota(settings),
        _registries(settings),
        _meisa(settings, book),
    )
    return kafka + quota + schemas + meisa


async def _registries(settings: Settings) -> list[Problem]:
    """Whether each topic's schema registry answers what the bridge will ask it."""
    try:
        clients = registries(settings)
    except StartFailed as error:
        return [settings.place("topics").problem("MB215", str(error))]

    async def asked(topic: str, client: RegistryClient) -> list[Problem]:
        try:
            await client.probe()
        except RegistryFailed as error:
            code, key = ("MB216", "basic_auth") if error.status in (401, 403) else ("MB215", "url")
            hint = "events of the topic would wait until it answers"
            return [settings.place("topics", topic, "registry", key).problem(code, str(error), hint)]
        finally:
            await client.close()
        return []

    answers = await asyncio.gather(*(asked(topic, client) for topic, client in clients.items()))
    return [problem for problems in answers for problem in problems]


async def _quota(settings: Settings) -> list[Problem]:
    """Whether the Redis that instances share the quota by can be used."""
    if settings.meisa.quota.by_partition:
        return []
    place = settings.place("meisa", "quota", "shared")
    try:
        ledger = open_ledger(settings.meisa.quota.shared, group=settings.kafka.group_id)
        try:
            await ledger.probe()
        finally:
            await ledger.close()
    except (StartFailed, LedgerFailed) as error:
        return [place.problem("MB206", str(error), "without it no call leaves; or write shared: partitions")]
    return []


def _kafka_and_traffic(settings: Settings, book: RuleBook | None, create: bool) -> list[Problem]:
    """The cluster; where it is as it should be, also what its records say of the rules."""
    problems, cluster = _kafka(settings, create)
    if book is None or cluster is None or any(name not in cluster.topics for name in settings.topics):
        return problems
    kafka = settings.kafka
    retention: dict[str, float] = {}
    if cluster.describes:
        retention = retention_seconds(kafka.bootstrap_servers, kafka.properties, settings.topics)
    try:
        return problems + traffic_problems(settings, book, retention, time.time())
    except ProblemsFound:
        return problems  # of an envelope or a schema: told with its place already


def _kafka(settings: Settings, create: bool) -> tuple[list[Problem], Cluster | None]:
    kafka = settings.kafka
    try:
        validate(kafka.bootstrap_servers, kafka.properties)
        cluster = probe(kafka.bootstrap_servers, kafka.properties, ASK_SECONDS)
    except UsageError as error:
        return [settings.place("kafka", "properties").problem("MB204", str(error))], None
    except KafkaRefused as error:
        place = settings.place("kafka", *error.setting)
        return [place.problem(REFUSALS[error.fault], error.message, error.cure)], None
    except StartFailed as error:
        return [settings.place("kafka", "properties").problem("MB204", str(error))], None
    letters = settings.dead_letters.topic
    may: dict[str, frozenset[str]] = {}
    problems: list[Problem] = []
    if cluster.describes:
        may, problems = _rights(settings)
    problems += [
        problem
        for name in cluster.missing(*settings.topics, letters)
        if name not in may  # hidden from this user, as it may not be seen
        for problem in _missing_topic(settings, name, is_letters=name == letters, create=create)
    ]
    partitions = sum(cluster.topics.get(name, 0) for name in settings.topics)
    return [*problems, *_shares(settings, partitions)], cluster


def _rights(settings: Settings) -> tuple[dict[str, frozenset[str]], list[Problem]]:
    """What the user of kafka.properties may do with each topic that it is told of, and what is missing."""
    kafka, letters, replays = settings.kafka, settings.dead_letters.topic, settings.dead_letters.replays_topic
    try:
        found = rights(kafka.bootstrap_servers, kafka.properties, [*settings.topics, letters, replays], kafka.group_id)
    except LogFailed as error:
        place = settings.place("kafka", "properties")
        return {}, [place.problem("MB238", f"whether Kafka's ACLs suffice is not known: {error}", severity="notice")]
    user = kafka.properties.get("sasl.username")
    whose = f"the user {user}" if user else "the user of kafka.properties"
    problems = [
        settings.place("topics", name).problem(
            "MB234", f"{whose} may not read topic {name}", f"grant READ on topic {name}"
        )
        for name in settings.topics
        if READ not in found.topics.get(name, {READ})
    ]
    if found.group is not None and READ not in found.group:
        problems.append(
            settings.place("kafka", "group_id").problem(
                "MB235", f"{whose} may not use group {kafka.group_id}", f"grant READ on group {kafka.group_id}"
            )
        )
    place = settings.place("dead_letters", "topic")
    for name, code in ((letters, "MB236"), (replays, "MB237")):
        missing = [right for right in (READ, WRITE) if right not in found.topics.get(name, {READ, WRITE})]
        if not missing:
            continue
        what = f"{whose} may not {' or '.join(right.lower() for right in missing)} topic {name}"
        cure = f"grant {' and '.join(missing)} on topic {name}"
        fatal = code == "MB236" and WRITE in missing
        without = "without WRITE no dead letter can be written" if fatal else "else dead letters cannot be replayed"
        problems.append(place.problem(code, what, f"{cure}; {without}", severity="error" if fatal else "warning"))
    return dict(found.topics), problems


def _shares(settings: Settings, partitions: int) -> Iterator[Problem]:
    """Each partition owns a whole number of calls: beyond the limit some own none (core/shares.py)."""
    calls = settings.meisa.quota.per_minute
    if settings.meisa.quota.by_partition and partitions > calls:
        yield settings.place("meisa", "quota", "per_minute").problem(
            "MB205",
            f"the topics have {partitions} partitions, which share {calls} calls a minute: {partitions - calls} of "
            "them own none, and an instance that has only such ones sends nothing",
            "run one instance, read fewer partitions, or write shared: redis://…",
            severity="warning",
        )


def _missing_topic(settings: Settings, name: str, *, is_letters: bool, create: bool) -> Iterator[Problem]:
    """The problem that a topic is not there, unless it could be created."""
    code = "MB203" if is_letters else "MB202"
    place = settings.place("dead_letters", "topic") if is_letters else settings.place("topics", name)
    if create:
        try:
            kafka = settings.kafka
            create_topics(kafka.bootstrap_servers, kafka.properties, {name: PARTITIONS_OF_NEW_TOPICS})
        except StartFailed as error:
            yield place.problem(code, str(error))
    else:
        what = f"the dead-letter topic {name}" if is_letters else f"topic {name}"
        yield place.problem(code, f"{what} does not exist", "create it, or let check do it: --create-topics")


async def _meisa(settings: Settings, book: RuleBook | None) -> list[Problem]:
    problems = []
    reads = {name: secret.read for name, secret in secrets(settings).items()}
    async with MeisaClient(
        settings.meisa.base_url, reads, allow_http=settings.meisa.allow_http, timeout_seconds=settings.meisa.timeout
    ) as client:
        pings: dict[str, Outcome | None] = {}
        for name in reads:
            path = ("meisa", "api_key") if name == "default" else ("meisa", "keys", name)
            outcome = pings[name] = await client.send(Call("ping", key=name))
            refusal = introduction(settings, name, outcome)
            if refusal:
                problems.append(settings.place(*path).problem("MB212", refusal))
            elif outcome.verdict is not Verdict.DELIVERED:
                problems.append(settings.place("meisa", "base_url").problem("MB211", *_no_answer(settings, outcome)))
            elif book is not None:
                for kind in missing_scopes(settings, book, name, outcome):
                    message = f"the key lacks the scope {ENDPOINTS[kind].scope}, which {kind} needs"
                    hint = "grant it in Meisa, or give that action a key of its own: meisa.keys"
                    problems.append(settings.place(*path).problem("MB213", message, hint))
        if book is not None:
            problems += await sequence_problems(client, settings, book, pings[key_of(settings, Kind.ENROLL)])
    return problems + (list(_unneeded(settings, book, pings)) if book is not None else [])


def _unneeded(settings: Settings, book: RuleBook, pings: Mapping[str, Outcome | None]) -> Iterator[Problem]:
    for name, scopes in unneeded_scopes(settings, book, pings).items():
        path = ("meisa", "api_key") if name == "default" else ("meisa", "keys", name)
        yield settings.place(*path).problem(
            "MB214",
            f"the key has scopes that nothing is done with here: {', '.join(scopes)}",
            "make one in Meisa without them: whoever finds a key can do what it may",
            severity="warning",
        )


def _no_answer(settings: Settings, outcome: Outcome) -> tuple[str, str]:
    """What to say of a ping that brought nothing, and what to do."""
    elsewhere = not_meisa(settings, outcome)
    if elsewhere:
        return elsewhere, ""
    status = f" ({outcome.status})" if outcome.status else ""
    hint = "check meisa.base_url, and that it can be reached from here"
    return f"Meisa at {settings.meisa.base_url} does not answer properly{status}: {outcome.message}", hint
