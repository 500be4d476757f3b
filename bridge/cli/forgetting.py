"""Erasing a person from the state store, and what of them remains elsewhere.

What the store holds by name (`x:` `e:` `a:`, core/identity.py), values of lazy fields (`l:`, core/lazy_entries.py) and
digests of what Meisa has (`k:`, core/known.py) is erased. Positions of partitions (`p:` `o:`) and digests of event ids
(`d:`) tell of nobody.

A service that runs may write at the same moment what it had read before, so it is looked for again after each writing,
until nothing is found. What it keeps in memory alone stays there until it ends.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from bridge.core import known
from bridge.core.identity import Identities
from bridge.errors import LogFailed, StartFailed, StoreFailed, UserError
from bridge.state import SQLITE

if TYPE_CHECKING:
    from bridge.config import Settings
    from bridge.ports import Store

ROUNDS_MAX: Final = 5
"""A service writes a person's registers again only while it works on their events."""

SORTS: Final = {"x": "identities", "e": "identities", "a": "identities", "l": "lazy", "k": "unchanged"}
"""By what registers' names begin with."""
SORTS_TOLD: Final = {
    "identities": "names (email, external_id, aliases)",
    "lazy": "kept values of lazy fields",
    "unchanged": "digests of what Meisa has (unchanged state)",
}


class Erasure(NamedTuple):
    state: str
    """Where; without what a URL may hold of a password."""
    lasting: bool
    counts: dict[str, int]
    """Registers by sort."""
    scrubbed: bool | None = None
    """Whether the file holds nothing any more of what was deleted; None where it is no file, or nothing was erased."""

    def lines(self, *, dry_run: bool) -> list[str]:
        if not self.lasting:
            return [
                "state.url is memory: nothing is kept in a store. What a running bridge knows of a person it forgets "
                "when it ends: restart it"
            ]
        if not any(self.counts.values()):
            return [f"state {self.state}: nothing is kept of this person"]
        made = [f"state {self.state}: {'would be erased' if dry_run else 'erased'}"]
        made += [f"{count:>7,} {SORTS_TOLD[sort]}" for sort, count in self.counts.items() if count]
        if self.scrubbed is False:
            made.append(
                "  the file's free space may still hold it, because another process uses the file: "
                "repeat this while the bridge is stopped"
            )
        return made

    def plain(self) -> dict[str, object]:
        return {"state": self.state, "lasting": self.lasting, "erased": self.counts, "scrubbed": self.scrubbed}


class Remnant(NamedTuple):
    where: str
    what: str
    seconds: float | None = None
    """For how long at least; None where it is not known, or for ever."""


async def erasing(
    settings: Settings, email: str, ask: Callable[[Erasure], None] | None, *, patience_seconds: float
) -> Erasure:
    """Erases the person once `ask` has returned; without it nothing is written, and what would be is told.

    Raises StartFailed and StoreFailed, and what `ask` raises where the answer is no.
    """
    from bridge.app import store_of
    from bridge.state.sqlite import SqliteStore

    where = _where(settings.state.url)
    if settings.state.url == "memory":
        return Erasure(where, lasting=False, counts={})
    store = store_of(settings, patience_seconds=patience_seconds)
    try:
        registers, emails = await forgotten(store, {email})
        found = Erasure(where, lasting=True, counts=_counts(registers))
        if ask is None:
            return found
        if registers:
            ask(found)
        erased = set(registers)
        for _ in range(ROUNDS_MAX):
            if not registers:
                break
            await store.flush()
            store.refresh()
            registers, emails = await forgotten(store, emails)
            erased |= registers
        if registers:
            raise StoreFailed(f"state {where}: a running bridge goes on writing of this person; stop it first")
        # Also where nothing was found: another round may have left something in the file.
        scrubbed = store.scrub() if isinstance(store, SqliteStore) else None
        return found._replace(counts=_counts(erased), scrubbed=scrubbed)
    finally:
        await store.close()


async def forgotten(store: Store, emails: Iterable[str]) -> tuple[set[str], set[str]]:
    """Deletes all of the person with these emails; for good only once the store is flushed.

    Returns the registers that there were, and all emails by which the person was known. Raises StoreFailed.
    """
    registers: set[str] = set()
    names: set[str] = set()
    for email in emails:
        person = await Identities(store=store).forget(email)
        registers |= person.registers
        names |= person.names
    registers.update(await known.erase(store, [name for name in names if not name.startswith("a:")]))
    return registers, {name.removeprefix("e:") for name in names if name.startswith("e:")}


def remains(settings: Settings, email: str) -> list[Remnant]:
    """Where else the person's data may be. Asks Kafka how long it keeps records; does without where that is away."""
    from bridge.cli.panel import duration

    retention, running, trouble = _asked(settings)

    def kept(topic: str) -> tuple[str, float | None]:
        if topic in retention:
            return f"for at least {duration(retention[topic])} (the topic's retention)", retention[topic]
        return trouble or "for as long as the topic keeps records", None

    made = []
    if running is None or running:
        who = "a bridge that runs" if running is None else f"{running} running instance{'' if running == 1 else 's'}"
        made.append(Remnant("memory", f"{who}: calls that wait and values that are kept, until its next start"))
    for topic in settings.topics:
        how_long, seconds = kept(topic)
        made.append(Remnant(f"topic {topic}", f"the person's events, {how_long}", seconds))
    letters, replays = settings.dead_letters.topic, settings.dead_letters.replays_topic
    how_long, seconds = kept(letters)
    listing = f"meisa-bridge dlq list --all --contact {shlex.quote(email.strip())}"
    made.append(
        Remnant(
            f"topic {letters}",
            f"dead letters hold whole records, {how_long}; see: {listing}",
            seconds,
        )
    )
    how_long, seconds = kept(replays)
    made.append(Remnant(f"topic {replays}", f"only the places of letters, nobody's data, {how_long}", seconds))
    made += [
        Remnant("commit metadata", "offsets and digests, nobody's data"),
        Remnant("logs", "addresses are masked unless admin.show_contacts is set; for as long as you keep logs"),
        Remnant("Meisa", "the contact itself, its events and sent email: erase them there"),
    ]
    if settings.state.url.startswith(SQLITE):
        made.append(Remnant("backups", "of the state file, for as long as you keep them"))
    elif settings.state.url != "memory":
        made.append(Remnant("Redis", "its append-only file and backups, until they are rewritten (BGREWRITEAOF)"))
    return made


def _asked(settings: Settings) -> tuple[dict[str, float], int | None, str]:
    """Retention by topic, members of the group (None: not known), and what to say where Kafka does not tell."""
    from bridge.kafka.admin import retention_seconds
    from bridge.kafka.groups import members
    from bridge.observe.logs import quiet

    kafka, letters = settings.kafka, settings.dead_letters
    with quiet():
        try:
            there = members(kafka.bootstrap_servers, kafka.properties, kafka.group_id)
            if there is None:
                return {}, None, ""
            topics = [*settings.topics, letters.topic, letters.replays_topic]
            return retention_seconds(kafka.bootstrap_servers, kafka.properties, topics), len(there), ""
        except (LogFailed, StartFailed, UserError):
            return {}, None, "for as long as the topic keeps records (Kafka did not answer)"


def _counts(registers: set[str]) -> dict[str, int]:
    counted = Counter(SORTS[name.partition(":")[0]] for name in registers)
    return {sort: counted[sort] for sort in SORTS_TOLD}


def _where(url: str) -> str:
    """The state's URL without user and password."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}".partition("?")[0]
