"""What Meisa's documentation does not say and this client relies on all the same, in one place.

Everything here is `(assumed)` in the sense of the API's facts: seen to be likely, stated nowhere. Whoever learns better
changes a value here (or passes other `Assumptions` to the client), never the code around it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Assumptions:
    already_enrolled_statuses: frozenset[int] = frozenset({400, 409})
    """With which an enroll of a contact that is in the sequence already is rejected (documented: that it is)."""

    already_enrolled_words: str = r"already[\s_-]+(\w+[\s_-]+){0,3}?(enrolled|active|paused|exists|in\b)"
    """A regular expression, searched without regard to case in the rejection's body (documented: "already active or
    paused"). It asks for "already": a sequence that is "not active in" some environment is a refusal."""

    suppressed_words: str = r"unsubscrib|bounc|complain|suppress"
    """Same, in a 422: the address must not be written to (documented: "recipient unsubscribed", beside "no sender")."""

    bulk_enrolled_words: frozenset[str] = frozenset({"enrolled", "created", "added", "success", "ok"})
    """What a bulk enroll says of an address that it enrolled (documented: that there is an outcome per address). One
    that is in the sequence already, or suppressed, is known by the two patterns above."""

    bulk_refused_words: str = r"\binvalid|malformed|refused|rejected"
    """Same, of an address that it refused for good. For whatever else it says, the address is asked for alone."""

    retried_4xx: frozenset[int] = frozenset()
    """4xx statuses that are tried again all the same. Documented is "never retry any other 4xx"; a gateway in between
    that answers 408 or 425 for reasons of its own would be a reason to name those here."""

    retry_after_seconds_max: float = 86_400.0
    """`Retry-After` is honoured up to here. Nothing documented throttles for longer than an hour; a mistyped date must
    not silence the bridge for years."""

    date_header_is_meisas_clock: bool = True
    """The answer's `Date` header tells Meisa's time, by which ages across instances are corrected."""

    trigger_statuses: frozenset[str] = frozenset({"sent", "scheduled", "skipped"})
    """The words of `status` in a trigger's answer (documented); another one counts as delivered, and is mentioned."""


DEFAULT = Assumptions()
