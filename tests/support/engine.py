"""A whole engine over fakes, on the virtual loop."""

import json
import math
import random
from collections.abc import Callable
from typing import Any

from bridge.core.identity import Identities
from bridge.core.quota import Quota
from bridge.core.retry import Policy
from bridge.core.shares import Shares
from bridge.errors import DecodeError
from bridge.model import (
    Action,
    Contact,
    Event,
    Handling,
    Kind,
    Lane,
    Plan,
    Record,
    RuleFailure,
    TopicPartition,
    action_id,
)
from bridge.ports import Store
from bridge.runtime.delivery import Delivery
from bridge.runtime.duplicates import Duplicates
from bridge.runtime.engine import Engine
from bridge.runtime.schemas import Schemas
from bridge.runtime.spend import Spend
from bridge.runtime.unchanged import Unchanged
from tests.support.fakes import CountingMeter, FakeLetters, FakeMeisa, FakeSource
from tests.support.virtual import VirtualClock

TOPIC = "events"
P0, P1 = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)


def record(offset: int, email: str | None = "a@x", *, partition: int = 0, **data: Any) -> Record:
    """A record whose value says what to do: see `decode` and `plan`."""
    value = json.dumps({"email": email, "seq": offset, **data}).encode()
    return Record(TOPIC, partition, offset, 1_780_000_000_000, None, value)


def decode(each: Record) -> Event | None:
    if each.value is None:
        return None
    try:
        data = json.loads(each.value)
    except ValueError as error:
        raise DecodeError("not JSON") from error
    wall = data.get("wall", VirtualClock.WALL_AT_START)
    return Event(id=data.get("event_id", each.place), type="t", time="", time_wall_seconds=wall, data=data, record=each)


def plan(event: Event) -> Plan:
    """`do` lists kinds; default one upsert, which merges only where `coalesce` says so. `fail` adds a failed rule."""
    data = event.data
    actions = []
    upsert = None
    for position, name in enumerate(data.get("do", ["upsert"])):
        kind = Kind(name)
        handling = Handling(
            lane=Lane(data.get("lane", "sync")),
            max_age_seconds=data.get("max_age"),
            ordered=not data.get("independent"),
            coalesce=data.get("coalesce", False),
            preserve=tuple(data.get("preserve", ())),
            linger_seconds=data.get("linger", 0.0),
        )
        body = {"email": data["email"], "seq": data["seq"]}
        if kind is Kind.UPSERT and "fields" in data:
            body["custom_fields"] = data["fields"]
        needs = upsert if kind in (Kind.TRACK, Kind.ADD_TAG) else None
        contact = Contact(data["email"], data.get("id"), tuple(sorted(data.get("aliases", {}).items())))
        actions.append(Action(kind, "rule", position, body, contact, handling, needs=needs))
        if kind is Kind.UPSERT:
            upsert = position
    failures = (RuleFailure("broken", "data.plan is missing", "data.plan"),) if data.get("fail") else ()
    return Plan(tuple(actions), failures)


class House:
    """Everything wired together, with what a test may change."""

    def __init__(
        self,
        *,
        meisa: FakeMeisa | None = None,
        letters: FakeLetters | None = None,
        limits: list[tuple[int, float]] | None = None,
        reserve: float = 0.0,
        max_in_flight: int = 64,
        policy: Policy | None = None,
        window_max: int | None = None,
        pending_max: int = 50_000,
        revoke_seconds: float = 20.0,
        plan: Callable[[Event], Plan] = plan,
        stop_at: tuple[float, int] = (0.2, 500),
        identities: Identities | None = None,
        store: Store | None = None,
        bulk_after_seconds: float = math.inf,
        shared: bool = False,
        unchanged: Callable[[VirtualClock], Unchanged] | None = None,
        quota: Quota | None = None,
        decode: Callable[[Record], Event | None] = decode,
        schemas: Schemas | None = None,
        dedupe: float | None = None,
    ) -> None:
        self.clock = VirtualClock()
        self.meisa = meisa or FakeMeisa()
        self.letters = letters or FakeLetters()
        self.source = FakeSource()
        self.meter = CountingMeter()
        self.refused_keys: list[str] = []
        self.failures: list[str] = []
        limits = limits or [(1_000_000, 60.0)]
        shares = {"default": Shares(limits, reserve=reserve)} if shared else {}
        self.delivery = Delivery(
            self.meisa,
            shares or {"default": quota or Quota(limits, reserve=reserve)},
            clock=self.clock,
            meter=self.meter,
            policy=policy or Policy(),
            identify=lambda each, action: action_id("group", each, action),
            max_in_flight=max_in_flight,
            key_refused=lambda key, outcome: self.refused_keys.append(key),
            dice=random.Random(1),  # the same waits in every run
            identities=identities,
            store=store,
            bulk_after_seconds=bulk_after_seconds,
            unchanged=unchanged(self.clock) if unchanged is not None else None,
        )
        self.duplicates = Duplicates({TOPIC: dedupe} if dedupe else {}, clock=self.clock, store=store)
        self.engine = Engine(
            group="group",
            decoders={TOPIC: decode},
            plan=plan,
            source=self.source,
            letters=self.letters,
            clock=self.clock,
            meter=self.meter,
            delivery=self.delivery,
            revoke_seconds=revoke_seconds,
            failed=self.failures.append,
            window_max=window_max,
            pending_max=pending_max,
            stop_at=stop_at,
            spend=Spend(
                shares,
                limits,
                clock=self.clock,
                meisa_clock=self.delivery.meisa_clock,
                counts=self.source.partition_counts,
            )
            if shared
            else None,
            store=store,
            schemas=schemas,
            duplicates=self.duplicates,
        )
        self.source.start(self.engine)
        self.delivery.open()

    def seqs(self, email: str | None = None) -> list[int]:
        """The sequence numbers that Meisa was sent, in the order of sending."""
        return [
            call.body["seq"]
            for call in self.meisa.calls
            if call.body and "seq" in call.body and email in (None, call.body["email"])
        ]

    def endings(self) -> dict[str, int]:
        return {name[1]: count for name, count in self.meter.counts.items() if name[0] == "finished"}
