"""The benchmarks' optimum against every schedule there is, on cases small enough to try them all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import optimum
from benchmarks.optimum import Step, steps
from bridge.core.pending import Pending
from bridge.model import Action, Contact, Handling, Kind
from tests.support.amount import examples

PLAN = "custom_fields.plan"


def action(
    kind: Kind, who: str, *, plan: str | None = None, id: str | None = "x", coalesce: bool = True, slug: str = "s"
) -> Action:
    body: dict[str, Any] = {"email": f"{who}@x"}
    if plan is not None and kind is Kind.UPSERT:
        body["custom_fields"] = {"plan": plan}
    if kind is Kind.ENROLL:
        body["sequence_slug"] = slug
    if kind is Kind.ADD_TAG:
        body = {"tag_name": "t"}
    contact = Contact(f"{who}@x", None if id is None else who + id)
    return Action(kind, "rule", 0, body, contact, Handling(coalesce=coalesce, preserve=(PLAN,)))


@st.composite
def actions(draw: st.DrawFn, *, slugs: str = "s", most: int = 7, plain: bool = False) -> Action:
    kind = draw(st.sampled_from([Kind.UPSERT, Kind.UPSERT, Kind.UPSERT, Kind.TRACK, Kind.ENROLL, Kind.ADD_TAG]))
    who = draw(st.sampled_from("abc"))
    if plain:
        kind = Kind.UPSERT if kind is Kind.ENROLL else kind
        return action(kind, who)
    return action(
        kind,
        who,
        plan=draw(st.sampled_from([None, None, "free", "pro"])),
        id=draw(st.sampled_from(["x", "x", None])),
        coalesce=draw(st.sampled_from([True, True, True, False])),
        slug=draw(st.sampled_from(slugs)),
    )


class _Part:
    def __init__(self, action: Action) -> None:
        self.action = action


def as_upsert(action: Action) -> Action:
    """An add_tag as the upsert that it rides on."""
    if action.kind is not Kind.ADD_TAG:
        return action
    return Action(Kind.UPSERT, "rule", 0, {"tag_names": ["t"]}, action.contact, action.handling)


def together(group: Sequence[Action]) -> bool:
    """Whether the bridge's own machine lets these share a call."""
    pending = Pending(_Part(as_upsert(group[0])))
    for each in group[1:]:
        if not pending.takes(as_upsert(each)):
            return False
        pending.add(_Part(as_upsert(each)))
    return True


def calls_from(queues: Sequence[Sequence[Action]], place: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Where every possible next call leads to: how far each contact's queue has come then."""
    heads = [(number, queue[place[number]]) for number, queue in enumerate(queues) if place[number] < len(queue)]
    for number, head in heads:
        queue = queues[number]
        if head.kind is Kind.ENROLL:
            continue
        yield (*place[:number], place[number] + 1, *place[number + 1 :])
        if head.kind in (Kind.UPSERT, Kind.ADD_TAG):
            for end in range(place[number] + 2, len(queue) + 1):
                if not together(queue[place[number] : end]):
                    break
                yield (*place[:number], end, *place[number + 1 :])
    for slug in {head.body["sequence_slug"] for _, head in heads if head.kind is Kind.ENROLL}:
        ends = {}
        for number, head in heads:
            if head.body.get("sequence_slug") == slug:
                end = place[number]
                while end < len(queues[number]) and queues[number][end].body.get("sequence_slug") == slug:
                    end += 1  # a repeated enrollment needs no address of its own
                ends[number] = end
        for size in range(1, optimum.BULK_MAX + 1):
            for chosen in combinations(ends, size):
                yield tuple(ends[number] if number in chosen else at for number, at in enumerate(place))


def by_contact(trace: Iterable[Action]) -> list[list[Action]]:
    queues: dict[str, list[Action]] = {}
    for each in trace:
        queues.setdefault(str(each.contact.email), []).append(each)
    return list(queues.values())


def fewest(trace: Sequence[Action]) -> int:
    """The calls of the best of all schedules, by breadth-first search."""
    queues = by_contact(trace)
    done = tuple(map(len, queues))
    reached, calls = {tuple(0 for _ in queues)}, 0
    while done not in reached:
        reached = {after for place in reached for after in calls_from(queues, place)}
        calls += 1
    return calls


@pytest.fixture(autouse=True)
def _two_addresses_to_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimum, "BULK_MAX", 2)


@settings(deadline=None, max_examples=examples(200))
@given(st.lists(actions(), max_size=9))
def test_a_backlogs_optimum_is_reached_by_a_schedule_and_beaten_by_none(trace: list[Action]) -> None:
    """With one slug it is exact: barriers, preserved values, ids that are missing, enrollments two to a call."""
    assert optimum.backlog(steps(trace)).calls == fewest(trace)


@settings(deadline=None, max_examples=examples(80))
@given(st.lists(actions(slugs="st"), max_size=8))
def test_with_several_slugs_no_schedule_beats_the_bound(trace: list[Action]) -> None:
    """Contacts that enroll in opposite orders may need more: it stays a lower bound."""
    assert optimum.backlog(steps(trace)).calls <= fewest(trace)


def test_to_take_as_much_as_fits_is_not_always_best() -> None:
    """A contribution without the id cannot begin a group that others with the id join: the cut goes before it."""
    run = [
        action(Kind.UPSERT, "a", plan="free"),
        action(Kind.UPSERT, "a"),
        action(Kind.UPSERT, "a", plan="pro", id=None),
        action(Kind.UPSERT, "a"),
    ]
    assert optimum.fewest_groups(run) == 2 == fewest(run)


# As it arrives


def busy(trace: Sequence[tuple[float, Action]], slots: Sequence[float], *, ordered: bool) -> int:
    """The fewest calls of all schedules that call at each slot where something waits; at the end the rest goes.

    `ordered`: they keep each contact's order, and merge only what `Pending` takes. Else any item of any contact may
    go, as the bound says of itself.
    """
    moments = sorted([(at, 0, number) for number, (at, _) in enumerate(trace)] + [(at, 1, 0) for at in slots])
    items = [each for _, each in trace]

    @cache
    def rest(moment: int, waiting: tuple[tuple[int, ...], ...]) -> int:
        """Calls from here on; `waiting` holds items as the places of what they carry, oldest first."""
        if moment == len(moments):
            return len(waiting)
        _, is_slot, number = moments[moment]
        if not is_slot:
            return min(rest(moment + 1, after) for after in arrived(waiting, number))
        if not waiting:
            return rest(moment + 1, waiting)
        return 1 + min(
            rest(moment + 1, waiting[:place] + waiting[place + 1 :])
            for place, item in enumerate(waiting)
            if not ordered or first_of_contact(waiting, place, item)
        )

    def first_of_contact(waiting: tuple[tuple[int, ...], ...], place: int, item: tuple[int, ...]) -> bool:
        who = items[item[0]].contact.email
        return all(items[other[0]].contact.email != who for other in waiting[:place])

    def arrived(waiting: tuple[tuple[int, ...], ...], number: int) -> list[tuple[tuple[int, ...], ...]]:
        new = items[number]
        after = [(*waiting, (number,))]
        for place in range(len(waiting) - 1, -1, -1):
            item = waiting[place]
            if items[item[0]].contact.email == new.contact.email:
                between = [
                    each for each in range(item[-1] + 1, number) if items[each].contact.email == new.contact.email
                ]
                if not between and together([items[each] for each in item] + [new]) and joins(new):
                    after.append((*waiting[:place], (*item, number), *waiting[place + 1 :]))
                break
        return after

    def joins(new: Action) -> bool:
        return new.kind in (Kind.UPSERT, Kind.ADD_TAG)

    return rest(0, ())


TIMED = st.integers(0, 6).map(float)


def timed(
    strategy: st.SearchStrategy[Action],
) -> st.SearchStrategy[tuple[list[tuple[float, Action]], list[float]]]:
    return st.tuples(
        st.lists(st.tuples(TIMED, strategy), max_size=8).map(lambda each: sorted(each, key=lambda pair: pair[0])),
        st.lists(TIMED, max_size=6).map(sorted),
    )


def bound(trace: Sequence[tuple[float, Action]], slots: Sequence[float]) -> int:
    made = steps([each for _, each in trace])
    arrivals: list[tuple[float, Step]] = [(at, step) for (at, _), step in zip(trace, made, strict=True)]
    return optimum.live(arrivals, slots).calls


@settings(deadline=None, max_examples=examples(150))
@given(timed(actions(plain=True)))
def test_a_busy_scheduler_that_knows_the_future_does_no_better_than_the_bound(
    case: tuple[list[tuple[float, Action]], list[float]],
) -> None:
    """Exact for what the bound does not relax: to send what is joined last is the best of all choices."""
    assert bound(*case) == busy(*case, ordered=False)


@settings(deadline=None, max_examples=examples(100))
@given(timed(actions().filter(lambda each: each.kind is not Kind.ENROLL)))
def test_no_real_schedule_beats_the_live_bound(case: tuple[list[tuple[float, Action]], list[float]]) -> None:
    """With order kept, preserved values, missing ids and upserts that may not merge, calls only get more."""
    assert bound(*case) <= busy(*case, ordered=True)


def test_what_waits_for_a_slot_merges_and_what_has_gone_does_not() -> None:
    login = action(Kind.UPSERT, "a")
    assert bound([(0.0, login), (2.0, login)], [3.0]) == 1
    assert bound([(0.0, login), (2.0, login)], [1.0, 3.0]) == 2
