"""From open requests to jobs: reads the topic of replays, the letters, and the source behind them. Sends nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from bridge.errors import DecodeError
from bridge.model import Action, Event, Plan, Record, TopicPartition
from bridge.ports import Clock, Logs
from bridge.replay.later import Later
from bridge.replay.ledger import Done, Fact, Mark, OpenRequests, Place, Request, read
from bridge.replay.letters import DeadLetter, Decoders, NotALetter, original, parse, wanted
from bridge.replay.work import Job
from bridge.runtime.schemas import Schemas

SLICE_SECONDS = 0.005
"""So long a scan decodes and plans without letting others go on."""
GAP_MAX = 500
"""Letters this far apart are reached by reading on; further ones by a new reading."""

Problems = list[tuple[Request, str]]
"""Requests for which nothing can be sent, and why."""


class Prepared(NamedTuple):
    jobs: list[Job]
    """In the order of the source."""
    problems: Problems


class Preparing:
    """`topic` is that of replays; `plan` the rules alone, `knows_rule` whether one of that name is among them."""

    def __init__(
        self,
        logs: Logs,
        topic: str,
        *,
        decoders: Decoders,
        plan: Callable[[Event], Plan],
        knows_rule: Callable[[str], bool],
        identify: Callable[[Record, Action], str],
        clock: Clock,
        schemas: Schemas | None = None,
        deduplicated: Collection[str] = (),
    ) -> None:
        """In topics that are `deduplicated` a repeated event wrote nothing."""
        self._deduplicated = frozenset(deduplicated)
        self._logs = logs
        self._topic = topic
        self._decoders = decoders
        self._plan = plan
        self._knows_rule = knows_rule
        self._identify = identify
        self._clock = clock
        self._schemas = schemas

    async def _ready(self, record: Record, *, anew: bool = False) -> None:
        """Returns once what the record was written with is at hand."""
        if self._schemas is not None and (anew or self._schemas.lacks(record) is not None):
            await self._schemas.ready(record, anew=anew)

    async def read(self, topic: str, partition: int, start: int, end: int) -> AsyncIterator[Record]:
        async with contextlib.aclosing(self._logs.read(topic, partition, start, end)) as batches:
            async for batch in batches:
                for record in batch:
                    yield record

    async def facts(self, start: int, end: int) -> AsyncIterator[Fact]:
        """What the topic of replays says from one offset to another."""
        async with contextlib.aclosing(self._logs.read(self._topic, 0, start, end)) as batches:
            async for batch in batches:
                for record in batch:
                    if (fact := read((record.key or b"", record.value))) is not None:
                        yield fact

    async def open_requests(self, partition: TopicPartition, count: int) -> list[Request]:
        """The open requests of the lowest source records of a partition."""
        found = OpenRequests([partition])
        if (bounds := await self._logs.bounds(self._topic, 0)) is not None:
            async for fact in self.facts(*bounds):
                found.tell(fact)
        return found.first(count)

    async def _done(self, sources: Iterable[Place]) -> Mapping[Place, Done]:
        found = {source: Done() for source in sources}
        if (bounds := await self._logs.bounds(self._topic, 0)) is not None:
            async for fact in self.facts(*bounds):
                if isinstance(fact, Mark) and fact.source in found:
                    found[fact.source].tell(fact)
        return found

    # Letters

    async def jobs(self, requests: Sequence[Request]) -> Prepared:
        """What the letters ask for by the present rules. `requests` stand in the order of the source."""
        done = await self._done(request.source for request in requests)
        letters = await self._fetch({request.letter for request in requests})
        prepared = Prepared([], [])
        for source, group in groupby(requests, key=lambda request: request.source):
            job: Job | None = None
            for request in group:
                asked = await self._ask(request, letters.get(request.letter), done[source], job)
                if isinstance(asked, str):
                    prepared.problems.append((request, asked))
                else:
                    job = asked
            if job is not None:
                job.order()
                prepared.jobs.append(job)
        return prepared

    async def _ask(self, request: Request, letter: Record | None, done: Done, job: Job | None) -> Job | str:
        """The record's job with this request in it, or why nothing can be sent for it."""
        if letter is None:
            return f"the dead letter {request.letter} is not there any more"
        try:
            parsed = parse(letter)
        except NotALetter as error:
            return f"{request.letter} is no dead letter of this bridge: {error}"
        if (parsed.source, parsed.name) != request.key:
            return f"{request.letter} is another letter now; ask again"
        if job is None:
            event = await self._event(letter, parsed)
            if isinstance(event, str):
                return event
            job = Job(event, parsed.replays, done)
        record = job.record

        def identify(action: Action) -> str:
            return self._identify(record, action)

        plan = self._plan(job.event)
        want = wanted(parsed, request, plan, identify, self._knows_rule)
        if want.problem:
            return want.problem
        failures = [failure for failure in plan.failures if failure.rule in want.failed_rules]
        job.replays = max(job.replays, parsed.replays)
        job.ask(request, want.actions, failures, identify)
        return job

    async def _event(self, letter: Record, parsed: DeadLetter) -> Event | str:
        record = original(letter, parsed) if parsed.whole else await self._source_record(parsed)
        if record is None:
            return f"the letter was too large for its topic, and its record {parsed.source} is gone from the source"
        decode = self._decoders.get(record.topic)
        if decode is None:
            return f"topic {record.topic} is not configured"
        try:
            await self._ready(record, anew=True)
            event = decode(record)
        except DecodeError as error:
            return f"it still cannot be decoded: {error.message}"
        return event if event is not None else "it says nothing: its value is null"

    async def _source_record(self, letter: DeadLetter) -> Record | None:
        source = letter.source
        bounds = await self._logs.bounds(source.topic, source.partition)
        if bounds is None or not bounds[0] <= source.offset < bounds[1]:
            return None
        async for record in self.read(source.topic, source.partition, source.offset, source.offset + 1):
            if record.timestamp_ms == letter.source_timestamp_ms:
                return record
        return None

    async def _fetch(self, places: Iterable[Place]) -> dict[Place, Record]:
        """The records at these places, as far as they are still there."""
        found: dict[Place, Record] = {}
        for (topic, partition), group in groupby(sorted(places), key=lambda place: place[:2]):
            low, high = await self._logs.bounds(topic, partition) or (0, 0)
            offsets = {place.offset: place for place in group if low <= place.offset < high}
            for first, last in _stretches(list(offsets)):
                async for record in self.read(topic, partition, first, last + 1):
                    if record.offset in offsets:
                        found[offsets[record.offset]] = record
        return found

    # What later events wrote

    async def scan(self, partition: TopicPartition, jobs: Sequence[Job], later: Later) -> Prepared:
        """Tells `later` the whole log behind the jobs' records, up to its present end.

        Live events must tell `later` already, so that nothing is missed in between. Jobs whose later events cannot be
        known are refused, except for requests that need not know.
        """
        watching = {job.record.offset: job for job in jobs if job.watch(later)}
        prepared = Prepared(list(jobs), [])
        if not watching:
            return prepared
        bounds = await self._logs.bounds(*partition)
        low, high = bounds if bounds is not None else (0, 0)
        unknown = {
            offset: f"retention has removed records behind it (the log begins at {low})"
            for offset in watching
            if offset + 1 < low
        }
        unknown |= {
            offset: f"{partition} was created anew since (its log ends at {high})"
            for offset in watching
            if offset >= high
        }
        known = watching.keys() - unknown.keys()
        if known:
            unknown |= await self._see(partition, max(low, min(known)), high, watching, later)
        for offset, why in unknown.items():
            prepared = self._without(prepared, watching[offset], why)
        return prepared

    def _without(self, prepared: Prepared, job: Job, why: str) -> Prepared:
        """What is prepared, without the requests of a job that must know of later events."""
        advice = f"{why}, so what later events of the contact wrote is not known; --overwrite sends it all the same"
        problems = [(request, advice) for request in job.requests if not request.overwrite]
        rest = job.only(lambda request: request.overwrite, lambda action: self._identify(job.record, action))
        jobs = [rest if each is job else each for each in prepared.jobs]
        return Prepared([each for each in jobs if each.requests], prepared.problems + problems)

    async def _see(
        self, partition: TopicPartition, start: int, end: int, watching: Mapping[int, Job], later: Later
    ) -> dict[int, str]:
        """Reads the log; returns the watching offsets at which another record stands than the letter's."""
        others: dict[int, str] = {}
        decode = self._decoders[partition.topic]
        ids = {(job.event.source, job.event.id) for job in watching.values()}
        skipped = ids if partition.topic in self._deduplicated else set()
        slice_ends = self._clock.now() + SLICE_SECONDS
        async for record in self.read(*partition, start, end):
            job = watching.get(record.offset)
            if job is not None and record.timestamp_ms != job.record.timestamp_ms:
                others[record.offset] = f"{partition} was created anew since (another record stands there)"
            if self._schemas is not None:
                await self._ready(record)
            with contextlib.suppress(DecodeError):  # what it wrote is not known to anybody: it is a dead letter itself
                event = decode(record)
                if event is not None and (event.source, event.id) not in skipped:
                    later.see(record.offset, self._plan(event).actions)
            if self._clock.now() >= slice_ends:
                await asyncio.sleep(0)
                slice_ends = self._clock.now() + SLICE_SECONDS
        return others


def _stretches(offsets: Sequence[int]) -> list[tuple[int, int]]:
    """First and last offsets of readings that reach all of these, which are sorted."""
    stretches: list[tuple[int, int]] = []
    for offset in offsets:
        if stretches and offset - stretches[-1][1] <= GAP_MAX:
            stretches[-1] = (stretches[-1][0], offset)
        else:
            stretches.append((offset, offset))
    return stretches
