"""What all fuzzers share: dice by seed and number, secrets that must show nowhere, the report of what came of it."""

from __future__ import annotations

import base64
import random
import re
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

API_KEY = "meisa_test_c4n4ryK3yOfTh3Fuzz3r"
ADMIN_TOKEN = "c4n4ryT0k3nOfTh3P4g3"
KAFKA_PASSWORD = "c4n4ryP4ssw0rdOfK4fk4"
REGISTRY_AUTH = "reader:c4n4ryOfTh3R3gistry"

TRACES = (
    API_KEY.removeprefix("meisa_test_"),
    ADMIN_TOKEN,
    KAFKA_PASSWORD,
    REGISTRY_AUTH.partition(":")[2],
    base64.b64encode(REGISTRY_AUTH.encode()).decode(),
    base64.b64encode(f"x:{ADMIN_TOKEN}".encode()).decode().rstrip("="),
)
"""The secrets as they may show: plain, or as a header carries them."""

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""What may not stand in a line for people: it moves the cursor, hides or reorders text, or begins a line of its own."""


def dice_of(kind: str, seed: int, number: int) -> random.Random:
    return random.Random(f"{kind} {seed} {number}")


class Broken(AssertionError):
    """An invariant does not hold."""


def hold(true: object, what: str) -> None:
    if not true:
        raise Broken(what[:4_000])


def no_secret(where: str, text: str | bytes) -> None:
    """Fails where a secret shows in what was written for others."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    for trace in TRACES:
        at = text.find(trace)
        hold(at < 0, f"a secret shows in {where}: …{text[max(0, at - 200) : at]}[here]")


@dataclass
class Report:
    """What was done and what came of it."""

    kind: str
    seed: int
    count: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    cpu_seconds: float = 0.0
    _began: float = field(default_factory=time.process_time)

    def ended(self) -> Report:
        self.cpu_seconds = time.process_time() - self._began
        return self

    def add(self, other: Report) -> None:
        self.count += other.count
        self.outcomes += other.outcomes
        self.cpu_seconds += other.cpu_seconds
        self.notes += other.notes

    def __str__(self) -> str:
        lines = [f"{self.kind}: {self.count:,} with seed {self.seed}, {self.cpu_seconds:.0f} s of CPU"]
        lines += [f"  {name:<32}{number:>9,}" for name, number in sorted(self.outcomes.items())]
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def batches(first: int, count: int, size: int) -> Iterable[range]:
    """The numbers from `first` on, in batches."""
    for start in range(first, first + count, size):
        yield range(start, min(start + size, first + count))
