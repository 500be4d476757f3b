"""Dead letters on their way: written until the broker acknowledges them, and capped per topic."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace

import structlog

from bridge.core.cap import LetterCap
from bridge.errors import LetterNotWritten
from bridge.model import Letter, LetterKind, Record, TopicPartition, Waiting
from bridge.ports import Clock, Letters, Meter
from bridge.runtime.completion import Completion
from bridge.runtime.letter_log import LetterLog
from bridge.runtime.partition import Partition

log = structlog.get_logger(__name__)

UNCAPPED = frozenset({LetterKind.EXPIRED, LetterKind.UNKNOWN_CONTACT})
"""Letters that say something of time and of other systems, not of the rules: they stop no topic."""

WAIT_SECONDS = 0.5
WAIT_SECONDS_MAX = 30.0
"""Between attempts to write a letter."""


class Burial:
    """`settled` is called when a letter has been written or given up."""

    def __init__(
        self,
        letters: Letters,
        *,
        topics: Iterable[str],
        stop_at: tuple[float, int],
        owned: Callable[[Record], Partition | None],
        clock: Clock,
        meter: Meter,
        settled: Callable[[], None],
    ) -> None:
        self._letters = letters
        self._owned = owned
        self._clock = clock
        self._meter = meter
        self._settled = settled
        self._caps = {topic: LetterCap(*stop_at) for topic in topics}
        self.topics = tuple(self._caps)
        self._held: list[tuple[Letter, Completion[None], Partition]] = []
        """Letters of stopped topics, unwritten: at most what the windows hold."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = LetterLog()
        self.how_to_resume: Callable[[str], str] = lambda topic: ""
        """Tells people how a stopped topic is resumed, in one line."""
        self.heard: Callable[[Letter], None] = lambda letter: None
        """Hears of each letter as it comes, written yet or not."""
        self.trouble = ""
        """Why letters cannot be written; empty while they can."""

    def stopped(self, topic: str) -> bool:
        """Whether too many of the topic's last events were dead-lettered. Raises KeyError for one that is not read."""
        return self._caps[topic].stopped

    def stopped_topics(self) -> list[str]:
        return [topic for topic, cap in self._caps.items() if cap.stopped]

    def finished(self, record: Record, partition: Partition) -> None:
        """An event has finished: books it for the cap, unless its letter was."""
        if record.offset in partition.capped:
            partition.capped.discard(record.offset)
        else:
            self._caps[record.topic].finished(dead_lettered=False)

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """Drops the unwritten letters of partitions that went; their next owner decides anew."""
        gone = set(partitions)
        for _, completion, partition in self._held:
            if partition.name in gone:
                completion.abandon()
        self._held = [each for each in self._held if each[2].name not in gone]

    def look(self, now: float) -> None:
        """Now and then: the log tells of letters that it has only counted."""
        self._log.look(now)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._log.close(self._clock.now())

    def waiting(self, partitions: Iterable[Partition]) -> list[Waiting]:
        """Why letters, or whole topics, wait."""
        reasons = []
        letters = sum(partition.letters for partition in partitions)
        if letters:
            reasons.append(Waiting("dead_letters", letters, detail=self.trouble))
        for topic, cap in self._caps.items():
            if cap.stopped:
                held = sum(letter.record.topic == topic for letter, _, _ in self._held)
                how = self.how_to_resume(topic)
                detail = f"{topic}; resume it with: {how}" if how else topic
                reasons.append(Waiting("dead_letter_cap", held, detail=detail))
        return reasons

    def bury(self, letter: Letter) -> Completion[None]:
        """Writes a dead letter until the broker acknowledges it; its offset waits as long as that takes."""
        completion: Completion[None] = Completion()
        partition = self._owned(letter.record)
        if partition is None:
            completion.abandon()  # of an older assignment: its new owner writes the letter
            return completion
        letter = replace(letter, failed_at_wall_seconds=self._clock.wall())
        self.heard(letter)
        cap = self._caps[letter.record.topic]
        if letter.kind not in UNCAPPED and letter.record.offset not in partition.capped:
            partition.capped.add(letter.record.offset)
            if cap.finished(dead_lettered=True):
                log.error(
                    "too many of a topic's last events were dead-lettered: it pauses, and no more of it is "
                    "dead-lettered, until the rules are reloaded or it is resumed; a restart resumes it too",
                    topic=letter.record.topic,
                    dead=cap.dead,
                    kind=letter.kind,
                    rule=letter.rule,
                    message=letter.message,
                    resume_with=self.how_to_resume(letter.record.topic) or None,
                )
        if cap.stopped:
            self._held.append((letter, completion, partition))
        else:
            self._write(letter, completion, partition)
        return completion

    def _write(self, letter: Letter, completion: Completion[None], partition: Partition) -> None:
        partition.letters += 1
        task = asyncio.get_running_loop().create_task(self._bury(letter, completion, partition))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def resume(self, topic: str) -> None:
        """Writes what waited for a stopped topic, and lets it go on."""
        self._caps[topic].resume()
        held = self._held
        self._held = [each for each in held if each[0].record.topic != topic]
        for letter, completion, partition in held:
            if letter.record.topic == topic:
                self._write(letter, completion, partition)

    async def _bury(self, letter: Letter, completion: Completion[None], partition: Partition) -> None:
        wait = WAIT_SECONDS
        try:
            while True:
                try:
                    await self._letters.write(letter)
                    break
                except LetterNotWritten as error:
                    self._meter.letter_tried("error")
                    log.warning(
                        "a dead letter was not acknowledged; its record's offset waits, and it is written again",
                        place=letter.record.place,
                        error=str(error),
                        again_in_seconds=wait,
                    )
                    self.trouble = str(error)
                    await asyncio.sleep(wait)
                    wait = min(wait * 2, WAIT_SECONDS_MAX)
        finally:
            partition.letters -= 1
            self._settled()
        self.trouble = ""
        self._meter.letter_tried("ok")
        self._meter.dead_letter(letter.kind, letter.rule)
        self._log.wrote(letter, self._clock.now())
        completion.complete(None)
