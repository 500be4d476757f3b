"""Fewer calls, the same Meisa: the whole engine, short of quota, against one that makes a call for everything at once.

Both run the same events through the same rules into a sandbox's world of their own. Whatever was merged, what rode
along, what shared a call and what was not sent because Meisa had it, the contacts must end alike, each value of a
preserved field must have been there in its order, and what automations react to must have happened in the same order
for each contact.

Tags name their contact by email alone. One that also names an external_id tells it to Meisa where it rides on an
upsert, and does not as a call of its own, so there the two runs differ by what is known of the contact.
"""

from __future__ import annotations

import asyncio
import random
from typing import NamedTuple

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge import rules
from bridge.core.identity import Identities
from bridge.core.quota import Quota
from bridge.core.retry import Policy
from bridge.decode import decoder_for
from bridge.model import Record, TopicPartition, action_id
from bridge.rules import RuleBook
from bridge.runtime.delivery import Delivery
from bridge.runtime.engine import Engine
from bridge.runtime.unchanged import Unchanged
from tests.support.amount import examples
from tests.support.fakes import CountingMeter, FakeLetters, FakeSource
from tests.support.virtual import VirtualClock, run
from tests.support.world_meisa import WorldMeisa

TOPIC = "events"
NAMES = [TopicPartition(TOPIC, number) for number in range(2)]

RULES = """
rules:
  - name: signup
    match: user.signed_up
    do:
      - upsert: {email: "${data.email}", external_id: "${data.id}", source: signup, custom_fields: {plan: free},
                 tag_names: [trial]}
      - trigger: {trigger_key: welcome, to_email: "${data.email}", variables: {n: "${data.n}"}}
  - name: login
    match: user.logged_in
    do:
      - upsert: {email: "${data.email}", external_id: "${data.id}", custom_fields: {n: "${data.n}"}}
  - name: named
    match: user.named
    do:
      - upsert: {email: "${data.email}", first_name: "${data.value}", custom_fields: {m: "${data.n}"}}
  - name: plan
    match: plan.changed
    preserve: [custom_fields.plan]
    do:
      - upsert: {email: "${data.email}", external_id: "${data.id}", custom_fields: {plan: "${data.value}"}}
  - name: tagged
    match: user.tagged
    do:
      - add_tag: {email: "${data.email}", tag_name: "${data.value}"}
  - name: untagged
    match: user.untagged
    do:
      - remove_tag: {email: "${data.email}", tag_name: "${data.value}"}
  - name: paid
    match: invoice.paid
    do:
      - track: {event_name: paid, external_id: "${data.id}", email: "${data.email}", properties: {n: "${data.n}"}}
  - name: lost
    match: user.lost
    do:
      - upsert: {email: "${data.email}", external_id: "${data.id}", custom_fields: {plan: churned}}
      - enroll: {email: "${data.email}", sequence_slug: "win-back-${data.value}"}
      - trigger: {trigger_key: goodbye, to_email: "${data.email}", variables: {n: "${data.n}"}}
  - name: seen
    match: user.seen
    do:
      - upsert: {email: "${data.email}", first_name: "${data.value}", tag_names: ["${data.value}"]}
      - track: {event_name: seen, email: "${data.email}", properties: {n: "${data.n}"}}
  - name: greeted
    match: user.greeted
    do:
      - trigger: {trigger_key: hello, to_email: "${data.email}", variables: {n: "${data.n}"},
                  recipient: {first_name: "${data.value}"}}
  - name: moved
    match: user.moved
    do:
      - upsert: {email: "${data.email}", external_id: "${data.id}"}
"""
MERGING = rules.load_text(RULES)
LAZY = rules.load_text(
    RULES.replace(
        "    match: user.logged_in",
        "    lazy: [custom_fields.n, custom_fields.m]\n    lazy_every: 5m\n    match: user.logged_in",
    )
)
APART = rules.load_text(RULES.replace("    match:", "    coalesce: false\n    match:"))

TYPES = [
    "user.signed_up",
    "user.logged_in",
    "user.logged_in",
    "user.named",
    "plan.changed",
    "plan.changed",
    "user.tagged",
    "user.untagged",
    "invoice.paid",
    "user.lost",
    "user.moved",
    "user.seen",
    "user.seen",
    "user.greeted",
]


class Happens(NamedTuple):
    type: str
    user: int
    value: str
    gap: float
    """Seconds since the one before."""


HAPPENS = st.builds(
    Happens, st.sampled_from(TYPES), st.integers(0, 2), st.sampled_from("ab"), st.sampled_from([0.0, 0.0, 0.3, 25.0])
)


def records(story: list[Happens]) -> list[tuple[float, Record]]:
    """Records with the seconds to wait before each."""
    offsets = [0 for _ in NAMES]
    moves = [0, 0, 0]
    made = []
    for number, each in enumerate(story):
        moves[each.user] += each.type == "user.moved"
        email = f"u{each.user}.{moves[each.user]}@example.com"
        data = {"id": f"id{each.user}", "email": email, "n": number, "value": each.value}
        value = orjson.dumps({"id": f"e{number}", "type": each.type, "time": VirtualClock.WALL_AT_START, "data": data})
        partition = each.user % len(NAMES)
        record = Record(TOPIC, partition, offsets[partition], 1_780_000_000_000, b"person", value)
        offsets[partition] += 1
        made.append((each.gap, record))
    return made


async def deliver(
    story: list[Happens], book: RuleBook, *, limits: list[tuple[int, float]], singly: bool, keyed: bool = False
) -> WorldMeisa:
    """Runs the story through the whole engine until nothing is left. `singly`: each event when the former is done.

    `keyed`: the topic is keyed by contact, so what is unchanged need not be sent.
    """
    clock = VirtualClock()
    meisa = WorldMeisa(clock, watched="plan")
    source, letters = FakeSource(), FakeLetters()
    delivery = Delivery(
        meisa,
        {"default": Quota(limits, reserve=0.1)},
        clock=clock,
        meter=CountingMeter(),
        policy=Policy(),
        identify=lambda record, action: action_id("group", record, action),
        dice=random.Random(1),
        identities=Identities(),
        unchanged=Unchanged(clock=clock, topics=[TOPIC] if keyed else []),
    )
    engine = Engine(
        group="group",
        decoders={TOPIC: decoder_for("json", envelope=None).decode},
        plan=book.plan,
        source=source,
        letters=letters,
        clock=clock,
        meter=CountingMeter(),
        delivery=delivery,
    )
    source.start(engine)
    source.assign(*NAMES)
    delivery.open()
    for gap, record in records(story):
        await asyncio.sleep(gap)
        source.feed([record])
        while singly and delivery.pending:
            await asyncio.sleep(1.0)
    for _ in range(3600):
        if not delivery.pending and not delivery.lazy.contacts:
            break
        await asyncio.sleep(10.0)
    assert not delivery.pending and not delivery.lazy.contacts and not letters.letters
    await engine.stop(1.0)
    await delivery.close()
    return meisa


def both(story: list[Happens], quota: int, book: RuleBook = MERGING) -> tuple[WorldMeisa, WorldMeisa]:
    """Short of quota, merging and sending nothing that is unchanged, and one call for everything."""
    fewer: WorldMeisa = run(deliver(story, book, limits=[(quota, 60.0)], singly=False, keyed=True))
    single: WorldMeisa = run(deliver(story, APART, limits=[(100_000, 60.0)], singly=True))
    return fewer, single


@settings(deadline=None, max_examples=examples(100))
@given(st.lists(HAPPENS, max_size=25), st.integers(1, 12))
def test_fewer_calls_leave_the_same_contacts_and_every_transition_in_order(story: list[Happens], quota: int) -> None:
    fewer, single = both(story, quota)
    assert fewer.contacts() == single.contacts()
    assert fewer.transitions() == single.transitions()
    assert fewer.moments() == single.moments()
    assert len(fewer.calls) <= len(single.calls)


@settings(deadline=None, max_examples=examples(100))
@given(st.lists(HAPPENS, max_size=25), st.integers(1, 12))
def test_lazy_fields_leave_the_same_contacts_once_their_period_is_over(story: list[Happens], quota: int) -> None:
    """Log-ins finish at once, their values ride or go later: nothing that automations react to changes its order."""
    fewer, single = both(story, quota, LAZY)
    assert fewer.contacts() == single.contacts()
    assert fewer.transitions() == single.transitions()
    assert fewer.moments() == single.moments()
    assert len(fewer.calls) <= len(single.calls)


def test_a_kept_value_is_not_undone_by_an_older_one_that_waits_longer_than_a_period() -> None:
    """The last log-in has finished at once; an earlier one, merged with another event, goes minutes later."""
    kinds = ["user.signed_up"] * 6 + ["user.named", "user.logged_in", "user.signed_up", "user.logged_in"]
    fewer, single = both([Happens(kind, 0, "a", 0.0) for kind in kinds], 1, LAZY)
    assert fewer.contacts() == single.contacts()
    assert fewer.calls[-1].at > 300.0


def test_the_comparison_is_between_merged_calls_and_single_ones() -> None:
    """A quiet user's ten log-ins and two plans are three calls of twelve; the plans are both there."""
    story = [Happens("user.logged_in", 0, "a", 0.0)] * 10
    story[4:4] = [Happens("plan.changed", 0, "a", 0.0), Happens("plan.changed", 0, "b", 0.0)]
    story.insert(0, Happens("user.logged_in", 1, "a", 0.0))
    fewer, single = both(story, 1)
    assert len(single.calls) == 13
    assert len(fewer.calls) <= 4
    assert list(fewer.transitions().values()) == [["a", "b"]]


def test_what_meisa_has_is_not_sent_again() -> None:
    """Four equal states, far apart: the first is sent. A removed tag and a greeting are changes that the next one must
    undo."""
    seen, apart = Happens("user.seen", 0, "a", 25.0), Happens("user.seen", 0, "a", 300.0)
    fewer, single = both([seen, apart, apart, apart], 60)
    assert [len(made.calls) for made in (fewer, single)] == [5, 8]
    for change in ("user.untagged", "user.greeted"):
        story = [seen, apart, Happens(change, 0, "a" if change == "user.untagged" else "b", 1.0), apart, apart]
        fewer, single = both(story, 60)
        assert fewer.contacts() == single.contacts()
        assert [call.call.endpoint for call in fewer.calls].count("upsert") == 2
