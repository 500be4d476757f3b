"""Whether the sequences that rules enroll into exist and are active: asked of Meisa, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bridge.errors import Problem
from bridge.meisa.endpoints import ENDPOINTS
from bridge.meisa.models import Sequences, SequencesQuery
from bridge.model import Call, Kind, Outcome, Verdict
from bridge.places import Place, did_you_mean
from bridge.scopes import key_of, scopes_of, setting_of

if TYPE_CHECKING:
    from bridge.config import Settings
    from bridge.meisa.client import MeisaClient
    from bridge.rules import RuleBook

ACTIVE = "active"
ASKED_MAX = 50
"""Slugs that are asked for one by one, because the list does not have them; rules name a few."""


def slugs_of(book: RuleBook) -> dict[str, Place]:
    """The slugs that enabled rules name literally, each with the first place; what events decide nobody knows."""
    found: dict[str, Place] = {}
    for rule in book.rules:
        for action in rule.actions if rule.enabled else ():
            slug = action.given.get("sequence_slug")
            if action.kind is Kind.ENROLL and isinstance(slug, str) and "${" not in slug:
                found.setdefault(slug, action.place("sequence_slug"))
    return found


async def sequence_problems(
    client: MeisaClient, settings: Settings, book: RuleBook, ping: Outcome | None
) -> list[Problem]:
    """`ping` is the answer to the key that enrolls: it tells whether the key may ask."""
    slugs = slugs_of(book)
    if not slugs or ping is None or ping.verdict is not Verdict.DELIVERED:
        return []
    key = key_of(settings, Kind.ENROLL)
    place = settings.place(*setting_of(key).split("."))
    scope = ENDPOINTS["sequences"].scope
    scopes = scopes_of(ping)
    if scopes is not None and scope not in scopes:
        return [_unknown(place, f"the key lacks the scope {scope}")]
    known: dict[str, str] = {}
    for search in ("", *slugs)[: ASKED_MAX + 1]:
        if search in known:
            continue
        # All are asked for at once; then by name, since no page of the documentation says how many a list has at most.
        query = SequencesQuery(status="all", search=search or None)
        answer = await client.send(Call("sequences", query.body(), key=key))
        if answer.verdict is not Verdict.DELIVERED:
            return [_unknown(place, f"Meisa does not list them: {answer.message}")]
        try:
            listed = Sequences.model_validate(answer.data)
        except ValueError:
            return [_unknown(place, "Meisa's list of them cannot be read")]
        known |= {each.slug: each.status or ACTIVE for each in listed.items}
    return list(_wrong(slugs, known))


def _wrong(slugs: dict[str, Place], known: dict[str, str]) -> Iterator[Problem]:
    active = sorted(slug for slug, status in known.items() if status == ACTIVE)
    for slug, place in list(slugs.items())[:ASKED_MAX]:
        status = known.get(slug)
        if status is None:
            hint = did_you_mean(slug, active, f"active are {', '.join(active)}" if active else "make it in Meisa")
            yield place.problem("MB220", f"Meisa has no sequence {slug}: enrollments would be refused", hint)
        elif status != ACTIVE:
            message = f"the sequence {slug} is {status} in Meisa: enrollments would be refused"
            yield place.problem("MB220", message, "activate it in Meisa, or name another")


def _unknown(place: Place, why: str) -> Problem:
    return place.problem("MB221", f"whether the sequences of enroll are active is not known: {why}", severity="notice")
