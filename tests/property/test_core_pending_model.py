"""Merged upserts against an imagined Meisa that gets each of them alone."""

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.pending import Pending
from bridge.model import Action, Contact, Handling, Kind, email_key


@dataclass
class Part:
    number: int
    action: Action


@dataclass
class Meisa:
    """Finds a contact by its id first, then by its email, as the API does; remembers each change of `plan`."""

    contacts: list[dict[str, Any]] = field(default_factory=list)
    plans: list[tuple[int, Any]] = field(default_factory=list)

    def upsert(self, body: dict[str, Any]) -> None:
        email, external_id = email_key(body["email"]), body.get("external_id")
        found = next((each for each in self.contacts if external_id and each["external_id"] == external_id), None)
        found = found or next((each for each in self.contacts if each["email"] == email), None)
        if found is None:
            found = {
                "external_id": None,
                "email": None,
                "source": body.get("source", "api"),
                "tags": set(),
                "fields": {},
                "names": {},
            }
            self.contacts.append(found)
        for other in self.contacts:
            if other["email"] == email:
                other["email"] = None  # two contacts never share an email: the last claim counts
        found["email"] = email
        if external_id:
            found["external_id"] = external_id
        found["tags"] |= set(body.get("tag_names", ()))
        found["names"].update({name: body[name] for name in ("first_name", "last_name") if name in body})
        for name, value in body.get("custom_fields", {}).items():
            if name == "plan" and found["fields"].get("plan") != value:
                self.plans.append((self.contacts.index(found), value))
            found["fields"][name] = value

    def tag(self, action: Action) -> None:
        """By the two tag endpoints: the contact's id is learned by an upsert that says no more than its names."""
        contact = action.contact
        names = {"email": contact.email, "external_id": contact.external_id}
        self.upsert({name: value for name, value in names.items() if value is not None})
        assert contact.email is not None
        tags = next(each for each in self.contacts if each["email"] == email_key(contact.email))["tags"]
        if action.kind is Kind.ADD_TAG:
            tags.add(action.body["tag_name"])
        else:
            tags.discard(action.body["tag_name"])


VALUES = st.sampled_from(["free", "pro", 1, None])
BODIES = st.fixed_dictionaries(
    {"email": st.sampled_from(["a@x", "A@x ", "b@x"])},
    optional={
        "external_id": st.sampled_from(["7", "8"]),
        "first_name": st.sampled_from(["A", "B"]),
        "last_name": st.sampled_from(["C", "D"]),
        "source": st.sampled_from(["signup", "import"]),
        "custom_fields": st.dictionaries(st.sampled_from(["plan", "n", "m"]), VALUES, max_size=3),
        "tag_names": st.lists(st.sampled_from(["t", "u", "v"]), max_size=2),
    },
)


TAGS = st.fixed_dictionaries(
    {"email": st.sampled_from(["a@x", "A@x ", "b@x"]), "tag_name": st.sampled_from(["t", "u", "w"])},
    optional={"external_id": st.sampled_from(["7", "8"])},
)
"""What an `add_tag` names; a `remove_tag` where `untag` says so."""


def action(body: dict[str, Any], *, preserve: tuple[str, ...] = (), untag: bool = False) -> Action:
    handling = Handling(preserve=preserve)
    contact = Contact(body["email"], body.get("external_id"))
    if "tag_name" not in body:
        return Action(Kind.UPSERT, "rule", 0, body, contact, handling)
    kind = Kind.REMOVE_TAG if untag else Kind.ADD_TAG
    return Action(kind, "rule", 0, {"tag_name": body["tag_name"]}, contact, handling)


@given(
    st.lists(st.tuples(BODIES | TAGS, st.booleans(), st.integers(0, 3), st.booleans()), max_size=25),
    st.booleans(),
)
def test_meisa_ends_in_the_state_of_one_call_each(
    stream: list[tuple[dict[str, Any], bool, int, bool]], kept: bool
) -> None:
    """Whatever waits together, tags among it, and however it is cut: the contacts end the same, preserved values all
    arrive, and a tag is removed after what came before it and before what came behind."""
    preserve = ("custom_fields.plan",) if kept else ()
    alone, together = Meisa(), Meisa()
    waiting: Pending[Part] | None = None
    carried: list[int] = []

    def send_all(pending: Pending[Part] | None, cut: int) -> None:
        while pending is not None and pending.groups:
            pending.cut(cut)
            first = pending.group[0].action
            if first.kind is Kind.REMOVE_TAG:
                assert len(pending.group) == 1
                together.tag(first)
            else:
                together.upsert(dict(pending.body()))
            carried.extend(part.number for part in pending.next())

    for number, (body, flush, cut, untag) in enumerate(stream):
        part = Part(number, action(body, preserve=preserve, untag=untag))
        if part.action.kind is Kind.UPSERT:
            alone.upsert(body)
        else:
            alone.tag(part.action)
        if waiting is not None and waiting.takes(part.action):
            waiting.add(part)
        else:
            send_all(waiting, 0)
            waiting = Pending(part)
        if flush:
            send_all(waiting, cut)
            waiting = None
    send_all(waiting, 0)
    assert together.contacts == alone.contacts
    assert carried == list(range(len(stream)))
    if kept:
        assert together.plans == alone.plans


@given(st.integers(1, 40), st.sets(st.integers(0, 39)), st.sets(st.integers(0, 39)))
def test_refused_calls_come_apart_until_only_the_bad_are_left(count: int, bad: set[int], revoked: set[int]) -> None:
    """Every good contribution arrives once, in order; every bad one is refused alone; revoked ones do neither."""
    parts = [Part(number, action({"email": "a@x"})) for number in range(count)]
    pending = Pending(parts[0])
    for part in parts[1:]:
        assert pending.takes(part.action)
        pending.add(part)
    pending.remove([part for part in parts if part.number in revoked])
    arrived, refused, calls = [], [], 0
    while pending.groups:
        calls += 1
        names = [part.number for part in pending.group]
        if not bad & set(names):
            arrived += [part.number for part in pending.next()]
        elif not pending.halve():
            refused += [part.number for part in pending.next()]
    here = [number for number in range(count) if number not in revoked]
    assert arrived == [number for number in here if number not in bad]
    assert refused == [number for number in here if number in bad]
    assert calls <= 1 + 2 * max(1, len(refused)) * (count.bit_length() + 1)
