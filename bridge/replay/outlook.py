"""What replays would send, found out without sending: the letters are read, planned and compared with later events as
a replay does it (preparing.py), and then nothing leaves.

It tells of this moment. Live events that come before the replay may take more fields away, and the rules may change.
What is not known here: which email a contact has that is named by another id alone (the identity table is the running
bridge's), and what the delivery merges or finds suppressed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from bridge.model import Action, Kind, TopicPartition
from bridge.ports import Logs
from bridge.replay.later import Later, harmless
from bridge.replay.ledger import Place, Request
from bridge.replay.preparing import Preparing
from bridge.replay.work import Job

BEHIND_MAX = 100_000
"""Records behind a letter's that are read for what later events wrote: some seconds. A replay itself reads them all."""

NESTED = frozenset({"custom_fields", "properties", "variables", "metadata", "recipient"})


class Sends(NamedTuple):
    """One action of a letter as it would leave."""

    kind: str
    contact: str
    """Email or id, not masked."""
    what: str
    """What it names beside its contact: an event, a trigger, a sequence, a tag; often empty."""
    fields: tuple[str, ...]
    left_out: tuple[str, ...]
    """Fields that later events of the contact wrote."""


class Outlook(NamedTuple):
    """What would come of one letter's request."""

    sends: tuple[Sends, ...] = ()
    undone: tuple[str, ...] = ()
    """Kinds of actions of which later events left nothing to do."""
    done: int = 0
    """Actions that were carried out before."""
    fails: tuple[str, ...] = ()
    """Rules that fail again, with their messages: a fresh letter would stand for each."""
    problem: str = ""
    """Why nothing would be sent; else empty."""
    unknown: str = ""
    """Why it is not known which fields would be left out; else empty."""


Key = tuple[Place, str]


async def outlook(
    preparing: Preparing, logs: Logs, requests: Sequence[Request], behind_max: int = BEHIND_MAX
) -> dict[Key, Outlook]:
    """By letter. Raises LogFailed, and what fetching of schemas raises."""
    found: dict[Key, Outlook] = {}
    ordered = sorted(requests, key=lambda request: request.key)
    for (topic, number), group in groupby(ordered, key=lambda request: request.source[:2]):
        partition = TopicPartition(topic, number)
        prepared = await preparing.jobs(list(group))
        jobs, unknown = prepared.jobs, ""
        found |= {request.key: Outlook(problem=why) for request, why in prepared.problems}
        behind = await _behind(logs, partition, jobs)
        if behind > behind_max:
            unknown = (
                f"{behind:,} records stand behind it in {partition}, more than are read here ({behind_max:,}); "
                "the replay reads them all"
            )
        else:
            prepared = await preparing.scan(partition, jobs, Later())
            jobs = prepared.jobs
            found |= {request.key: Outlook(problem=why) for request, why in prepared.problems}
        for job in jobs:
            found |= dict(_of(job, unknown))
    return found


async def _behind(logs: Logs, partition: TopicPartition, jobs: Sequence[Job]) -> int:
    if not jobs:
        return 0
    low, high = await logs.bounds(*partition) or (0, 0)
    return high - max(low, min(job.record.offset for job in jobs))


def _of(job: Job, unknown: str) -> Iterator[tuple[Key, Outlook]]:
    left = {each.action_id: each for each in job.left()}
    for request in job.requests:
        ids = job.wanted[request.key]
        sends, undone = [], []
        for action_id in (each for each in job.actions if each in ids & left.keys()):
            asked = left[action_id]
            action = harmless(asked.action, job.watches.get(action_id))
            if action is None:
                undone.append(asked.action.kind.value)
            else:
                sends.append(_sends(asked.action, action))
        fails = tuple(f"{failure.rule}: {failure.message}" for failure in job.failures[request.key])
        # What overwrites leaves nothing out, whatever was read.
        yield (
            request.key,
            Outlook(
                tuple(sends),
                tuple(undone),
                len(ids - left.keys()),
                fails,
                unknown="" if request.overwrite or not any(map(_may_lose, sends)) else unknown,
            ),
        )


def _may_lose(sends: Sends) -> bool:
    if sends.kind == Kind.TRIGGER:
        return any(name.startswith("recipient.") for name in sends.fields)
    return sends.kind in {Kind.UPSERT, Kind.ADD_TAG, Kind.REMOVE_TAG}


def _sends(before: Action, after: Action) -> Sends:
    contact = after.contact
    kept = list(names(after.body))
    # A contact that was re-keyed keeps its newest email: the letter's own does not leave.
    own = set(kept) if before.body.get("email") == after.body.get("email") else set(kept) - {"email"}
    return Sends(
        after.kind.value,
        contact.email or contact.external_id or next((value for _, value in contact.aliases), ""),
        str(next((after.body[name] for name in _WHAT if name in after.body), "")),
        tuple(name for name in kept if name not in _WHAT),
        tuple(name for name in names(before.body) if name not in own),
    )


_WHAT = ("event_name", "trigger_key", "sequence_slug", "tag_name", "tag_id")


def names(body: Mapping[str, Any]) -> Iterator[str]:
    """The fields of a request, those of objects one by one: `custom_fields.plan`, `tag_names.trial`."""
    for name, value in body.items():
        if name in NESTED and isinstance(value, Mapping):
            for key, item in value.items():
                if key == "custom_fields" and isinstance(item, Mapping):
                    yield from (f"{name}.{key}.{each}" for each in item)
                else:
                    yield f"{name}.{key}"
        elif name == "tag_names" and isinstance(value, Collection) and not isinstance(value, str):
            yield from (f"{name}.{each}" for each in value)
        else:
            yield name
