"""What of one contact waits to be sent together: upserts that merge into one call, and that come apart again.

The theory
    An upsert says what a contact is like; Meisa keeps the last word on each field. So two upserts of one contact that
    both wait can leave as one call, and Meisa ends in the same state. A tag that is added by its name says no more than
    an upsert with that one tag name does: it *rides*, before, between and behind upserts, and alone it is such an
    upsert. A track, trigger, enrollment or removed tag of the contact between them is a barrier: it must meet the state
    that its event found. The order of a contact's queue (core/ordering.py) makes the barrier: only the last item of a
    queue takes further contributions.

    An item holds its contributions in order, in *groups*. A group is one call. There is one group until a call is
    refused: then its group is halved, and the halves are called in order, until what is refused stands alone. So a bad
    contribution among a thousand costs some twenty calls, and only it is dead-lettered.

Rules that never break
    1. Contributions merge only where Meisa would find the same contact for each: the same email, and an external_id
       that is the same, or missing in the later one. (An earlier one without the id that a later one has is another
       matter: Meisa looks for the id first, and may find somebody else.)
    2. A path in `preserve` never gets two different values in one group: each value is sent.
    3. Merged, each field has the value of the last contribution that sets it, `custom_fields` key by key; tags are
       united; `source` is the first one's or absent with it, because Meisa keeps the original.
    4. Groups leave in the order of their contributions.
    5. A tag by its id (`tag_id`) never rides: an upsert knows tags by name only.

The bound is the caller's: each contribution is an action that was admitted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from bridge.model import Action, Kind, email_key

UNKNOWN = object()
"""Stands where a path has no value yet; equals nothing that JSON can say."""


class Contribution(Protocol):
    """Whatever carries an action; the pending item gives it back as it got it."""

    @property
    def action(self) -> Action: ...


NOTHING: dict[str, Any] = {}
"""In place of a dict of their own for all that preserve nothing; never written to."""

C = TypeVar("C", bound=Contribution)


class Pending(Generic[C]):
    """One or more contributions that wait for one call. Only upserts, and tags that ride, can be more than one."""

    # Tens of thousands wait at a time, most of them alone: plain lists, and nothing that most of them do not need.
    __slots__ = ("_email", "_external_id", "_preserved", "apart", "groups")

    def __init__(self, first: C) -> None:
        self.groups: list[list[C]] = [[first]]
        self.apart = False
        """A refusal has split it: it takes nothing more."""
        self._email: str | None = None
        """Of a contact whose upserts may join; None where nothing may."""
        self._external_id: str | None = None
        self._preserved: dict[str, Any] = NOTHING
        action = first.action
        if mergeable(action):
            assert action.contact.email is not None
            self._email = email_key(action.contact.email)
            self._external_id = action.contact.external_id
            self._keep(action)

    def takes(self, action: Action) -> bool:
        """Whether an action may join what waits here."""
        if self.apart or self._email is None or not self.groups or not mergeable(action):
            return False
        contact = action.contact
        assert contact.email is not None
        if email_key(contact.email) != self._email:
            return False
        if contact.external_id is not None and contact.external_id != self._external_id:
            return False
        # Also what those that wait were planned to preserve, should the rules have changed since.
        for path in (*action.handling.preserve, *self._preserved):
            value = _at(action.body, path)
            if value is not UNKNOWN and not _same(self._preserved.get(path, value), value):
                return False
        return True

    def add(self, contribution: C) -> None:
        """Joins a contribution that `takes` said yes to."""
        self._keep(contribution.action)
        self.groups[-1].append(contribution)

    def _keep(self, action: Action) -> None:
        for path in action.handling.preserve:
            value = _at(action.body, path)
            if value is not UNKNOWN:
                if self._preserved is NOTHING:
                    self._preserved = {}
                self._preserved[path] = value

    @property
    def group(self) -> Sequence[C]:
        """What the next call stands for."""
        return self.groups[0]

    def body(self) -> Mapping[str, Any]:
        """The next call's fields, as an upsert says them."""
        group = self.groups[0]
        return upsert_body(group[0].action) if len(group) == 1 else merged(upsert_body(each.action) for each in group)

    def cut(self, count: int) -> None:
        """The next call stands for the first `count` contributions only; the others follow in a call of their own."""
        group = self.groups[0]
        if 0 < count < len(group):
            self.groups[0] = group[:count]
            self.groups.insert(1, group[count:])

    def halve(self) -> bool:
        """Takes a refused group apart; False where it is a single contribution, which is then what was refused."""
        group = self.groups[0]
        if len(group) == 1:
            return False
        self.apart = True
        self.cut(len(group) // 2)
        return True

    def next(self) -> Sequence[C]:
        """The group's call has ended: takes it out and returns it."""
        return self.groups.pop(0)  # groups are few: halves of halves

    def remove(self, gone: Iterable[C]) -> None:
        """Takes contributions out wherever they stand (their partition was revoked); empty groups go with them."""
        leaving = {id(each) for each in gone}
        kept = ([each for each in group if id(each) not in leaving] for group in self.groups)
        self.groups = [group for group in kept if group]

    def __iter__(self) -> Any:
        return (each for group in self.groups for each in group)

    def __len__(self) -> int:
        return sum(map(len, self.groups))


def mergeable(action: Action) -> bool:
    """Whether the action may share a call with others at all: an upsert, or a tag that rides like one."""
    handling = action.handling
    return (
        (action.kind is Kind.UPSERT or (action.kind is Kind.ADD_TAG and "tag_name" in action.body))
        and handling.coalesce
        and handling.max_age_seconds is None
        and handling.ordered
        and action.contact.email is not None
    )


def upsert_body(action: Action) -> Mapping[str, Any]:
    """What an upsert, or a tag that rides, says as an upsert."""
    if action.kind is not Kind.ADD_TAG:
        return action.body
    body: dict[str, Any] = {"email": action.contact.email}
    if action.contact.external_id is not None:
        body["external_id"] = action.contact.external_id
    return {**body, "tag_names": [action.body["tag_name"]]}


def merged(bodies: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One upsert that leaves Meisa in the state that these would, in their order."""
    result: dict[str, Any] = {}
    for place, body in enumerate(bodies):
        for name, value in body.items():
            if name == "custom_fields":
                result[name] = {**result.get(name, {}), **value}
            elif name == "tag_names":
                result[name] = list(dict.fromkeys((*result.get(name, ()), *value)))
            elif name == "source":
                if place == 0:  # one without it has made the contact with Meisa's default already
                    result[name] = value
            else:
                result[name] = value
    return result


def _at(body: Mapping[str, Any], path: str) -> Any:
    """The value of `first_name` or `custom_fields.plan`; UNKNOWN where the body does not set it."""
    value: Any = body
    for name in path.split(".", 1):
        if not isinstance(value, Mapping) or name not in value:
            return UNKNOWN
        value = value[name]
    return value


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: 1 and True are not."""
    return one is other or json.dumps(one, sort_keys=True, default=str) == json.dumps(
        other, sort_keys=True, default=str
    )
