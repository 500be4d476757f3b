"""One run of one kind of fault, from an empty topic to a judgement; and the table of all."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import orjson

from bridge.sandbox.stream import events
from tests.support.chaos.cluster import ProxiedKafka
from tests.support.chaos.fleet import Fleet, Load
from tests.support.chaos.judge import Judge, Judgement
from tests.support.chaos.kinds import KINDS, Done, Trouble


@dataclass(frozen=True, slots=True)
class Size:
    """How much, and how often a fault. The busiest of `users` makes about a twelfth of all events (`zipf_s`)."""

    events: int = 20_000
    users: int = 2_000
    bad: int = 20
    zipf_s: float = 0.9
    backlog: float = 0.3
    """This share of the events is there from the start; the others come in bursts."""
    events_per_second: float = 150.0
    work_seconds: tuple[float, float] = (1.5, 3.5)
    """Calls are made for so long between two faults."""
    trouble_seconds: float = math.inf
    """Faults begin for so long; then the work may end in peace."""


SHORT = Size(events=800, users=100, bad=4, events_per_second=80.0, work_seconds=(0.5, 1.0), trouble_seconds=8.0)


GIVEN_UP_MAX = 3
"""Answers handed to a socket whose other end gave up in the same moment: the sandbox counts them as answered."""


MID_WRITE_MAX = 2
"""Calls per stop. What a process was about to write when it was stopped it writes when it wakes: only Meisa could tell.
Seen once in 17 stops, one call."""


@dataclass(slots=True)
class Report:
    kind: str
    seed: int
    seconds: float
    faults: Counter[str]
    judgement: Judgement
    broke: list[str]
    """Bridges that ended by themselves or with an error."""
    zombie_repeats: int
    """Of the repeats, calls of bridges that were frozen once."""
    woken_told: int
    """Of these, calls that a commit had told."""
    woken_set_back: int
    """Calls of bridges that were frozen once that set a contact back."""

    @property
    def wrong(self) -> list[str]:
        """What must not be with this kind of fault; empty in a good run."""
        found = [*self.judgement.broken, *self.broke]
        allowed = KINDS[self.kind].repeats
        judgement = self.judgement
        again = [*judgement.repeats, *judgement.partly]
        mid_write = MID_WRITE_MAX * self.faults["SIGSTOP"]
        if allowed == "none":
            found += [f"repeated, after planned changes only: {call}" for call in again]
        if allowed == "untold" and len(judgement.told_repeats) > min(self.woken_told, mid_write):
            found += [f"repeated, though a commit had told of it: {call}" for call in judgement.told_repeats]
        if KINDS[self.kind].crashes and len(judgement.sudden_repeats) > GIVEN_UP_MAX:
            found += [f"repeated, though no bridge had come or gone: {call}" for call in judgement.sudden_repeats]
        if allowed == "unanswered" and len(again) > judgement.unanswered_repeats + GIVEN_UP_MAX:
            found.append(f"{len(again)} calls again, but {judgement.unanswered_repeats} lost answers")
        if len(judgement.set_back) > min(self.woken_set_back, mid_write):
            found += [f"set a contact back: {call}" for call in judgement.set_back]
        if not self.faults:
            found.append("the work was done before a fault was injected")
        return found

    def row(self) -> str:
        judgement = self.judgement
        faults = ", ".join(f"{count:,} {name}" for name, count in sorted(self.faults.items()) if name != "rates")
        crashes = KINDS[self.kind].crashes
        cells = (
            KINDS[self.kind].title,
            faults,
            f"{judgement.events:,}",
            f"{judgement.effects:,}",
            f"{len(judgement.lost):,}",
            f"{len(judgement.disorder):,}",
            _share(len(judgement.repeats), judgement.effects),
            _share(judgement.again, judgement.actions) + (f" of {judgement.at_risk:,}" if crashes else ""),
            f"{len(judgement.set_back):,}",
            f"{len(judgement.emails_twice):,}",
            f"{judgement.unknown_outcome:,}",
            f"{self.seconds:.0f} s",
        )
        return "| " + " | ".join(cells) + " |"

    def details(self) -> str:
        """What the table has no room for."""
        found = self.judgement
        parts = {
            "seed": self.seed,
            "actions": found.actions,
            "merged": _share(found.merged, found.actions),
            "calls partly repeated": len(found.partly),
            "told and repeated": len(found.told_repeats),
            "answer lost and repeated": found.unanswered_repeats,
            "emails recognised": found.recognised,
            "set back for a moment, before something that had to meet it": found.set_back_across,
            "by bridges once frozen": self.zombie_repeats,
            "letters": dict(found.letters),
            "letters again": found.letters_again,
            "refused": dict(found.refused),
        }
        return ", ".join(f"{name} {value}" for name, value in parts.items())


def _share(count: int, of: int) -> str:
    return f"{count:,} ({1000 * count / max(1, of):.1f} ‰)"


HEAD = (
    "| fault | injected | events | calls | lost | out of order | calls repeated | actions again, of those not yet told "
    "| set back | emails twice | `unknown_outcome` | took |\n"
    "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
)


def table(reports: Sequence[Report]) -> str:
    return "\n".join([HEAD, *(report.row() for report in reports)])


def run(kafka: ProxiedKafka, folder: Path, kind: str, size: Size, seed: int = 1) -> Report:
    """Raises Stalled where the work does not end."""
    chosen = KINDS[kind]
    folder.mkdir(parents=True, exist_ok=True)
    produced = list(events(seed, size.events, size.users, size.zipf_s, size.bad, now_wall_seconds=time.time()))
    with ExitStack() as stack:
        load = Load(seed=seed, backlog=size.backlog, events_per_second=size.events_per_second)
        fleet = Fleet(kafka, folder, load, meisa=chosen.meisa)
        stack.callback(fleet.close)
        fleet.produce(produced)
        trouble = Trouble(fleet, random.Random(seed), size.work_seconds)
        begun = time.monotonic()
        if chosen.rates:
            trouble.bad_answers()
        for _ in range(chosen.members):
            fleet.spawn()
        try:
            while True:
                trouble.work()
                if time.monotonic() - begun < size.trouble_seconds or not trouble.timeline:
                    chosen.cycle(trouble)
        except Done:
            seconds = time.monotonic() - begun
        for member in list(fleet.members):
            fleet.terminate(member)
        ledger = fleet.ledger()
        # For whoever asks afterwards how it came.
        (folder / "ledger.jsonl").write_bytes(b"".join(orjson.dumps(entry) + b"\n" for entry in ledger))
        (folder / "run.json").write_bytes(
            orjson.dumps(
                {
                    "frozen": trouble.frozen,
                    "timeline": trouble.timeline,
                    "crashes": [moment.calls for moment in fleet.moments if moment.crash],
                }
            )
        )
        judge = Judge(fleet.group, fleet.topic, produced, fleet.places)
        judgement = judge.judge(ledger, fleet.emails(), fleet.contacts(), fleet.letters(), fleet.moments)
        woken = {name for name, _, _ in trouble.frozen}

        def of_woken(by_member: Counter[str]) -> int:
            return sum(count for name, count in by_member.items() if name in woken)

        return Report(
            kind,
            seed,
            seconds,
            +trouble.count,
            judgement,
            fleet.broke,
            zombie_repeats=of_woken(judgement.repeats_by_member),
            woken_told=of_woken(judgement.told_by_member),
            woken_set_back=of_woken(judgement.set_back_by_member),
        )
