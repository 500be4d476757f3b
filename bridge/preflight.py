"""What can be asked of Kafka and Meisa before running: `check` without --offline. Nothing is changed, but for topics
that it was told to create.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bridge.app import introduction, load_rules, missing_scopes, secrets
from bridge.errors import Problem, StartFailed, UserError
from bridge.kafka.admin import create_topics, probe
from bridge.meisa.client import MeisaClient
from bridge.meisa.endpoints import ENDPOINTS
from bridge.model import Call, Verdict

if TYPE_CHECKING:
    from bridge.config import Settings

CODES = {
    "MB201": "no broker answers",
    "MB202": "a topic does not exist",
    "MB203": "the dead-letter topic does not exist",
    "MB211": "Meisa cannot be reached, or does not answer properly",
    "MB212": "Meisa refuses the key, or it is of the other environment",
    "MB213": "a key lacks a scope that rules need",
}

ASK_SECONDS = 10.0
PARTITIONS_OF_NEW_TOPICS = -1
"""The broker's default: whoever runs it has thought about it."""


def check_online(settings: Settings, *, create: bool = False) -> list[Problem]:
    """Asks both sides at once. Every problem carries the place of the setting that it is about."""
    return asyncio.run(_check(settings, create))


async def _check(settings: Settings, create: bool) -> list[Problem]:
    kafka, meisa = await asyncio.gather(asyncio.to_thread(_kafka, settings, create), _meisa(settings))
    return kafka + meisa


def _kafka(settings: Settings, create: bool) -> list[Problem]:
    kafka = settings.kafka
    try:
        cluster = probe(kafka.bootstrap_servers, kafka.properties, ASK_SECONDS)
    except StartFailed as error:
        return [settings.place("kafka", "bootstrap_servers").problem("MB201", str(error))]
    letters = settings.dead_letters.topic
    missing = cluster.missing(*settings.topics, letters)
    if create and missing:
        try:
            create_topics(kafka.bootstrap_servers, kafka.properties, dict.fromkeys(missing, PARTITIONS_OF_NEW_TOPICS))
            missing = []
        except StartFailed as error:
            return [settings.place("topics").problem("MB202", str(error))]
    problems = []
    for name in missing:
        hint = "create it, or let check do it: --create-topics"
        if name == letters:
            message = f"the dead-letter topic {name} does not exist"
            problems.append(settings.place("dead_letters", "topic").problem("MB203", message, hint))
        else:
            problems.append(settings.place("topics", name).problem("MB202", f"topic {name} does not exist", hint))
    return problems


async def _meisa(settings: Settings) -> list[Problem]:
    problems = []
    try:
        book = load_rules(settings)
    except UserError:
        book = None  # told with its places already
    reads = {name: secret.read for name, secret in secrets(settings).items()}
    async with MeisaClient(settings.meisa.base_url, reads, timeout_seconds=settings.meisa.timeout) as client:
        for name in reads:
            path = ("meisa", "api_key") if name == "default" else ("meisa", "keys", name)
            outcome = await client.send(Call("ping", key=name))
            refusal = introduction(settings, name, outcome)
            if refusal:
                problems.append(settings.place(*path).problem("MB212", refusal))
            elif outcome.verdict is not Verdict.DELIVERED:
                status = f" ({outcome.status})" if outcome.status else ""
                message = f"Meisa at {settings.meisa.base_url} does not answer properly{status}: {outcome.message}"
                problems.append(settings.place("meisa", "base_url").problem("MB211", message))
            elif book is not None:
                for kind in missing_scopes(settings, book, name, outcome):
                    message = f"the key lacks the scope {ENDPOINTS[kind].scope}, which {kind} needs"
                    hint = "grant it in Meisa, or give that action a key of its own: meisa.keys"
                    problems.append(settings.place(*path).problem("MB213", message, hint))
    return problems
