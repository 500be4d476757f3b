"""One source record whose letters are replayed: what is asked, what leaves, and what is said of it afterwards. Pure.

All letters of one record are one job. Their actions enter the queues together, in the order of the event's plan, and
an action that two letters name is carried out once.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from bridge.model import Action, Event, Kind, Letter, LetterKind, Record, Result, RuleFailure
from bridge.pipeline import Names, undelivered_letters
from bridge.replay.later import Later, Watch, harmless
from bridge.replay.ledger import Answer, Done, Mark, Place, Request, State
from bridge.replay.letters import ageless, with_replays

NOTHING = "the rules plan nothing for it now"


class Asked(NamedTuple):
    """An action, and the request that decides how it is sent."""

    action: Action
    action_id: str
    request: Request


@dataclass(slots=True)
class Job:
    """What is to be done for one source record."""

    event: Event
    replays: int
    done: Done
    requests: list[Request] = field(default_factory=list)
    asked: list[tuple[Request, Sequence[Action], Sequence[RuleFailure]]] = field(default_factory=list)
    wanted: dict[tuple[Place, str], set[str]] = field(default_factory=dict)
    """Action ids by request."""
    failures: dict[tuple[Place, str], list[RuleFailure]] = field(default_factory=dict)
    """Rules that fail for the event now, by the request whose letter is about them."""
    actions: dict[str, Asked] = field(default_factory=dict)
    """By action id, in the order of the plan once `order` was called."""
    watches: dict[str, Watch | None] = field(default_factory=dict)

    @property
    def record(self) -> Record:
        return self.event.record

    def ask(
        self,
        request: Request,
        actions: Sequence[Action],
        failures: Sequence[RuleFailure],
        identify: Callable[[Action], str],
    ) -> None:
        """One letter's request. Where two name an action, the one that permits more decides how it is sent."""
        self.requests.append(request)
        self.asked.append((request, actions, failures))
        self.failures[request.key] = list(failures)
        ids = self.wanted[request.key] = set()
        for action in actions:
            action_id = identify(action)
            ids.add(action_id)
            before = self.actions.get(action_id)
            if before is None or _permits(request) > _permits(before.request):
                self.actions[action_id] = Asked(action, action_id, request)

    def only(self, keep: Callable[[Request], bool], identify: Callable[[Action], str]) -> Job:
        """The job without some of its requests."""
        job = Job(self.event, self.replays, self.done)
        for request, actions, failures in self.asked:
            if keep(request):
                job.ask(request, actions, failures, identify)
        job.order()
        return job

    def order(self) -> None:
        self.actions = dict(sorted(self.actions.items(), key=lambda item: item[1].action.position))

    def left(self) -> list[Asked]:
        """The actions that were not carried out yet."""
        return [each for each in self.actions.values() if not self.done.was_done(each.action_id, each.request)]

    def watch(self, later: Later) -> bool:
        """Watches for what later events write; False where nothing of this job could undo it."""
        for each in self.left():
            if not each.request.overwrite:
                self.watches[each.action_id] = later.watch(self.record.offset, each.action)
        return any(watch is not None for watch in self.watches.values())

    def sendable(self) -> list[Asked]:
        """The actions as they leave: without age, and without what later events wrote."""
        sent = []
        for each in self.left():
            action = harmless(each.action, self.watches.get(each.action_id))
            if action is not None:
                sent.append(each._replace(action=ageless(action)))
        return sent


def _permits(request: Request) -> tuple[bool, bool, int]:
    return request.send_again, request.overwrite, request.at


@dataclass(slots=True)
class Ended:
    """How a job ended."""

    letters: list[Letter]
    """To be acknowledged before anything else is said."""
    marks: list[Mark]
    """Triggers that were refused: nothing of them is in doubt any more."""
    answers: list[Answer]


def end(
    job: Job,
    sent: Sequence[Asked],
    results: Sequence[Result],
    names: Names,
    wall: float,
    doubted: Container[str] = (),
) -> Ended:
    """What is to be said of a job all of whose sent actions have ended; results stand in the order of `sent`.

    `doubted` are ids of triggers whose marks must stand, although their last attempt was refused.
    """
    record = with_replays(job.record, job.replays)
    letters = undelivered_letters(record, [each.action for each in sent], results, names)
    failures = {failure.rule: failure for found in job.failures.values() for failure in found}
    letters += [Letter(record, LetterKind.RULE, failure.message, rule=failure.rule) for failure in failures.values()]
    dead = {each.action_id: result for each, result in zip(sent, results, strict=True) if result.letter is not None}
    source = Place(record.topic, record.partition, record.offset)
    marks = [
        Mark(source, each.action_id, each.request.at, done=False)
        for each, result in zip(sent, results, strict=True)
        if each.action.kind is Kind.TRIGGER
        and result.letter not in (None, LetterKind.UNKNOWN_OUTCOME)
        and each.action_id not in doubted
    ]
    carried = {each.action_id for each in sent} - dead.keys()
    return Ended(letters, marks, [_answer(job, request, carried, dead, wall) for request in job.requests])


def _answer(job: Job, request: Request, carried: set[str], dead: dict[str, Result], wall: float) -> Answer:
    ids = job.wanted[request.key]
    refused = [dead[each] for each in job.actions if each in ids and each in dead]
    failures = job.failures[request.key]
    if refused or failures:
        if refused:
            status = f"{refused[0].status}: " if refused[0].status is not None else ""
            why = f"{status}{refused[0].message}"
        else:
            why = f"rule {failures[0].rule} fails: {failures[0].message}"
        words = f"{why} ({len(ids & carried)} of {len(ids) + len(failures)} delivered; a fresh letter has the rest)"
        return Answer(request.source, request.name, request.at, State.REFUSED, words, wall)
    delivered = len(ids & carried)
    before = len(ids) - delivered
    told = [f"{delivered} delivered"] if delivered else []
    told += [f"{before} done before, or undone by later events"] if before else []
    return Answer(request.source, request.name, request.at, State.REPLAYED, ", ".join(told) or NOTHING, wall)
