"""A simulated day at Meisa's default quota, on the virtual clock: is email quick, is the quota used, what waits?

    python -m benchmarks day                  # two hours of it
    python -m benchmarks day --long --svg day.svg

`shared`: one topic with a backlog at the start and a day of events behind it; four fifths nobody wants. A whole day has
1,000,000 events, three tenths of them in the backlog; fewer hours have as many events an hour, and a backlog in
proportion. `beside`: a backlog of 1,000,000 wanted events (in proportion), and a topic of its own for what sends email
now: failed payments and sign-ups of the same people; in `beside, independent` its triggers have `order: independent`,
so that they do not wait for what the backlog still has to say of their contact. Events older than an hour count as
bulk, as by default.

| column | meaning |
|---|---|
| calls, % | calls that left in the hour, and their share of the hour's limit |
| behind | events that had happened and were not finished when the hour ended |
| emails | answered in the hour, of events that happened since the start and were read within an hour |
| p50, p99 | seconds from when their event was taken in until Meisa's answer |
| late | emails of events that were read later: behind a backlog; they count as bulk, and wait with it |
| oldest | hours since the oldest unfinished event, read or not |

Emails that still wait when the hours are over count with the time that they have waited.
"""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import NamedTuple

from benchmarks.house import BULK_AFTER_SECONDS, LIMITS, Email, House, Log
from benchmarks.trace import RULES, Arrival, Traffic, book, times, trace
from tests.support.virtual import VirtualClock, VirtualLoop, run

HOUR = 3600.0
DAY_HOURS = 24
SHORT_HOURS = 2
PARTITIONS = 12
EVENTS = 1_000_000
BACKLOG_SHARE = 0.3
PEOPLE = 1_500
SIGN_UPS_A_DAY = 300
MAIL_TYPES = (b'"user.signed_up"', b'"invoice.payment_failed"')
MAIL_EVENTS_AN_HOUR = 4_000
"""Of which some thirty to seventy send email."""
P99_SECONDS_WANTED = 5.0
WALL = VirtualClock.WALL_AT_START


class Hour(NamedTuple):
    number: int
    calls: int
    behind: int
    emails: Sequence[Email]
    oldest_seconds: float


@dataclass
class Day:
    name: str
    limit: int
    """Calls an hour."""
    hours: list[Hour] = field(default_factory=list)
    unanswered: Sequence[Email] = ()
    """Emails that were taken in and still waited when the day ended."""

    @property
    def emails(self) -> list[Email]:
        return [*chain.from_iterable(hour.emails for hour in self.hours), *self.unanswered]


def delays(emails: Iterable[Email]) -> list[float]:
    """Of those that count as urgent, from taking in to the answer, ascending, in seconds."""
    return sorted(each.answered - each.taken for each in emails if not late(each))


def late(email: Email) -> bool:
    """Whether its event was history when it was read."""
    return email.taken - email.happened > BULK_AFTER_SECONDS


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the ascending values that so large a share of them do not exceed; NaN of none."""
    return values[max(0, math.ceil(share * len(values)) - 1)] if values else math.nan


def shared(hours: int = DAY_HOURS) -> Day:
    count = EVENTS * hours // DAY_HOURS
    old = Traffic(int(count * BACKLOG_SHARE), PEOPLE, start=-2 * HOUR, span_seconds=HOUR, unwanted=0.8, milestones=0.05)
    old = replace(old, newcomers=0.0)
    new = replace(old, count=count - old.count, start=0.0, span_seconds=hours * HOUR)
    new = replace(new, newcomers=SIGN_UPS_A_DAY / PEOPLE * hours / DAY_HOURS)
    if hours == DAY_HOURS:
        new = replace(new, shape="day")
    return run(_day("shared", [old, new], None, hours, RULES.read_text(encoding="utf-8")), VirtualLoop())


def beside(hours: int = DAY_HOURS, *, independent: bool = False) -> Day:
    old = Traffic(EVENTS * hours // DAY_HOURS, 20_000, start=-3 * HOUR, span_seconds=HOUR, milestones=0.05)
    old = replace(old, newcomers=0.0)
    mails = replace(old, count=MAIL_EVENTS_AN_HOUR * hours, start=0.0, span_seconds=hours * HOUR, milestones=1.0)
    mails = replace(mails, newcomers=0.01)
    name, rules = "beside", RULES.read_text(encoding="utf-8")
    if independent:
        name, rules = "beside, independent", rules.replace("- trigger:", "- order: independent\n        trigger:")
    return run(_day(name, [old], mails, hours, rules), VirtualLoop())


async def _day(name: str, events: Sequence[Traffic], mails: Traffic | None, hours: int, rules: str) -> Day:
    logs = [Log("events", PARTITIONS, chain.from_iterable(trace(each, WALL) for each in events), WALL)]
    if mails is not None:
        logs.append(Log("emails", PARTITIONS, _only_mails(trace(mails, WALL)), WALL))
    happened = list(chain.from_iterable(times(each) for each in events))
    house = House(book(rules), logs)
    house.open()
    pouring = asyncio.get_running_loop().create_task(house.pour())
    day = Day(name, LIMITS[-1][0])
    for number in range(1, hours + 1):
        calls, emails = len(house.meisa.calls), len(house.emails)
        await asyncio.sleep(HOUR)
        behind = bisect_right(happened, house.clock.now()) - house.finished("events")
        fresh = [email for email in house.emails[emails:] if email.happened >= 0]
        day.hours.append(Hour(number, len(house.meisa.calls) - calls, behind, fresh, house.oldest()))
    day.unanswered = [email for email in house.waiting_emails() if email.happened >= 0]
    pouring.cancel()
    await house.close()
    return day


def _only_mails(arrivals: Iterator[Arrival]) -> Iterator[Arrival]:
    return (each for each in arrivals if any(kind in each.value for kind in MAIL_TYPES))


def table(day: Day) -> Iterator[str]:
    """The day in Markdown."""
    yield "| hour | calls | % | behind | emails | p50 s | p99 s | late | oldest h |"
    yield "|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    for hour in day.hours:
        waited = delays(hour.emails)
        yield (
            f"| {hour.number} | {hour.calls} | {hour.calls / day.limit:.1%} | {hour.behind:,} | {len(waited)} "
            f"| {percentile(waited, 0.5):.2f} | {percentile(waited, 0.99):.2f} | {len(hour.emails) - len(waited)} "
            f"| {hour.oldest_seconds / HOUR:.2f} |"
        )
    waited = delays(day.emails)
    waiting = sum(not late(email) for email in day.unanswered)
    yield ""
    yield (
        f"{day.name}: {len(waited)} emails, {waiting} of them still waiting: p50 {percentile(waited, 0.5):.2f} s, p99 "
        f"{percentile(waited, 0.99):.2f} s, longest {max(waited, default=0):.2f} s; {len(day.emails) - len(waited)} "
        f"late; {sum(hour.calls for hour in day.hours):,} calls of {day.limit * len(day.hours):,}."
    )
