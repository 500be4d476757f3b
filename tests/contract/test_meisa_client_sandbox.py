"""The client against the sandbox: two readings of the same documentation must agree, endpoint by endpoint."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from bridge.errors import MeisaRefused
from bridge.meisa.client import MeisaClient
from bridge.model import Call, Verdict
from bridge.sandbox.options import TEST_KEY, SandboxOptions
from bridge.sandbox.server import SandboxServer

EMAIL = "ada@example.com"
UNSCOPED = "meisa_test_contacts_only"


def options(**changes: object) -> SandboxOptions:
    keys = (f"{UNSCOPED}=contacts:write",)
    return SandboxOptions(port=0, per_minute=0, per_hour=0, seed=1, keys=keys, **changes)  # type: ignore[arg-type]


@pytest.fixture
async def sandbox() -> AsyncIterator[SandboxServer]:
    async with SandboxServer(options()) as server:
        yield server


@pytest.fixture
async def client(sandbox: SandboxServer) -> AsyncIterator[MeisaClient]:
    keys = {"default": lambda: TEST_KEY, "unscoped": lambda: UNSCOPED, "wrong": lambda: "meisa_test_wrong"}
    async with MeisaClient(sandbox.base_url, keys) as made:
        yield made


async def test_all_eleven_endpoints(client: MeisaClient) -> None:
    """Each typed call is understood and its answer parsed."""
    ping = await client.ping()
    assert ping.environment == "test"
    assert "emails:trigger" in ping.scopes

    contact = await client.upsert({"email": EMAIL, "external_id": "7", "custom_fields": {"plan": "pro"}})
    assert (contact.email, contact.external_id, contact.custom_fields) == (EMAIL, "7", {"plan": "pro"})

    tracked = await client.track({"event_name": "milestone", "external_id": "7"})
    assert tracked.contact_id == contact.id

    await client.add_tag(contact.id, tag_name="trial")
    assert [tag.name for tag in (await client.upsert({"email": EMAIL})).tags or []] == ["trial"]
    await client.remove_tag(contact.id, tag_name="trial")
    assert (await client.upsert({"email": EMAIL})).tags == []

    assert not (await client.enroll({"email": EMAIL, "sequence_slug": "onboarding"})).already_enrolled
    assert (await client.enroll({"email": EMAIL, "sequence_slug": "onboarding"})).already_enrolled
    bulk = await client.bulk_enroll("onboarding", [EMAIL, "new@example.com"])
    assert {result.email for result in bulk.results} == {EMAIL, "new@example.com"}
    assert all(result.status for result in bulk.results)
    assert "onboarding" in [sequence.slug for sequence in (await client.sequences()).items]
    assert [item.sequence_slug for item in (await client.enrollments(EMAIL)).items] == ["onboarding"]

    sent = await client.trigger({"trigger_key": "welcome", "to_email": EMAIL, "idempotency_key": "i1"})
    assert sent.status == "sent"
    again = await client.trigger({"trigger_key": "welcome", "to_email": EMAIL, "idempotency_key": "i1"})
    assert again.email_send_id == sent.email_send_id

    assert (await client.unsubscribed()).emails == []


async def test_a_bulk_enroll_tells_of_each_address(sandbox: SandboxServer, client: MeisaClient) -> None:
    """Enrolled, enrolled before, suppressed, and no address: each in one call, as the delivery reads it."""
    await client.enroll({"email": "in@example.com", "sequence_slug": "onboarding"})
    async with httpx.AsyncClient(trust_env=False) as control:
        done = await control.post(f"{sandbox.url}/_sandbox/suppress", json={"email": EMAIL, "reason": "bounced"})
        assert done.status_code == 200
    emails = ["New@example.com", "in@example.com", EMAIL, "no address"]
    outcome = await client.send(Call("bulk_enroll", {"sequence_slug": "onboarding", "emails": emails}))
    assert outcome.each is not None
    told = {email: (each.verdict, each.detail) for email, each in outcome.each.items()}
    assert told == {
        "new@example.com": (Verdict.DELIVERED, ""),
        "in@example.com": (Verdict.DELIVERED, "already_enrolled"),
        EMAIL.casefold(): (Verdict.REFUSED, "suppressed"),
        "no address": (Verdict.REFUSED, "refused"),
    }


@pytest.mark.parametrize("shape", ["error", "detail"])
@pytest.mark.parametrize("already", [400, 409])
async def test_already_enrolled_in_each_shape(shape: str, already: int) -> None:
    """However the sandbox words the rejection, it counts as delivered."""
    async with (
        SandboxServer(options(error_shape=shape, already_enrolled_status=already)) as server,
        MeisaClient(server.base_url, {"default": lambda: TEST_KEY}) as client,
    ):
        call = Call("enroll", {"email": EMAIL, "sequence_slug": "onboarding"})
        outcomes = [await client.send(call) for _ in range(2)]
    assert [outcome.verdict for outcome in outcomes] == [Verdict.DELIVERED] * 2
    assert [outcome.detail for outcome in outcomes] == ["", "already_enrolled"]


@pytest.mark.parametrize(
    ("call", "verdict", "detail"),
    [
        (Call("track", {"event_name": "x", "email": "nobody@example.com"}), Verdict.NEEDS_CONTACT, "no_contact"),
        (Call("add_tag", {"tag_name": "x"}, contact_id="nobody"), Verdict.REFUSED, "no_contact"),
        (Call("upsert", {}), Verdict.REFUSED, "refused"),
        (Call("ping", key="wrong"), Verdict.KEY_REFUSED, "key_refused"),
        (Call("unsubscribed", key="unscoped"), Verdict.SCOPE_MISSING, "scope_missing"),
        (Call("trigger", {"trigger_key": "welcome", "to_email": "no address"}), Verdict.REFUSED, "refused"),
    ],
)
async def test_refusals(client: MeisaClient, call: Call, verdict: Verdict, detail: str) -> None:
    """The sandbox's error answers get the verdicts that they stand for, with a reason to read."""
    outcome = await client.send(call)
    assert (outcome.verdict, outcome.detail) == (verdict, detail)
    assert len(outcome.message) > 5


async def test_a_quota_that_is_used_up() -> None:
    """429 with Retry-After, as seconds and as a date."""
    for form in ("seconds", "date"):
        sandbox = SandboxOptions(port=0, per_minute=1, per_hour=0, retry_after=form)
        async with (
            SandboxServer(sandbox) as server,
            MeisaClient(server.base_url, {"default": lambda: TEST_KEY}) as client,
        ):
            assert (await client.send(Call("ping"))).verdict is Verdict.DELIVERED
            outcome = await client.send(Call("ping"))
        assert outcome.verdict is Verdict.THROTTLED
        assert outcome.retry_after_seconds is not None
        assert 0 < outcome.retry_after_seconds <= 61
        assert outcome.date_wall_seconds is not None


@pytest.mark.parametrize("fault", ["cut_rate", "cut_before_rate"])
async def test_a_cut_answer_is_unknown(fault: str) -> None:
    """Whether the sandbox carried it out or not, the client cannot know, and does not claim to."""
    async with (
        SandboxServer(options(**{fault: 1.0})) as server,
        MeisaClient(server.base_url, {"default": lambda: TEST_KEY}) as client,
    ):
        for _ in range(5):
            assert (await client.send(Call("upsert", {"email": EMAIL}))).verdict is Verdict.UNKNOWN


async def test_suppressed(sandbox: SandboxServer, client: MeisaClient) -> None:
    """An unsubscribed recipient is told apart from other refusals, and is on the list."""
    async with httpx.AsyncClient(trust_env=False) as control:
        done = await control.post(f"{sandbox.url}/_sandbox/suppress", json={"email": EMAIL, "reason": "bounced"})
        assert done.status_code == 200
    outcome = await client.send(Call("trigger", {"trigger_key": "welcome", "to_email": EMAIL}))
    assert (outcome.verdict, outcome.detail) == (Verdict.REFUSED, "suppressed")
    assert (await client.unsubscribed()).emails == [EMAIL]
    with pytest.raises(MeisaRefused, match="422"):
        await client.enroll({"email": EMAIL, "sequence_slug": "onboarding"})
