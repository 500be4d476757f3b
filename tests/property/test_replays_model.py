"""Replays under faults: whatever is killed, revoked, refused, lost or late, no action is lost, none is carried out
twice beyond the rules, and nothing that a later event wrote is undone.

Real replays and real delivery on a virtual clock; topics and Meisa are imagined, and their faults come from a seed.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import random
from collections import Counter, defaultdict

import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.retry import Policy
from bridge.model import (
    Action,
    Call,
    Contact,
    Event,
    Kind,
    Letter,
    LetterKind,
    Outcome,
    Plan,
    Record,
    TopicPartition,
    Verdict,
)
from bridge.replay.ledger import Request, State
from tests.support.amount import examples
from tests.support.engine import TOPIC, decode
from tests.support.replays import Instance, MemoryLogs, identify
from tests.support.virtual import PROCESS, Process, VirtualLoop, run

PARTITIONS = [TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)]
PEOPLE = ["ann", "ben", "cleo", "dan"]
MEMORY_SECONDS = 3600.0
"""So long Meisa remembers an idempotency key."""
POLICY = Policy(attempts=3, max_age_seconds=20.0)


def plan(event: Event) -> Plan:
    """The actions that the value lists; each names itself in what it sends."""
    data, actions = event.data, []
    email = f"{data['who']}@x"
    for position, name in enumerate(data["do"]):
        kind = Kind(name)
        mark = f"{event.record.place}#{position}"
        if kind is Kind.UPSERT:
            custom = {**dict.fromkeys(data["fields"], event.record.offset), mark: 1}
            body = {"email": email, "custom_fields": custom}
        else:
            body = {"mark": mark, "to_email" if kind is Kind.TRIGGER else "email": email, "trigger_key": str(position)}
        actions.append(Action(kind, "rule", position, body, Contact(email)))
    return Plan(tuple(actions))


class Meisa:
    """Carries out, and answers, as the dice will."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.healthy = False
        self.done: Counter[str] = Counter()
        self.live: set[str] = set()
        """Marks of live events: an engine would see to it that these end; here they must not be refused."""
        self.unanswered: Counter[str] = Counter()
        """Carried out, and the answer lost."""
        self.emails: dict[str, list[float]] = defaultdict(list)
        self.fields: dict[tuple[str, str], int] = {}

    async def send(self, call: Call) -> Outcome:
        dice, loop = self.dice, asyncio.get_running_loop()
        await asyncio.sleep(dice.choice([0.01, 0.1, 5.0]))
        fate = "well" if self.healthy else dice.choices(["well", "503", "400", "lost", "429"], [8, 2, 1, 2, 1])[0]
        body = call.body or {}
        marks = [body["mark"]] if "mark" in body else [name for name in body["custom_fields"] if "#" in name]
        if fate in ("503", "400") and not self.live.isdisjoint(marks):
            fate = "well"
        if fate == "503":
            return Outcome(Verdict.RETRY, 503)
        if fate == "400":
            return Outcome(Verdict.REFUSED, 400, "no")
        if fate == "429":
            return Outcome(Verdict.THROTTLED, 429, retry_after_seconds=dice.choice([1.0, 4000.0]))
        if call.endpoint == "trigger":
            sent = self.emails[str(body["idempotency_key"])]
            if not sent or loop.time() - sent[-1] > MEMORY_SECONDS:
                sent.append(loop.time())
        for mark in marks:
            self.done[mark] += 1
        for name, value in body.get("custom_fields", {}).items():
            if "#" not in name:
                self.fields[body["email"], name] = value
        if fate == "lost":
            self.unanswered.update(marks)
            await asyncio.sleep(1.0)
            return Outcome(Verdict.UNKNOWN)
        return Outcome(Verdict.DELIVERED, 200)

    async def close(self) -> None:
        pass


class Story:
    def __init__(self, seed: int, loop: VirtualLoop) -> None:
        self.dice = random.Random(f"replays {seed}")
        self.loop = loop
        self.trouble = 0.03
        self.logs = MemoryLogs(lambda: self.dice.random() < self.trouble)
        self.meisa = Meisa(self.dice)
        self.requests: list[Request] = []
        self.letters: list[Letter] = []
        self.places: list[tuple[Instance, Process, contextvars.Context] | None] = [None, None]
        self.owners: dict[TopicPartition, int | None] = dict.fromkeys(PARTITIONS)
        self.epoch = 0
        self.kills = 0
        self.pending: dict[TopicPartition, list[Record]] = {name: [] for name in PARTITIONS}
        """Live events that were not carried through; their next owner reads them again, as from the frontier."""

    def produce(self, *, live: bool = False) -> Record:
        who = self.dice.choice(PEOPLE)
        # Live triggers are the engine's business, which keeps marks of them: here they would have none.
        do = self.dice.choice([["upsert"], ["upsert", "track"], ["trigger"], ["upsert", "trigger"], ["enroll"]])
        if live:
            do = ["upsert"]
        fields = self.dice.sample(["plan", "country", "mrr"], self.dice.randint(1, 3))
        value = json.dumps({"who": who, "do": do, "fields": fields}).encode()
        return self.logs.append(TOPIC, PEOPLE.index(who) % 2, None, value)

    def bury(self, record: Record) -> None:
        """One letter of all its actions, or one each; perhaps written twice, perhaps doubtful already."""
        event = decode(record)
        assert event is not None
        actions = plan(event).actions
        parts = [actions] if self.dice.random() < 0.6 else [[action] for action in actions]
        for part in parts:
            kind = self.dice.choices([LetterKind.REJECTED, LetterKind.DECODE, LetterKind.RULE], [8, 1, 1])[0]
            ids = tuple(identify(record, each) for each in part) if kind is LetterKind.REJECTED else ()
            letter = Letter(record, kind, "no", rule="rule", undelivered_ids=ids, failed_at_wall_seconds=1.0)
            for _ in range(self.dice.choice([1, 1, 2])):
                written = self.logs.bury(letter)
            self.letters.append(letter)
            for _ in range(self.dice.choice([1, 1, 2])):
                self.loop.call_later(self.dice.choice([0.0, 30.0, 500.0]), self.ask, written)

    def ask(self, letter: Record) -> None:
        self.requests.append(self.logs.ask(letter, at=len(self.requests) + 1))

    # Instances

    def start(self, number: int) -> None:
        process = Process(f"instance {number}")
        context = contextvars.copy_context()
        context.run(PROCESS.set, process)
        instance = context.run(
            lambda: Instance(self.logs, self.meisa, policy=POLICY, plan=plan, seed=self.dice.getrandbits(32))
        )
        self.places[number] = (instance, process, context)
        context.run(instance.start)
        for partition, owner in self.owners.items():
            if owner is None:
                self.give(partition, number)

    def give(self, partition: TopicPartition, number: int) -> None:
        place = self.places[number]
        assert place is not None
        instance, _, context = place
        self.epoch += 1
        self.owners[partition] = number
        instance.partitions[partition] = self.epoch
        for record in self.pending[partition]:
            context.run(self.carry, instance, record)

    def carry(self, instance: Instance, record: Record) -> None:
        event = decode(record)
        assert event is not None
        completion = instance.delivery.deliver(event, instance.replays.plan(event).actions)
        completion.then(lambda: self.pending[TopicPartition(TOPIC, record.partition)].remove(record))

    def happen_live(self) -> None:
        record = self.produce(live=True)
        self.meisa.live.add(f"{record.place}#0")
        partition = TopicPartition(TOPIC, record.partition)
        self.pending[partition].append(record)
        owner = self.owners[partition]
        if owner is not None and (place := self.places[owner]) is not None:
            place[2].run(self.carry, place[0], record)

    def kill(self, number: int) -> None:
        place = self.places[number]
        if place is not None:
            place[1].killed = True
            self.kills += 1
            self._leave(number)

    def _leave(self, number: int) -> None:
        self.places[number] = None
        for partition, owner in self.owners.items():
            if owner == number:
                self.owners[partition] = None
                other = self.places[1 - number]
                if other is not None:
                    self.give(partition, 1 - number)

    async def stop(self, number: int) -> None:
        place = self.places[number]
        if place is not None:
            instance, process, context = place
            await self._over(asyncio.get_running_loop().create_task(instance.stop(), context=context), process)
            if not process.killed:
                process.killed = True
                self._leave(number)

    @staticmethod
    async def _over(task: asyncio.Task[None], process: Process) -> None:
        """A killed process never says that it has ended."""
        while not task.done() and not process.killed:
            await asyncio.sleep(0.05)

    async def move(self, partition: TopicPartition) -> None:
        owner = self.owners[partition]
        if owner is None or self.places[1 - owner] is None or (place := self.places[owner]) is None:
            return
        self.owners[partition] = None
        revoke = place[0].revoke(partition)
        await self._over(asyncio.get_running_loop().create_task(revoke, context=place[2]), place[1])
        if self.places[1 - owner] is not None:
            self.give(partition, 1 - owner)

    # The story

    async def tell(self) -> None:
        dice = self.dice
        records = [self.produce() for _ in range(dice.randint(6, 18))]
        for record in records:
            if dice.random() < 0.5:
                self.bury(record)
        for _ in range(dice.randint(3, 12)):
            number = dice.randrange(2)
            match dice.choice(["start", "start", "kill", "stop", "move", "live", "live", "wait", "long"]):
                case "start" if self.places[number] is None:
                    self.start(number)
                case "kill":
                    self.loop.after_steps(dice.randrange(1, 400), lambda number=number: self.kill(number))
                case "stop":
                    await self.stop(number)
                case "move":
                    await self.move(dice.choice(PARTITIONS))
                case "live":
                    self.happen_live()
                case "long":
                    await asyncio.sleep(5_000.0)
                case _:
                    await asyncio.sleep(dice.choice([0.5, 10.0, 100.0]))
        await self.heal()

    async def heal(self) -> None:
        self.loop.after_steps(1, lambda: None)
        await asyncio.sleep(600.0)
        self.trouble, self.meisa.healthy = 0.0, True
        if all(place is None for place in self.places):
            self.start(0)
        for partition, owner in self.owners.items():
            if owner is None:
                self.give(partition, next(number for number in (0, 1) if self.places[number] is not None))
        # A kill that was to come may come now: whoever is left takes over, or a new one starts.
        async with asyncio.timeout(100_000.0):
            while self.unfinished():
                await asyncio.sleep(30.0)
                for partition, owner in self.owners.items():
                    if owner is None:
                        if self.places == [None, None]:
                            self.start(0)
                        else:
                            self.give(partition, next(n for n in (0, 1) if self.places[n] is not None))
        for number in (0, 1):
            await self.stop(number)

    def unfinished(self) -> bool:
        asked = any(self.logs.state(request)[0] is State.REQUESTED for request in self.requests)
        return asked or any(self.pending.values())

    # What must hold

    def check(self) -> None:
        fresh = {each for letter in self.logs.letters() if letter.replays for each in letter.ids}
        asked = {request.key for request in self.requests}
        for request in self.requests:
            state, message = self.logs.state(request)
            assert state in (State.REPLAYED, State.REFUSED), (request, state, message)
        for letter in self.logs.letters():
            if (letter.source, letter.name) not in asked:
                continue
            record = self.record(letter.source.partition, letter.source.offset)
            event = decode(record)
            assert event is not None
            for action in plan(event).actions:
                action_id = identify(record, action)
                if letter.ids and action_id not in letter.ids:
                    continue
                mark = f"{record.place}#{action.position}"
                assert self.meisa.done[mark] or action_id in fresh, f"{mark} is lost"
        for mark, count in self.meisa.done.items():
            most = 1 + self.kills + self.meisa.unanswered[mark]
            assert count <= most, f"{mark} was carried out {count} times"
        for key, times in self.meisa.emails.items():
            assert len(times) == 1, f"the email {key} was sent {len(times)} times: {times}"
        buried = {(letter.record.partition, letter.record.offset) for letter in self.letters}
        for (email, name), offset in self.meisa.fields.items():
            who = email.removesuffix("@x")
            partition = PEOPLE.index(who) % 2
            if (partition, offset) in buried:
                for later in self.logs.topics[TopicPartition(TOPIC, partition)][offset + 1 :]:
                    assert later is not None and later.value is not None
                    said = json.loads(later.value)
                    if said["who"] == who and "upsert" in said["do"] and name in said["fields"]:
                        raise AssertionError(f"{who}'s {name} of {offset} overwrote that of {later.offset}")

    def record(self, partition: int, offset: int) -> Record:
        record = self.logs.topics[TopicPartition(TOPIC, partition)][offset]
        assert record is not None
        return record


def play(seed: int) -> Story:
    loop = VirtualLoop(seed, shuffle=True)
    asyncio.set_event_loop(loop)
    story = Story(seed, loop)
    run(story.tell(), loop)
    story.check()
    return story


@settings(max_examples=examples(30), deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_happens_nothing_is_lost_doubled_or_undone(seed: int) -> None:
    """One seed, one story of kills, moves and faults; `play(seed)` tells it again."""
    with structlog.testing.capture_logs() as logs:
        play(seed)
    assert [entry for entry in logs if "broke" in entry["event"]] == []


def test_the_stories_are_worth_telling() -> None:
    """Over a few of them there are kills, lost answers, repeats under the same key, letters refused again."""
    with structlog.testing.capture_logs():
        stories = [play(seed) for seed in range(8)]
    assert sum(story.kills for story in stories) >= 3
    assert sum(sum(story.meisa.unanswered.values()) for story in stories) >= 3
    assert any(story.logs.state(request)[0] is State.REFUSED for story in stories for request in story.requests)
    assert any(story.logs.state(request)[0] is State.REPLAYED for story in stories for request in story.requests)
