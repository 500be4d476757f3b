"""What goes wrong on purpose: rates drawn from a seed, and rules that name the calls they hit.

Pure: `decide` is asked once per call that passed the key and the quota, in order of arrival, and says what happens to
it. The same seed and the same order of calls give the same faults.

A fault is one of
- an answer instead of the work (`status`), or after the work was carried out (`status` with `carry_out`);
- a cut connection: `before` the work, `after` it without an answer, or `half` way through the answer;
- a hang: the connection is held for `hang_seconds` and then closed, `before` or `after` the work.
Rules come before rates; the first rule that matches decides.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

ERROR_STATUSES = (500, 502, 503)
RULES_MAX = 1000
"""Each call looks at every rule: more would make the server itself the slow part."""
MOMENTS = ("", "before", "after")
CUTS = (*MOMENTS, "half")


@dataclass(slots=True)
class Rates:
    """Shares of calls between 0 and 1, and delays in milliseconds."""

    latency_ms: float = 0.0
    jitter_ms: float = 0.0
    """The latency varies evenly by up to this much either way."""
    error_rate: float = 0.0
    """5xx instead of the work."""
    error_after_rate: float = 0.0
    """5xx although the work was carried out: a gateway that lost the answer."""
    throttle_rate: float = 0.0
    """429 on any call although the quota has room."""
    guardrail_rate: float = 0.0
    """429 on triggers only: Meisa's sending guardrail."""
    cut_rate: float = 0.0
    """The work is carried out, then the connection closes without an answer."""
    cut_before_rate: float = 0.0
    """The connection closes, nothing is carried out."""
    hang_rate: float = 0.0
    """Nothing is carried out and no answer comes for hang_seconds."""
    hang_seconds: float = 30.0

    def check(self) -> None:
        """Raises ValueError for a value out of range."""
        for spec in fields(self):
            value = getattr(self, spec.name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{spec.name} must be a number")
            if spec.name.endswith("_rate") and not 0 <= value <= 1:
                raise ValueError(f"{spec.name} must be between 0 and 1")
            if not 0 <= value <= 86_400_000:
                raise ValueError(f"{spec.name} must be 0 or more, and not longer than a day")
        total = sum(getattr(self, spec.name) for spec in fields(self) if spec.name.endswith("_rate"))
        if total > 1 + 1e-9:
            raise ValueError(f"the rates add up to {total:g}; at most 1 is possible, as a call has one fault")


@dataclass(slots=True)
class Rule:
    """Hits calls whose endpoint and contact match (shell patterns: `*@example.com`)."""

    endpoint: str = "*"
    """A name of the catalogue: upsert, track, trigger …"""
    contact: str = "*"
    """Compared with the call's email, the external_id it names, and the email of the contact it finds."""
    key: str = "*"
    """The name of an API key."""
    skip: int = 0
    """Matches that pass before the rule begins to hit."""
    times: int | None = None
    """How many calls it hits; None: for ever (a poison contact, an outage)."""
    status: int = 0
    message: str = ""
    carry_out: bool = False
    retry_after: str | None = None
    """The Retry-After header of its answer, as it is sent; None: none."""
    cut: str = ""
    reset: bool = False
    """A cut by TCP reset instead of an ordinary close."""
    hang: str = ""
    latency_ms: float = 0.0
    """On top of the ordinary latency; alone it makes a rule that only slows down."""
    hits: int = field(default=0)

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Rule:
        """Raises ValueError for what no rule can mean."""
        known = {spec.name: spec for spec in fields(cls) if spec.name != "hits"}
        for name, value in body.items():
            if name not in known:
                raise ValueError(f"a fault rule has no {name}; known are {', '.join(known)}")
            kinds: dict[str, tuple[type, ...]] = {
                "skip": (int,),
                "status": (int,),
                "times": (int, type(None)),
                "retry_after": (str, type(None)),
                "latency_ms": (int, float),
                "carry_out": (bool,),
                "reset": (bool,),
            }
            kind = kinds.get(name, (str,))
            if not isinstance(value, kind) or (isinstance(value, bool) and bool not in kind):
                raise ValueError(f"{name} of a fault rule must be {' or '.join(one.__name__ for one in kind)}")
        rule = cls(**body)
        if rule.status and not 400 <= rule.status <= 599:
            raise ValueError("status of a fault rule must be between 400 and 599")
        if rule.retry_after is not None and not (rule.retry_after.isascii() and rule.retry_after.isprintable()):
            raise ValueError("retry_after must be printable ASCII: it is sent as a header")
        if rule.cut not in CUTS or rule.hang not in MOMENTS:
            raise ValueError("cut must be before, after or half; hang must be before or after")
        if sum(map(bool, (rule.status, rule.cut, rule.hang))) > 1:
            raise ValueError("a fault rule has one of status, cut and hang")
        if not (rule.status or rule.cut or rule.hang or rule.latency_ms > 0):
            raise ValueError("a fault rule needs status, cut, hang or latency_ms")
        if rule.skip < 0 or (rule.times is not None and rule.times < 1) or rule.latency_ms < 0:
            raise ValueError("skip and latency_ms must be 0 or more, times 1 or more")
        return rule

    def matches(self, endpoint: str, contacts: tuple[str, ...], key: str) -> bool:
        if not (fnmatchcase(endpoint, self.endpoint) and fnmatchcase(key, self.key)):
            return False
        if self.contact == "*":
            return True
        pattern = self.contact.casefold()
        return any(fnmatchcase(contact.strip().casefold(), pattern) for contact in contacts)

    def view(self) -> dict[str, Any]:
        return {spec.name: getattr(self, spec.name) for spec in fields(self)}


class Fault(NamedTuple):
    """What happens to one call."""

    name: str
    """For the ledger: error, error_after, throttle, guardrail, cut_before …"""
    status: int = 0
    message: str = ""
    carry_out: bool = False
    retry_after: str | None = None
    cut: str = ""
    reset: bool = False
    hang: str = ""
    latency_ms: float = 0.0

    @property
    def works(self) -> bool:
        """Whether the call is carried out all the same."""
        return self.carry_out or self.cut in ("after", "half") or self.hang == "after" or self.only_slow

    @property
    def only_slow(self) -> bool:
        return not (self.status or self.cut or self.hang)


class Faults:
    def __init__(self, rates: Rates, rng: random.Random) -> None:
        rates.check()
        self.rates = rates
        self.rules: list[Rule] = []
        self._rng = rng
        self._any_rate = False
        self.changed()

    def changed(self) -> None:
        """Call after `rates` were changed."""
        self._any_rate = any(
            getattr(self.rates, spec.name) for spec in fields(self.rates) if spec.name.endswith("_rate")
        )

    def add(self, rules: list[Rule]) -> None:
        """Raises ValueError when there would be too many."""
        if len(self.rules) + len(rules) > RULES_MAX:
            raise ValueError(f"at most {RULES_MAX} fault rules")
        self.rules.extend(rules)

    def clear(self) -> None:
        self.rates = Rates()
        self.rules = []
        self.changed()

    def latency_seconds(self) -> float:
        rates = self.rates
        if not rates.latency_ms and not rates.jitter_ms:
            return 0.0
        jitter = rates.jitter_ms * (2 * self._rng.random() - 1) if rates.jitter_ms else 0.0
        return max(0.0, rates.latency_ms + jitter) / 1000

    def decide(self, endpoint: str, contacts: tuple[str, ...], key: str) -> Fault | None:
        """The fault of the call that just came, or None. Counts the hit."""
        for place, rule in enumerate(self.rules):
            if not rule.matches(endpoint, contacts, key):
                continue
            if rule.skip > 0:
                rule.skip -= 1
                continue
            rule.hits += 1
            if rule.times is not None:
                rule.times -= 1
                if rule.times == 0:
                    del self.rules[place]
            name = f"cut_{rule.cut}" if rule.cut else f"hang_{rule.hang}" if rule.hang else "rule"
            message = rule.message or "The sandbox was told to refuse this call."
            return Fault(
                name,
                rule.status,
                message,
                rule.carry_out,
                rule.retry_after,
                rule.cut,
                rule.reset,
                rule.hang,
                rule.latency_ms,
            )
        return self._draw(endpoint) if self._any_rate else None

    def _draw(self, endpoint: str) -> Fault | None:
        rates, drawn = self.rates, self._rng.random()
        for name, rate in (
            ("error", rates.error_rate),
            ("error_after", rates.error_after_rate),
            ("throttle", rates.throttle_rate),
            ("guardrail", rates.guardrail_rate if endpoint == "trigger" else 0.0),
            ("cut_after", rates.cut_rate),
            ("cut_before", rates.cut_before_rate),
            ("hang_before", rates.hang_rate),
        ):
            if drawn < rate:
                return self._fault(name)
            drawn -= rate
        return None

    def _fault(self, name: str) -> Fault:
        if name in ("error", "error_after"):
            status = self._rng.choice(ERROR_STATUSES)
            return Fault(name, status, "Something went wrong on our side.", carry_out=name == "error_after")
        if name == "throttle":
            return Fault(name, 429, "Too many requests.")
        if name == "guardrail":
            return Fault(name, 429, "A sending guardrail holds this email back.")
        kind, _, moment = name.partition("_")
        return Fault(name, cut=moment) if kind == "cut" else Fault(name, hang=moment)
