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
from bridge.errors import LedgerFailed, Problem, ProblemsFound, RegistryFailed, StartFailed, UsageError, UserError
from bridge.introductions import introduction, not_meisa
from bridge.kafka.admin import Cluster, create_topics, probe, retention_seconds
from bridge.kafka.properties import validate
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
    except StartFailed as error:
        return [settings.place("kafka", "bootstrap_servers").problem("MB201", str(error))], None
    letters = settings.dead_letters.topic
    problems = [
        problem
        for name in cluster.missing(*settings.topics, letters)
        for problem in _missing_topic(settings, name, is_letters=name == letters, create=create)
    ]
    partitions = sum(cluster.topics.get(name, 0) for name in settings.topics)
    return [*problems, *_shares(settings, partitions)], cluster


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
