"""Values of lazy fields: what is kept, what rides, what is due, and what two writings of a register leave."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from bridge.core.identity import Identities
from bridge.core.lazy import LazyValues, Ride
from bridge.core.lazy_entries import (
    Entry,
    Said,
    Value,
    decoded,
    is_lazy,
    joined,
    lazy_values,
    merged,
    only_lazy,
    partition_prefix,
    with_values,
)
from bridge.core.registers import merged as registers_merged
from bridge.errors import StoreFailed
from bridge.model import Action, Contact, Handling, Kind, TopicPartition
from bridge.state.memory import MemoryStore

P, Q = TopicPartition("users", 0), TopicPartition("billing", 3)
SEEN, COUNT = "custom_fields.seen", "custom_fields.count"
DAY = 86_400.0
T0 = 1_000_000.0


def upsert(
    email: str | None = "a@x", external_id: str | None = None, *, lazy: tuple[str, ...] = (SEEN, COUNT), **body: Any
) -> Action:
    preserve = body.pop("preserve", ())
    named = {"email": email} | ({"external_id": external_id} if external_id else {})
    handling = Handling(lazy=lazy, preserve=preserve, lazy_every_seconds=DAY)
    return Action(Kind.UPSERT, "rule", 0, named | body, Contact(email, external_id), handling)


def said(
    offset: int, place: TopicPartition = P, email: str = "a@x", external_id: str | None = None, **fields: Any
) -> Said:
    return Said(upsert(email, external_id, custom_fields=fields), place, offset)


def told(place: TopicPartition, offset: int) -> bool:
    return True


def untold(place: TopicPartition, offset: int) -> bool:
    return False


def send(machine: LazyValues, *group: Said, wall: float = T0) -> dict[str, Any]:
    """Delivers a call with what rides on it; its custom fields."""
    ride = machine.ride(group, told, False)
    body: Mapping[str, Any] = {"custom_fields": {}}
    for each in group:
        body = with_values(
            body, {f"custom_fields.{k}": v for k, v in each.action.body.get("custom_fields", {}).items()}
        )
    machine.delivered(group, ride, wall)
    return dict(with_values(body, ride.values if ride is not None else {})["custom_fields"])


def known(machine: LazyValues | None = None, place: TopicPartition = P, **values: Any) -> LazyValues:
    """A contact of whom a call has just carried lazy fields, and then these were kept."""
    machine = LazyValues() if machine is None else machine
    send(machine, said(0, place, seen=0))
    for offset, value in enumerate(values.pop("kept", [1]), 1):
        assert machine.keep(said(offset, place, seen=value), T0)
    return machine


def own_call(machine: LazyValues, wall: float) -> tuple[Entry, Ride | None]:
    entry = machine.take_due(wall)
    assert entry is not None
    return entry, machine.ride([alone(entry)], told, True)


def alone(entry: Entry) -> Said:
    return Said(upsert(entry.email, entry.external_id, lazy=()), entry.place, 0)


class DirtyStore(MemoryStore):
    """Counts as one that outlives the process."""

    lasting = True
    broken = False

    def get(self, name: str) -> bytes | None:
        if self.broken:
            raise StoreFailed("broken")
        return super().get(name)


# What an upsert says


@pytest.mark.parametrize(
    ("body", "lazily"),
    [
        ({"custom_fields": {"seen": 1}}, True),
        ({"custom_fields": {"seen": 1, "count": 2}, "source": "signup", "tag_names": []}, True),
        ({"custom_fields": {"seen": 1, "plan": "pro"}}, False),
        ({"custom_fields": {"seen": 1}, "tag_names": ["vip"]}, False),
        ({"custom_fields": {"seen": 1}, "first_name": "Ann"}, False),
        ({"custom_fields": {}}, False),
        ({}, False),
    ],
)
def test_only_lazy_fields(body: dict[str, Any], lazily: bool) -> None:
    """Names and source do not count, everything else does; without a lazy field it is no lazy change."""
    assert only_lazy(upsert(**body)) is lazily


def test_nothing_is_lazy_without_a_rule_that_says_so() -> None:
    """An upsert of a rule book without lazy paths, and anything that is no upsert."""
    assert not only_lazy(upsert(lazy=(), custom_fields={"seen": 1}))
    assert lazy_values(upsert(lazy=(), custom_fields={"seen": 1})) == {}
    assert not is_lazy(SEEN, upsert(lazy=()).handling)
    assert is_lazy(SEEN, upsert().handling)
    track = Action(Kind.TRACK, "rule", 0, {"event_name": "x"}, Contact("a@x"), Handling(lazy=(SEEN,)))
    assert not only_lazy(track)
    assert lazy_values(track) == {}


def test_preserved_paths_and_names_are_never_lazy() -> None:
    """Each value of a preserved path is sent; a whole group of fields may be lazy but for those."""
    every = ("custom_fields", "email", "tag_names", "source")
    assert only_lazy(upsert(lazy=every, custom_fields={"any": 1}))
    assert not only_lazy(upsert(lazy=every, tag_names=["vip"], custom_fields={"any": 1}))
    assert not only_lazy(upsert(lazy=every, preserve=("custom_fields.plan",), custom_fields={"any": 1, "plan": "pro"}))
    assert not only_lazy(upsert(lazy=(SEEN,), preserve=(SEEN,), custom_fields={"seen": 1}))


def test_values_stand_over_a_body() -> None:
    """By path, without touching the body that they stand over."""
    body = {"email": "a@x", "custom_fields": {"plan": "pro"}}
    assert with_values(body, {SEEN: 1, "first_name": "Ann"}) == {
        "email": "a@x",
        "custom_fields": {"plan": "pro", "seen": 1},
        "first_name": "Ann",
    }
    assert with_values({}, {SEEN: 1}) == {"custom_fields": {"seen": 1}}
    assert body["custom_fields"] == {"plan": "pro"}


# Keeping


def test_nothing_on_record_needs_a_call() -> None:
    """Neither of an unknown contact, nor once the period is over."""
    machine = LazyValues()
    assert not machine.keep(said(0, seen=0), T0)
    send(machine, said(0, seen=0))
    assert machine.keep(said(1, seen=1), T0 + DAY - 1)
    assert not machine.keep(said(2, seen=2), T0 + DAY)


def test_another_name_needs_a_call() -> None:
    """An id or an email that Meisa does not know of the contact is a change; knowing fewer names is none."""
    machine = LazyValues()
    send(machine, said(0, external_id="7", seen=0))
    assert machine.keep(said(1, seen=1), T0)
    assert machine.keep(said(1, external_id="7", seen=1), T0)
    assert not machine.keep(said(2, email="b@x", external_id="7", seen=1), T0)
    assert not machine.keep(said(2, external_id="8", seen=1), T0)
    machine = known()
    assert not machine.keep(said(2, external_id="7", seen=1), T0)


def test_what_waits_takes_values_along_though_nothing_is_on_record() -> None:
    """Also where it is refused in the end: then they go by themselves, at once."""
    machine = LazyValues()
    assert not machine.keep(said(1, seen=1), T0, Contact(None, "7"))
    assert not machine.keep(said(1, seen=1), T0, Contact("b@x"))
    assert machine.keep(said(1, seen=1), T0, Contact("A@X"))
    assert machine.next_deadline() == T0 + DAY
    machine.soon(Contact("a@x"), T0 + 5)
    assert machine.next_deadline() == T0 + 5
    machine = known()
    machine.soon(Contact("a@x"), T0 + 5)
    assert machine.next_deadline() == T0 + DAY


def test_a_call_without_lazy_fields_lets_what_never_had_one_follow_at_once() -> None:
    """It left before the value could ride; nothing is on record, so the value does not wait for a period."""
    machine = LazyValues()
    assert machine.keep(said(1, seen=1), T0, Contact("a@x"))
    machine.delivered([said(0, plan="pro")], machine.ride([said(0, plan="pro")], untold, False), T0 + 7)
    assert machine.next_deadline() == T0 + 7


def test_values_that_are_read_again_are_kept_once() -> None:
    """An older one never, one that was sent never; the same one again is no further event."""
    machine = known(kept=[1, 2])
    assert machine.keep(said(1, seen=1), T0)
    assert machine.keep(said(2, seen=2), T0)
    assert send(machine, said(3, plan="pro")) == {"plan": "pro", "seen": 2}
    assert machine.keep(said(2, seen=2), T0)
    assert machine.waiting == 0
    assert machine.take_due(T0 + 5 * DAY) is None


def test_between_partitions_the_last_to_arrive_wins() -> None:
    """A value of another partition replaces one that is due, which goes nowhere any more."""
    machine = known(kept=[1])
    assert machine.keep(said(7, Q, seen="q"), T0)
    assert machine.waiting == 1
    assert send(machine, said(3, plan="pro")) == {"plan": "pro", "seen": "q"}
    assert machine.waiting == 0


# Riding


def test_a_call_takes_along_what_it_does_not_say_itself() -> None:
    """Its own newer value wins, and settles the older one; a kept one that is newer than its own wins over that."""
    machine = known(kept=[1, 2])
    assert send(machine, said(3, seen=3, plan="pro")) == {"seen": 3, "plan": "pro"}
    assert machine.waiting == 0
    machine = known(kept=[1, 2])
    assert send(machine, said(1, seen="old", plan="pro")) == {"seen": 2, "plan": "pro"}
    assert machine.waiting == 0


def test_what_was_sent_is_not_undone_by_a_record_that_is_read_again() -> None:
    """Offset 5 reached Meisa; offset 3, read again, goes out with its plan but not with its older value."""
    machine = LazyValues()
    send(machine, said(5, seen=5))
    assert send(machine, said(3, seen=3, plan="pro")) == {"seen": 5, "plan": "pro"}


def test_another_partitions_own_value_settles_what_is_due() -> None:
    """Between partitions the call's own value is the last to arrive."""
    machine = known(kept=[1])
    assert send(machine, said(0, Q, seen="q")) == {"seen": "q"}
    assert machine.waiting == 0


def test_what_is_due_leaves_the_call_to_the_last_upsert_that_waits() -> None:
    """One behind this may say something older. What was sent already is undone by none."""
    machine = known()
    assert machine.ride([said(2, plan="pro")], told, False, last=False) is None
    assert machine.ride([said(0, seen=0)], told, False, last=False) is None
    send(machine, said(2, plan="pro"))
    ride = machine.ride([said(0, seen=0)], told, False, last=False)
    assert ride is not None and ride.values == {"custom_fields.seen": 1}


def test_what_no_commit_told_does_not_ride() -> None:
    """Neither as a kept value nor over an older one of the call."""
    machine = known()
    assert machine.ride([said(2, plan="pro")], untold, False) is None
    assert machine.ride([said(0, seen=0)], untold, False) is None
    assert machine.ride([said(2, seen=2)], untold, False) is not None, "its own newer value settles the kept one"
    assert machine.ride([said(2, email="b@x", plan="pro")], told, False) is None
    assert LazyValues().ride([said(2, plan="pro")], told, False) is None


def test_a_refused_call_settles_nothing() -> None:
    """What rode on it is due still, but rides no more: it goes alone, path by path."""
    machine = known(kept=[])
    assert machine.keep(said(1, seen=1, count=1), T0)
    ride = machine.ride([said(2, plan="pro")], told, False)
    assert ride is not None
    assert ride.values == {SEEN: 1, COUNT: 1}
    machine.refused(ride)
    assert machine.ride([said(2, plan="pro")], told, False) is None
    entry, ride = own_call(machine, T0 + DAY)
    assert ride is not None
    assert ride.values == {SEEN: 1}
    assert machine.drop(ride, T0 + DAY) == 1
    assert machine.drop(ride, T0 + DAY) == 0
    machine.put_back(entry, T0 + DAY)
    entry, ride = own_call(machine, T0 + DAY)
    assert ride is not None
    assert ride.values == {COUNT: 1}
    assert machine.drop(ride, T0 + DAY) == 1
    machine.put_back(entry, T0 + DAY)
    assert machine.waiting == 0
    assert machine.keep(said(5, seen=5), T0 + 1)
    assert machine.ride([said(6, plan="free")], told, False) is not None, "nothing is suspect any more"


def test_a_value_kept_while_its_forerunner_is_under_way_stays_due() -> None:
    """Only what the call carried is settled."""
    machine = known(kept=[1])
    call = [said(2, plan="pro")]
    ride = machine.ride(call, told, False)
    assert machine.keep(said(3, seen=3), T0)
    machine.delivered(call, ride, T0 + 10)
    assert machine.waiting == 1
    assert machine.next_deadline() == T0 + 10 + DAY


def test_the_call_counts_the_calls_that_it_saved() -> None:
    """Three events whose values rode: three calls less."""
    machine = known(kept=[1, 2, 3])
    call = [said(4, plan="pro")]
    assert machine.delivered(call, machine.ride(call, told, False), T0) == 3
    assert machine.delivered(call, None, T0) == 0


def test_a_delivered_call_without_email_teaches_nothing() -> None:
    """Its contact was never named as Meisa has it."""
    machine = LazyValues()
    assert machine.delivered([Said(upsert(None, "7", custom_fields={"seen": 1}), P, 0)], None, T0) == 0
    assert len(machine) == 0


def test_a_call_that_was_not_needed_settles_older_values_and_begins_no_period() -> None:
    """Meisa has what the upsert says: what was due before goes nowhere, what else is due in its time."""
    machine = known(kept=[1])
    assert machine.keep(said(2, count=2), T0 + 1)
    machine.delivered([said(3, seen=3, plan="pro")], None, T0 + 500, called=False)
    assert send(machine, said(1, plan="x", seen=1)) == {"plan": "x", "seen": 3, "count": 2}
    machine = known(kept=[])
    assert machine.keep(said(2, count=2), T0 + 1)
    machine.delivered([said(3, seen=3)], None, T0 + 500, called=False)
    assert machine.next_deadline() == T0 + DAY


def test_a_rekeyed_contact_keeps_its_values() -> None:
    """They ride on the re-key itself, and what is kept later is found under the new email."""
    machine = LazyValues()
    send(machine, said(0, external_id="7", seen=0))
    assert machine.keep(said(1, external_id="7", seen=1), T0)
    assert send(machine, said(2, email="new@x", external_id="7", plan="pro")) == {"plan": "pro", "seen": 1}
    assert machine.keep(said(3, email="new@x", seen=3), T0)
    assert not machine.keep(said(4, email="a@x", seen=4), T0)
    send(machine, said(5, email="a@x", seen=5))  # somebody else has the email now, in the same register's name
    assert machine.keep(said(6, email="a@x", seen=6), T0)
    assert send(machine, said(7, email="new@x", plan="free")) == {"plan": "free", "seen": 3}
    assert send(machine, said(8, email="a@x", plan="free")) == {"plan": "free", "seen": 6}


def test_an_email_that_passed_to_another_register_name_loses_nobodys_values() -> None:
    """An entry is named after the first name that it had; who has that name next gets another."""
    machine = known()
    send(machine, said(2, external_id="7", plan="x", seen=2))  # a@x is 7
    send(machine, said(3, email="b@x", external_id="7", seen=3))  # 7 is b@x
    assert machine.keep(said(4, email="b@x", seen=4), T0)
    send(machine, said(5, email="a@x", seen=5))
    assert machine.keep(said(6, email="a@x", seen=6), T0)
    assert machine.waiting == 2


def test_a_contact_that_meisa_does_not_know_gets_a_call_soon() -> None:
    """What is due goes at once, what was sent is nowhere any more; the next upsert is an ordinary one."""
    machine = known()
    machine.missing(Contact("a@x"), T0 + 9)
    assert machine.next_deadline() == T0 + 9
    assert not machine.keep(said(2, seen=2), T0 + 9)
    machine = LazyValues()
    send(machine, said(0, external_id="7", seen=0))
    machine.missing(Contact(None, "7"), T0)
    assert len(machine) == 0


# Going by themselves


def test_a_kept_value_goes_by_itself_when_the_period_is_over() -> None:
    """Not before, once, and with what is newest by then."""
    machine = known(kept=[1])
    assert machine.take_due(T0 + DAY - 1) is None
    entry = machine.take_due(T0 + DAY)
    assert entry is not None
    assert machine.take_due(T0 + DAY) is None
    assert machine.keep(said(2, seen=2), T0 + DAY, Contact("a@x"))
    assert machine.take_due(T0 + 2 * DAY) is None, "its call is under way"
    call = [alone(entry)]
    ride = machine.ride(call, told, True)
    assert ride is not None
    assert ride.values == {SEEN: 2}
    assert machine.delivered(call, ride, T0 + DAY) == 2
    machine.put_back(entry, T0 + DAY)
    assert machine.next_deadline() is None


def test_a_call_that_took_a_value_along_begins_its_period_anew() -> None:
    """The earlier deadline is void."""
    machine = known()
    send(machine, said(2, plan="pro"), wall=T0 + 50)
    assert machine.keep(said(3, seen=3), T0 + 60)
    assert machine.take_due(T0 + DAY) is None
    assert machine.next_deadline() == T0 + 50 + DAY


def test_void_deadlines_do_not_pile_up() -> None:
    """A contact whose values ride a thousand times leaves no thousand entries behind."""
    machine = known(kept=[])
    for offset in range(1, 1000, 2):
        assert machine.keep(said(offset, seen=offset), T0 + offset)
        send(machine, said(offset + 1, plan="pro"), wall=T0 + offset)
    assert len(machine._deadlines) < 100


# The bounds


def test_sent_values_are_forgotten_after_a_period() -> None:
    """They tell nothing any more; what is due stays."""
    machine = known(known(kept=[]), Q)
    send(machine, said(0, email="b@x", seen=0), wall=T0 + DAY)
    assert len(machine) == 2
    assert machine.waiting == 1


def test_many_that_are_due_to_be_forgotten_go_a_few_at_a_time() -> None:
    """Nobody waits for a day's contacts to be looked at; with each call more go than come."""
    machine = LazyValues()
    for number in range(30):
        send(machine, said(0, email=f"{number}@x", seen=0))
    for number in range(5):
        send(machine, said(0, email=f"later{number}@x", seen=0), wall=T0 + DAY)
    assert len(machine) == 5


def test_a_full_machine_forgets_what_was_sent_and_keeps_what_is_due() -> None:
    """Where all is due an upsert needs a call; nothing is lost."""
    machine = LazyValues(entries_max=2)
    for name in "abc":
        send(machine, said(0, email=f"{name}@x", seen=0))
    assert len(machine) == 2
    assert not machine.keep(said(1, email="a@x", seen=1), T0)
    assert machine.keep(said(1, email="b@x", seen=1), T0)
    assert machine.keep(said(1, email="c@x", seen=1), T0)
    send(machine, said(2, email="d@x", seen=0))
    assert machine.waiting == len(machine) == 2
    assert not machine.keep(said(3, Q, email="b@x", seen=2), T0), "no room for another partition's entry"
    with pytest.raises(ValueError, match="at least one"):
        LazyValues(entries_max=0)


def test_what_was_sent_ahead_of_older_records_is_remembered_until_these_have_finished() -> None:
    """A value rode on an earlier call of its contact, and a period later an older one still waits for its turn."""
    machine = LazyValues(entries_max=2)
    frontier = 3
    machine.passed = lambda place, offset: offset < frontier
    send(machine, said(5, seen=5))
    send(machine, said(0, email="b@x", seen=0), wall=T0 + DAY)
    assert send(machine, said(3, seen=3, plan="pro"), wall=T0 + DAY) == {"seen": 5, "plan": "pro"}
    send(machine, said(6, email="c@x", seen=6), wall=T0 + DAY)
    assert len(machine) == 2, "b@x made room, for its record is passed"
    send(machine, said(7, email="d@x", seen=7), wall=T0 + DAY)
    assert not machine.keep(said(8, email="d@x", seen=8), T0 + DAY), "no room"
    frontier = 9
    for each in "de":
        send(machine, said(9, email=f"{each}@x", seen=9), wall=T0 + 3 * DAY)
    assert send(machine, said(3, seen=3, plan="pro"), wall=T0 + 3 * DAY) == {"seen": 3, "plan": "pro"}


def test_making_room_never_takes_the_contacts_own_entry() -> None:
    """The one place is the contact's, from another partition: nothing else could go for its sake."""
    machine = LazyValues(entries_max=1)
    send(machine, said(0, seen=0))
    assert not machine.keep(said(0, Q, seen=1), T0)
    assert len(machine) == 1


# Partitions and stores


def test_a_partition_takes_its_values_with_it() -> None:
    """Others stay; a call that was under way meanwhile teaches the store, and brings nothing back."""
    store = DirtyStore()
    machine = LazyValues(store=store)
    known(machine)
    assert machine.keep(said(3, Q, count=3), T0)
    call = [said(2, plan="pro")]
    ride = machine.ride(call, told, False)
    entry = machine.take_due(T0 + DAY)
    assert entry is not None
    assert (machine.of(P), machine.of(Q)) == (1, 1)
    assert machine.withdraw([P, P]) == 1
    assert (machine.of(P), machine.of(Q)) == (0, 1)
    assert not machine.holds(entry)
    machine.put_back(entry, T0 + DAY)
    machine.delivered(call, ride, T0)
    assert len(machine) == 1
    kept = decoded(store.get("l:users/0:e:a@x") or b"")
    assert kept is not None
    assert kept.values == {SEEN: Value(1, 1, False)}


def reopened(store: DirtyStore, place: TopicPartition = P, *, wall: float = T0, **options: Any) -> LazyValues:
    machine = LazyValues(store=store)
    machine.assigned(place, options.pop("topic_hash", None))
    for name, value in list(store._values.items()):
        if name.startswith(partition_prefix(place)):
            assert machine.load(place, name, value, wall, **options)
    return machine


def test_a_store_gives_back_what_was_kept() -> None:
    """Values, what is due, and when the contact last had a call; a clock that went backwards delays nothing."""
    store = DirtyStore()
    known(LazyValues(store=store))
    machine = reopened(store, wall=T0 - 500)
    assert machine.next_deadline() == T0 - 500 + DAY
    machine = reopened(store)
    assert machine.next_deadline() == T0 + DAY
    assert machine.keep(said(1, seen=1), T0), "read again"
    assert send(machine, said(2, plan="pro")) == {"plan": "pro", "seen": 1}
    assert reopened(store).waiting == 0


def test_what_was_learned_before_the_store_answered_wins_where_it_is_newer() -> None:
    """Values that were sent meanwhile are not due any more, older ones neither."""
    store = DirtyStore()
    known(LazyValues(store=store), kept=[1, 2])
    stored = store.get("l:users/0:e:a@x") or b""
    machine = LazyValues()
    send(machine, said(5, seen=5))
    assert machine.load(P, "l:users/0:e:a@x", stored, T0)
    assert machine.waiting == 0
    assert machine.load(P, "l:users/0:e:b@x", b"[1, 2", T0), "what nobody can read was never written"
    assert len(machine) == 1


def test_a_register_that_finds_no_room_is_told() -> None:
    """It stays in the store."""
    store = DirtyStore()
    known(LazyValues(store=store))
    machine = LazyValues(entries_max=1)
    send(machine, said(0, email="b@x", seen=0))
    assert machine.keep(said(1, email="b@x", seen=1), T0)
    assert not machine.load(P, "l:users/0:e:a@x", store.get("l:users/0:e:a@x") or b"", T0)


@pytest.mark.parametrize(
    ("before", "after", "fresh", "anew"),
    [(1, 1, True, False), (1, 2, False, True), (None, 2, True, True), (None, 2, False, False), (1, None, True, True)],
)
def test_of_a_topic_created_anew_every_record_is_newer(
    before: int | None, after: int | None, fresh: bool, anew: bool
) -> None:
    """Its offsets begin at zero: they must not seem older than what the former topic's were."""
    store = DirtyStore()
    machine = LazyValues(store=store)
    machine.assigned(P, before)
    known(machine, kept=[1, 2])
    machine = reopened(store, topic_hash=after, fresh=fresh)
    assert machine.keep(said(1, seen="new"), T0)
    assert send(machine, said(3, plan="pro")) == {"plan": "pro", "seen": "new" if anew else 2}


def test_whoever_was_erased_from_the_store_is_forgotten_here() -> None:
    """Before a value rides or goes by itself; a store that cannot be read erases nobody."""
    store = DirtyStore()
    machine = known(LazyValues(store=store))
    entry = machine.take_due(T0 + DAY)
    assert entry is not None
    assert machine.holds(entry)
    store.delete(entry.name)
    store.broken = True
    assert machine.holds(entry)
    store.broken = False
    assert not machine.holds(entry)
    machine = known(LazyValues(store=store))
    store.delete(entry.name)
    assert machine.ride([said(2, plan="pro")], told, False) is None
    assert len(machine) == 0


def test_an_erased_person_has_no_kept_values_in_the_store() -> None:
    """By whichever name: the values were kept under an email that the person's id has no more."""
    store = DirtyStore()
    machine = known(LazyValues(store=store))
    send(machine, said(0, email="b@x", external_id="7", seen=0))
    store.put("l:users/0:e:odd", b"not ours")

    async def story() -> None:
        table = Identities(store=store)
        table.learn(Contact("b@x", "7"), P, 0)
        table.learn(Contact("new@x", "7"), P, 1)
        assert len((await table.forget("new@x")).registers) == 4
        assert len((await table.forget("nobody@x")).registers) == 0

    asyncio.run(story())
    assert sorted(name for name in store._values if name.startswith("l:")) == ["l:users/0:e:a@x", "l:users/0:e:odd"]
    assert machine.ride([said(3, email="b@x", plan="pro")], told, False) is None


def test_forgetting_takes_the_register_too() -> None:
    """What tells nothing any more does not stay in the store for ever."""
    store = DirtyStore()
    machine = known(LazyValues(store=store), kept=[])
    send(machine, said(0, email="b@x", seen=0), wall=T0 + DAY)
    assert [name for name in store._values if name.startswith("l:")] == ["l:users/0:e:b@x"]


def test_two_writings_of_a_register_leave_the_newer_values() -> None:
    """Whoever writes late undoes nothing, and what one of them sent is sent; a former topic's offsets do not count."""

    def register(values: dict[str, list[Any]], at: float = T0, topic_hash: int | None = 1) -> bytes:
        return json.dumps(["a@x", None, at, DAY, values, 1, topic_hash]).encode()

    stored = register({SEEN: [5, "five", True], COUNT: [2, 2, True]}, T0 + 9)
    late = register({SEEN: [4, "four", True], COUNT: [2, 2, False]})
    both = decoded(registers_merged("l:users/0:e:a@x", stored, late))
    assert both is not None
    assert both.values == {SEEN: Value(5, "five", True), COUNT: Value(2, 2, False)}
    assert both.at == T0 + 9
    former = register({SEEN: [900, "old", True]}, topic_hash=2)
    assert merged(former, late) == late
    assert merged(b"not ours", late) == late


def test_once_sent_is_sent() -> None:
    """Of one record's value, whichever writing says that it was sent is right."""
    assert joined(None, Value(1, "a", True)) == Value(1, "a", True)
    assert joined(Value(1, "a", True), Value(1, "a", False)) == Value(1, "a", False)
    assert joined(Value(2, "b", False), Value(1, "a", True)) == Value(2, "b", False)
    assert joined(Value(1, "a", False), Value(2, "b", True)) == Value(2, "b", True)
