"""A whole bridge over a Kafka in memory, a virtual clock and the sandbox's world: decoders, rules, engine, client.

Nothing of the path is imagined but the broker, the network and the clock: requests are made and judged by the client
that the service uses, and answered by the sandbox's own API.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from bridge.config import Settings, load
from bridge.core.identity import Identities
from bridge.core.quota import Quota
from bridge.core.retry import Policy
from bridge.decoders import decoders
from bridge.errors import RegistryFailed, UnknownSchema
from bridge.loading import load_rules
from bridge.meisa.client import MeisaClient
from bridge.meisa.transport import Whole
from bridge.model import Event, Plan, Record, SchemaId, TopicPartition, action_id
from bridge.observe.metrics import Metrics
from bridge.observe.rule_uses import RuleUses
from bridge.ports import SchemaText
from bridge.runtime.delivery import Delivery
from bridge.runtime.duplicates import Duplicates
from bridge.runtime.engine import Engine
from bridge.runtime.schemas import Schemas
from bridge.runtime.status import Status
from bridge.sandbox.api import Request, Sandbox
from bridge.sandbox.options import TEST_KEY, SandboxOptions
from tests.support.fakes import FakeLetters, FakeSource
from tests.support.fuzz import damage
from tests.support.fuzz.case import ADMIN_TOKEN, API_KEY, KAFKA_PASSWORD, REGISTRY_AUTH
from tests.support.fuzz.corpus import ROOT, TOPICS, registered, registered_cdc
from tests.support.virtual import VirtualClock

ENVIRON = {
    "MEISA_API_KEY": API_KEY,
    "ADMIN_TOKEN": ADMIN_TOKEN,
    "KAFKA_PASSWORD": KAFKA_PASSWORD,
    "REGISTRY_AUTH": REGISTRY_AUTH,
}

RULES = """\
rules:
  - name: changed-row
    match: ["users.*", "app.*", "*.updated"]
    do:
      - upsert:
          email: ${data.after.email}
          custom_fields: {plan: "${optional(data.after.plan)}", before: "${optional(data.before)}"}
  - name: everything
    match: "*"
    when: has(data.email)
    do:
      - upsert:
          email: ${data.email}
          external_id: ${optional(str(data.user_id))}
          display_name: ${event.id} ${event.type} at ${event.time} from ${topic}
          custom_fields: {whole: "${data}", key: "${optional(key)}", header: "${optional(headers.ce_tenant)}"}
          tag_names: ["${event.type}", "plan ${default(data.plan, '-')}"]
      - track:
          event_name: ${event.type}
          email: ${data.email}
          properties: {id: "${event.id}", n: "${len(keys(data))}"}
      - trigger: {trigger_key: welcome, to_email: "${data.email}", variables: {all: "${data}"}}
        max_age: none
      - enroll: {sequence_slug: onboarding, email: "${data.email}", metadata: {id: "${event.id}"}}
      - add_tag: {tag_name: "${default(data.plan, 'none')}", email: "${data.email}"}
  - name: computing
    match: "*"
    when: has(data.email)
    do:
      - upsert:
          email: ${data.email.strip().lower()}
          first_name: ${data.first_name.title()} ${data.email.split("@")[-1]}
          custom_fields:
            number: ${int(data.amount) * 100 // 7}
            when: ${date(data.trial_ends_at)}
            later: ${later(event.time, "3d")}
            age: ${days_between(event.time, data.trial_ends_at)}
            first: ${first(sorted(keys(data)))}
            rounded: ${round(float(data.amount), 2)}
        missing: omit
"""


class SandboxTransport(httpx.AsyncBaseTransport):
    """The sandbox's API without a network; now and then it answers as no API should, with all that it was sent."""

    def __init__(self, dice: random.Random, *, hostile: float = 0.01) -> None:
        self.sandbox = Sandbox(SandboxOptions(seed=1, per_minute=0, per_hour=0))
        self.requests = 0
        self._dice = dice
        self._hostile = hostile

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        await asyncio.sleep(0.01)
        headers = {name.lower(): value for name, value in request.headers.items()}
        body = request.stream.body if isinstance(request.stream, Whole) else b""
        if self._dice.random() < self._hostile:
            return self._odd(headers, body)
        path, _, query = request.url.raw_path.decode("ascii").partition("?")
        now = 1_780_000_000.0 + asyncio.get_running_loop().time()
        known = {**headers, "x-api-key": TEST_KEY}
        reply = self.sandbox.handle(Request(request.method, path, query, known, body), now)
        return httpx.Response(reply.status, headers=[*reply.headers], content=reply.body)

    def _odd(self, headers: Mapping[str, str], body: bytes) -> httpx.Response:
        dice = self._dice
        text = dice.choice(damage.HOSTILE)
        echo = {"error": {"message": f"{text} {headers}"}, "sent": {"headers": dict(headers), "body": body.decode()}}
        content = dice.choice(
            (
                json.dumps(echo).encode(),
                f"<title>{text}</title>{headers}".encode(),
                json.dumps({"message": [text] * 50, "detail": damage.HOSTILE}).encode(),
                b'{"error":' * 900 + b"1" + b"}" * 900,
                damage.damaged(
                    json.dumps(echo["error"]).replace(API_KEY, "").encode(), dice
                ),  # half a key is not known
            )
        )
        return httpx.Response(dice.choice((200, 400, 404, 409, 418, 422, 451)), content=content)


class OddRegistry:
    """Knows the schemas of the good records; for all others it has no answer, a wrong one, or no schema."""

    where = "https://registry.example"

    def __init__(self, known: Mapping[SchemaId, tuple[str, tuple[str, ...]]]) -> None:
        self._known = known
        self._asked: dict[SchemaId, int] = {}

    async def schema(self, id: SchemaId) -> SchemaText:
        asked = self._asked[id] = self._asked.get(id, 0) + 1
        if id in self._known:
            text, references = self._known[id]
            return SchemaText("AVRO", text, references)
        dice = random.Random(f"registry {id}")
        if asked == 1 and dice.random() < 0.3:
            raise RegistryFailed(f"the registry says {dice.choice(damage.HOSTILE)}", 503)
        if dice.random() < 0.5:
            raise UnknownSchema("there is none")
        schema = dice.choice(list(self._known.values()))[0]
        texts = ("", "null", '"string"', "[" * 5_000, '{"type":"record","name":"A","fields":[{"name":"a","type":"A"}]}')
        kind = dice.choice(("AVRO", "AVRO", "JSON", "PROTOBUF", "<b>"))
        return SchemaText(kind, dice.choice((*texts, damage.damaged(schema.encode(), dice).decode("utf-8", "replace"))))

    async def close(self) -> None:
        pass


def settings_in(folder: Path, *, more: Mapping[str, Any] | None = None) -> Settings:
    """The configuration with every format, the sample rules of the repository, and RULES."""
    (folder / "fuzz.yaml").write_text(RULES, encoding="utf-8")
    sections = {
        "kafka": {
            "bootstrap_servers": "localhost:9092",
            "group_id": "fuzz",
            "properties": {"sasl.password": {"env": "KAFKA_PASSWORD"}},
        },
        "topics": TOPICS,
        "meisa": {"environment": "test", "api_key": {"env": "MEISA_API_KEY"}},
        "rules": [str(ROOT / "config" / "rules" / "*.yaml"), "fuzz.yaml"],
        "admin": {"token": {"env": "ADMIN_TOKEN"}},
        **(more or {}),
    }
    file = folder / "bridge.yaml"
    file.write_text(json.dumps(sections), encoding="utf-8")
    return load(file, ENVIRON)


class Plant:
    """Made within a virtual loop."""

    def __init__(self, settings: Settings, seed: str, *, hostile: float = 0.01) -> None:
        self.clock = VirtualClock()
        self.book = load_rules(settings)
        self.transport = SandboxTransport(random.Random(f"meisa {seed}"), hostile=hostile)
        self.client = MeisaClient(
            "https://api.meisa.io/api/v1", {"default": lambda: API_KEY}, transport=self.transport, clock=self.clock
        )
        self.letters = FakeLetters()
        self.source = FakeSource()
        self.metrics = Metrics(topics=sorted(settings.topics))
        self.uses = RuleUses(self.book.names)
        self.failures: list[str] = []
        self.delivery = Delivery(
            self.client,
            {"default": Quota([(1_000_000, 60.0)])},
            clock=self.clock,
            meter=self.metrics,
            policy=Policy(),
            identify=lambda record, action: action_id("fuzz", record, action),
            dice=random.Random(1),
            identities=Identities(),
        )
        made = decoders(settings)
        known = {"events-registry": registered(), "cdc-avro": registered_cdc()}
        self.engine = Engine(
            group="fuzz",
            decoders=made,
            plan=self._plan,
            source=self.source,
            letters=self.letters,
            clock=self.clock,
            meter=self.metrics,
            delivery=self.delivery,
            failed=self.failures.append,
            stop_at=(1.0, 10_000_000),
            schemas=Schemas(made.wires, {name: OddRegistry(known[name]) for name in made.wires}),
            duplicates=Duplicates({"events-json": 600.0}, clock=self.clock, store=None),
        )
        self.engine.burial.heard = self.uses.heard
        self.status = Status(
            self.engine,
            self.delivery,
            self.clock,
            self.metrics.totals,
            self.metrics.dead_letters_by_kind,
            traffic=self.metrics.traffic,
            rule_uses=self.uses.states,
        )
        self.status.state = "joining"
        self.metrics.snapshot = self.status.snapshot
        self.source.start(self.engine)
        self.delivery.open()
        self.partitions = {name: TopicPartition(name, 0) for name in settings.topics}
        self.source.assign(*self.partitions.values())
        self.fed: dict[tuple[str, int], Record] = {}
        self._next = dict.fromkeys(settings.topics, 0)

    def _plan(self, event: Event) -> Plan:
        plan = self.book.plan(event)
        self.uses.planned(plan)
        return plan

    def feed(self, record: Record) -> None:
        offset = self._next[record.topic]
        self._next[record.topic] = offset + 1
        record = record._replace(offset=offset)
        self.fed[record.topic, offset] = record
        self.source.feed([record])

    def finished(self) -> bool:
        return all(self.source.committed.get(self.partitions[name], 0) >= end for name, end in self._next.items())

    async def close(self) -> None:
        await self.source.close()
        await self.delivery.close()
        await self.client.close()
