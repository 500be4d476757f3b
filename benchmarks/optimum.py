"""The fewest calls that any scheduler could have made for a trace, under the same rules: what the bridge is held to.

What may share a call is what the rules of delivery allow (bridge/core/pending.py, delivery.md), no more:

- upserts of one contact that stand next to each other in its order, with the same email, the same external_id (or
  none in the later one), and never two different values of a preserved path; `coalesce: false`, a `max_age` or a
  missing email forbids it;
- an add_tag with a name counts as such an upsert: it rides on `tag_names`;
- enrollments without metadata and trigger_source, of any contacts, with the same slug and override, 500 a call (one
  that repeats its contact's last one needs no further address);
- everything else is a call of its own, and like an enrollment a barrier in its contact's order.

`backlog`: all is known at once. The scheduler may choose any order that keeps each contact's own, and wait for as long
as it likes. For upserts the minimum is exact (each run between barriers is cut into the fewest valid groups). Of a
slug's enrollments it takes the larger of two bounds: 500 to a call, and those that barriers keep apart in one contact.
That is exact for one slug; where contacts enroll in several slugs in opposite orders no scheduler may reach it.

`live`: a call merges only what has arrived, and a scheduler that may wait for ever would wait for the trace's end. So
this one must be as busy as the bridge was: at each moment at which the bridge made a call it makes one too, if anything
waits. Its freedom is *which*, and it knows the future: it sends what nothing will join any more, else what will be
joined last (Belady's rule; a call saved is a cache hit, a call is an eviction). What is left at the end it sends then.
It is freer than any real scheduler in four more ways, so it is a lower bound: it need not keep a contact's order, a
preserved path or an external_id never splits upserts, an enrollment waits for nobody, and any number share a call.

Both are proved against brute force on small cases (tests/property/test_benchmark_optimum.py).
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bridge.core.pending import mergeable
from bridge.model import Action, Kind, email_key

BULK_MAX = 500
"""Addresses of one bulk enrollment."""

Slug = tuple[str, Any]


class Step(NamedTuple):
    """An action as the optimum sees it."""

    contact: str
    """Whose order it stands in; empty for one that stands in none."""
    action: Action
    merges: bool = False
    slug: Slug | None = None
    """Of an enrollment that may share a call."""


class Contacts:
    """Gives every name of a person the same contact. Names that meet only later are one contact from then on."""

    def __init__(self) -> None:
        self._of: dict[str, str] = {}

    def of(self, action: Action) -> str:
        if not action.handling.ordered:
            return ""
        names = action.contact.ordering_keys()
        contact = next((self._of[name] for name in names if name in self._of), names[0] if names else "")
        for name in names:
            if self._of.setdefault(name, contact) != contact:
                raise ValueError("two contacts became one: what their order was before cannot be told here")
        return contact


def steps(actions: Iterable[Action], contacts: Contacts | None = None) -> list[Step]:
    """The actions in the order in which they were planned, as steps."""
    contacts = contacts or Contacts()
    return [_step(contacts.of(action), action) for action in actions]


def _step(contact: str, action: Action) -> Step:
    if action.kind is Kind.ADD_TAG:
        return Step(contact, action, merges=bool(contact) and action.contact.email is not None and _rides(action))
    if action.kind is Kind.ENROLL and not {"metadata", "trigger_source"} & action.body.keys():
        slug = (action.body.get("sequence_slug", ""), action.body.get("override_unsubscribe"))
        return Step(contact, action, slug=slug)
    return Step(contact, action, merges=bool(contact) and mergeable(action))


def _rides(action: Action) -> bool:
    handling = action.handling
    return "tag_name" in action.body and handling.coalesce and handling.max_age_seconds is None


@dataclass
class Fewest:
    """Calls by what they carry."""

    upserts: int = 0
    bulk: int = 0
    others: Counter[str] = field(default_factory=Counter)

    @property
    def calls(self) -> int:
        return self.upserts + self.bulk + sum(self.others.values())


# Everything known at once


def backlog(trace: Iterable[Step]) -> Fewest:
    """The fewest calls where all steps wait from the beginning."""
    found = Fewest()
    runs: dict[str, list[Action]] = {}
    blocks: Counter[tuple[str, Slug]] = Counter()
    last_slug: dict[str, Slug | None] = {}
    enrolled: Counter[Slug] = Counter()
    for contact, action, merges, slug in trace:
        if merges:
            runs.setdefault(contact, []).append(action)
            last_slug[contact] = None
            continue
        if contact and contact in runs:
            found.upserts += fewest_groups(runs.pop(contact))
        if slug is None:
            found.others[action.kind.value] += 1
        else:
            if not contact or last_slug.get(contact) != slug:
                enrolled[slug] += 1
                blocks[contact, slug] += 1
        if contact:
            last_slug[contact] = slug
    found.upserts += sum(map(fewest_groups, runs.values()))
    for slug, count in enrolled.items():
        apart = max((number for (contact, each), number in blocks.items() if each == slug and contact), default=0)
        found.bulk += max(math.ceil(count / BULK_MAX), apart)
    return found


def fewest_groups(run: Sequence[Action]) -> int:
    """Into how few valid groups a run of upserts can be cut.

    To take as much as fits is best only where every end of a valid group is valid too. It is, unless one contribution
    lacks the external_id that others have; so all cuts are looked at there.
    """
    if len({action.contact.external_id for action in run}) <= 1:
        groups, start = 0, 0
        while start < len(run):
            start = _reach(run, start)
            groups += 1
        return groups
    best = [0] * (len(run) + 1)
    for start in range(len(run) - 1, -1, -1):
        best[start] = 1 + min(best[start + 1 : _reach(run, start) + 1])
    return best[0]


def _reach(run: Sequence[Action], start: int) -> int:
    """The place after the longest valid group that begins at `start`."""
    first = run[start].contact
    kept: dict[str, Any] = {}
    for place in range(start, len(run)):
        contact = run[place].contact
        assert contact.email is not None and first.email is not None
        if email_key(contact.email) != email_key(first.email):
            return place
        if contact.external_id is not None and contact.external_id != first.external_id:
            return place
        for path, value in _preserved(run[place]):
            if kept.setdefault(path, value) != value:
                return place
    return len(run)


def _preserved(action: Action) -> Iterable[tuple[str, str]]:
    """The preserved paths that an upsert sets, with their values so that 1 and True differ."""
    for path in action.handling.preserve:
        value: Any = action.body
        for name in path.split(".", 1):
            value = value.get(name, _NONE) if isinstance(value, dict) else _NONE
        if value is not _NONE:
            yield path, repr(value)


_NONE = object()


# As it arrives


def live(arrivals: Sequence[tuple[float, Step]], slots: Sequence[float]) -> Fewest:
    """The fewest calls where each step arrives at its time, and a call must be made at each slot if anything waits.

    Both ascend. A slot at the very moment of an arrival comes after it.
    """
    found = Fewest()
    next_use = _next_uses(arrivals)
    waiting: dict[int, float] = {}  # item → when it will be joined next
    order: list[tuple[float, int]] = []  # a heap of (-next use, item); stale where `waiting` says otherwise
    open_items: dict[Any, int] = {}  # contact or slug → the item that takes more
    place = 0

    def arrive() -> None:
        nonlocal place
        _, step = arrivals[place]
        name: Any = step.contact if step.merges else step.slug
        if step.contact and not step.merges:
            open_items.pop(step.contact, None)
        item = open_items.get(name) if name is not None else None
        if item is None or item not in waiting:
            item = place
            if step.merges:
                found.upserts += 1
            elif step.slug is not None:
                found.bulk += 1
            else:
                found.others[step.action.kind.value] += 1
            if name is not None:
                open_items[name] = item
        waiting[item] = next_use[place]
        heapq.heappush(order, (-next_use[place], item))
        place += 1

    for slot in slots:
        while place < len(arrivals) and arrivals[place][0] <= slot:
            arrive()
        while order:
            use, item = heapq.heappop(order)
            if waiting.get(item) == -use:
                del waiting[item]
                break
    while place < len(arrivals):
        arrive()
    return found


def _next_uses(arrivals: Sequence[tuple[float, Step]]) -> list[float]:
    """For each step, the place of the next one that would join it, were it still waiting; infinite where none would."""
    uses = [math.inf] * len(arrivals)
    following: dict[Any, float] = {}
    for place in range(len(arrivals) - 1, -1, -1):
        step = arrivals[place][1]
        if step.merges:
            uses[place] = following.get(step.contact, math.inf)
            following[step.contact] = place
            continue
        if step.contact:
            following[step.contact] = math.inf
        if step.slug is not None:
            uses[place] = following.get(step.slug, math.inf)
            following[step.slug] = place
    return uses
