"""Kept values against one call per event: whatever is merged, refused, crashed or read again, Meisa ends the same."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.lazy import LazyValues, Ride
from bridge.core.lazy_entries import Said, only_lazy, with_values
from bridge.model import Action, Contact, Handling, Kind, TopicPartition
from bridge.state.memory import MemoryStore
from tests.support.amount import examples

P = TopicPartition("users", 0)
DAY = 86_400.0
HANDLING = Handling(lazy=("custom_fields.seen", "custom_fields.count"), lazy_every_seconds=DAY)
PEOPLE = [Contact("a@x", "1"), Contact("b@x", "2"), Contact("a@x"), Contact("b@x")]

fields = st.fixed_dictionaries({}, optional={"seen": st.just(0), "count": st.just(0), "plan": st.just(0)})
steps = st.lists(
    st.one_of(
        st.tuples(st.just("event"), st.sampled_from([0, 0, 0, 2, 1]), fields, st.booleans()),
        st.tuples(st.just("leave")),
        st.tuples(st.just("answer"), st.sampled_from(["delivered", "delivered", "refused", "lost"])),
        st.tuples(st.just("commit")),
        st.tuples(st.just("crash"), st.booleans()),
        st.tuples(st.just("wait"), st.sampled_from([60.0, DAY / 3, DAY])),
    ),
    max_size=40,
)


class Store(MemoryStore):
    """What was flushed with the last commit survives; perhaps what was put since, too."""

    lasting = True


def _untold(place: TopicPartition, offset: int) -> bool:
    return False


class World:
    """A bridge in small: a queue of calls, commits, crashes; and Meisa, which refuses what is marked as bad."""

    def __init__(self) -> None:
        self.log: list[tuple[Said, bool]] = []
        self.meisa: dict[str, dict[str, int]] = {"a@x": {}, "b@x": {}}
        self.wall = 1_000_000.0
        self.store = Store()
        self.flushed: dict[str, bytes] = {}
        self.finished: set[int] = set()
        self.committed: set[int] = set()
        self.told = 0
        self.calls = 0
        self.begin()

    def begin(self) -> None:
        self.machine = LazyValues(store=self.store)
        self.machine.assigned(P)
        for name, value in list(self.store._values.items()):
            assert self.machine.load(P, name, value, self.wall)
        self.queue: list[Said] = []
        self.bare: list[Said] = []
        self.under_way: tuple[Said, Ride | None] | None = None

    def event(self, who: int, names: dict[str, int], bad: bool) -> None:
        offset = len(self.log)
        contact = PEOPLE[who]
        body: dict[str, Any] = {"email": contact.email, "custom_fields": dict.fromkeys(names, offset)}
        self.log.append((Said(Action(Kind.UPSERT, "r", 0, body, contact, HANDLING), P, offset), bad))
        self.read(offset)

    def read(self, offset: int) -> None:
        said, _ = self.log[offset]
        email = said.action.contact.email
        coming = next((each.action.contact for each in self.queue if each.action.contact.email == email), None)
        if only_lazy(said.action) and self.machine.keep(said, self.wall, coming):
            self.finished.add(offset)
        else:
            self.queue.append(said)

    def call(self, body: Any) -> bool:
        """Whether Meisa takes it: one bad value, and all of it is refused."""
        self.calls += 1
        values = body["custom_fields"]
        if any(self.log[offset][1] for offset in values.values()):
            return False
        self.meisa[body["email"]].update(values)
        return True

    def is_told(self, place: TopicPartition, offset: int) -> bool:
        return offset < self.told

    def leave(self) -> None:
        """The next call is on its way, with what rides on it."""
        if self.queue and self.under_way is None:
            said = self.queue[0]
            self.told = max(self.told, said.offset + 1)
            self.under_way = said, self.machine.ride([said], self.is_told if said not in self.bare else _untold, False)

    def answer(self, fate: str) -> None:
        if self.under_way is None:
            return
        (said, ride), self.under_way = self.under_way, None
        rode = ride is not None and bool(ride.values)
        body = with_values(said.action.body, ride.values if ride is not None else {})
        if (fate == "refused" and rode) or not self.call(body):
            if rode:  # for whatever reason: it goes again without
                assert ride is not None
                self.machine.refused(ride)
                self.bare.append(said)
            else:
                assert self.log[said.offset][1], "nothing is refused but what is bad"
                self.end(said)
        elif fate != "lost":  # its answer is: it is sent again
            self.machine.delivered([said], ride, self.wall)
            self.end(said)

    def end(self, said: Said) -> None:
        self.queue.pop(0)
        self.finished.add(said.offset)
        self.machine.soon(said.action.contact, self.wall)

    def commit(self) -> None:
        self.flushed = dict(self.store._values)
        self.committed = set(self.finished)
        self.told = len(self.log)

    def crash(self, lucky: bool) -> None:
        if not lucky:
            self.store._values.clear()
            self.store._values.update(self.flushed)
        self.finished = set(self.committed)
        self.begin()
        for offset in range(len(self.log)):
            if offset not in self.finished:
                self.read(offset)
        self.told = len(self.log)

    def wait(self, seconds: float) -> None:
        self.wall += seconds
        for _ in range(20):
            entry = self.machine.take_due(self.wall)
            if entry is None:
                return
            if any(each.action.contact.email == entry.email for each in self.queue):
                self.machine.put_back(entry, self.wall + 1)  # its call stands behind these
                continue
            contact = Contact(entry.email, entry.external_id)
            alone = Said(Action(Kind.UPSERT, "", 0, {"email": entry.email}, contact, Handling()), P, 0)
            ride = self.machine.ride([alone], self.is_told, True)
            if ride is not None:
                if self.call(with_values(alone.action.body, ride.values)):
                    self.machine.delivered([alone], ride, self.wall)
                else:
                    self.machine.drop(ride, self.wall)
            self.machine.put_back(entry, self.wall + 1)

    def finish(self) -> None:
        for _ in range(2 * len(self.log) + 2):
            self.leave()
            self.answer("delivered")
        assert not self.queue
        self.commit()
        for _ in range(30):
            self.wait(DAY / 4)


@given(steps)
@settings(max_examples=examples(400), deadline=None)
def test_meisa_ends_in_the_state_of_one_call_per_event(story: list[Any]) -> None:
    """Once all is delivered and the periods are over; whatever happened on the way, and nothing is due any more."""
    world = World()
    for name, *arguments in story:
        if name == "event":
            who, said, _ = arguments
            world.event(who, said, False)
        else:
            getattr(world, name)(*arguments)
    world.finish()
    expected: dict[str, dict[str, int]] = {"a@x": {}, "b@x": {}}
    for said, _ in world.log:
        expected[said.action.body["email"]].update(said.action.body["custom_fields"])
    assert world.meisa == expected
    assert world.machine.waiting == 0


@given(steps)
@settings(max_examples=examples(300), deadline=None)
def test_a_refused_value_costs_no_other_events_value(story: list[Any]) -> None:
    """Fields that no lazy rule names are what one call per event would have left; lazy ones are never a bad value."""
    world = World()
    for name, *arguments in story:
        getattr(world, name)(*arguments)
    world.finish()
    for email, values in world.meisa.items():
        plans = [
            said.offset
            for said, bad in world.log
            if said.action.body["email"] == email and "plan" in said.action.body["custom_fields"] and not bad
        ]
        assert values.get("plan") == (plans[-1] if plans else None)
        assert not any(world.log[offset][1] for offset in values.values())
    assert world.machine.waiting == 0


@given(st.integers(1, 60), st.sampled_from([60.0, 3600.0, 7200.0]))
def test_a_contact_costs_at_most_one_call_per_period(logins: int, every: float) -> None:
    """However many log-ins there are: one at once, and one for each period that has begun."""
    world = World()
    for _ in range(logins):
        world.event(0, {"seen": 0}, False)
        world.commit()
        world.leave()
        world.answer("delivered")
        world.wait(every)
    assert world.calls <= 1 + (world.wall - 1_000_000.0) / DAY + 1
