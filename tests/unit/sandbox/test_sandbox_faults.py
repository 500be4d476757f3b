"""Faults: rates from a seed, and rules by endpoint and contact."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import orjson
import pytest

from bridge.sandbox.api import BASE_PATH, Reply, Request, Sandbox
from bridge.sandbox.faults import Faults, Rates, Rule
from bridge.sandbox.options import SandboxOptions

NOW = 1_800_000_000.0


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox(SandboxOptions(seed=1, per_minute=0, per_hour=0))


def post(sandbox: Sandbox, path: str, **body: Any) -> Reply:
    headers = {"x-api-key": "meisa_test_sandbox"}
    return sandbox.handle(Request("POST", BASE_PATH + path, "", headers, orjson.dumps(body)), NOW)


def upsert(sandbox: Sandbox, email: str = "a@example.com", **body: Any) -> Reply:
    return post(sandbox, "/contacts/upsert/", email=email, **body)


def rule(sandbox: Sandbox, **body: Any) -> None:
    sandbox.faults.add([Rule.parse(body)])


def test_the_next_calls_of_a_contact_fail_and_then_work(sandbox: Sandbox) -> None:
    """Three 503 for that contact alone, nothing carried out, then as before."""
    rule(sandbox, contact="a@example.com", status=503, times=3)
    assert upsert(sandbox, "b@example.com").status == 201
    assert [upsert(sandbox).status for _ in range(5)] == [503, 503, 503, 201, 200]
    assert not sandbox.faults.rules
    assert sandbox.ledger.counts["fault.rule"] == 3


def test_a_poison_contact_is_refused_for_ever(sandbox: Sandbox) -> None:
    rule(sandbox, contact="*@poison.example", status=400, message="Bad contact.")
    replies = [upsert(sandbox, "X@Poison.example") for _ in range(4)]
    assert {reply.status for reply in replies} == {400}
    assert orjson.loads(replies[0].body)["error"]["message"] == "Bad contact."
    assert upsert(sandbox).status == 201


def test_rules_choose_by_endpoint_key_and_skip(sandbox: Sandbox) -> None:
    rule(sandbox, endpoint="trigger", status=429, retry_after="7", skip=1, times=1)
    rule(sandbox, key="meisa_live_sandbox", status=500)
    assert upsert(sandbox).status == 201
    sends = [post(sandbox, "/emails/trigger/", trigger_key="k", to_email="a@example.com") for _ in range(3)]
    assert [reply.status for reply in sends] == [200, 429, 200]
    assert dict(sends[1].headers)["retry-after"] == "7"


@pytest.mark.parametrize("how", ["external_id", "tag", "query"])
def test_a_contact_is_recognised_however_the_call_names_it(sandbox: Sandbox, how: str) -> None:
    contact_id = orjson.loads(upsert(sandbox, external_id="7").body)["id"]
    rule(sandbox, contact="a@example.com", status=500)
    if how == "external_id":
        reply = post(sandbox, "/events/track/", event_name="e", external_id="7")
    elif how == "tag":
        reply = post(sandbox, f"/contacts/{contact_id}/add_tag/", tag_name="t")
    else:
        headers = {"x-api-key": "meisa_test_sandbox"}
        path = BASE_PATH + "/sequences/api/contact-enrollments/"
        reply = sandbox.handle(Request("GET", path, "email=a@example.com", headers), NOW)
    assert reply.status == 500


@pytest.mark.parametrize(
    ("fault", "carried_out"),
    [
        ({"cut": "before"}, False),
        ({"cut": "after"}, True),
        ({"cut": "half"}, True),
        ({"hang": "before"}, False),
        ({"hang": "after"}, True),
        ({"status": 502}, False),
        ({"status": 502, "carry_out": True}, True),
        ({"latency_ms": 250}, True),
    ],
)
def test_each_fault_carries_out_what_it_says(sandbox: Sandbox, fault: dict[str, Any], carried_out: bool) -> None:
    """The ledger and the world agree about it."""
    rule(sandbox, **fault)
    reply = upsert(sandbox)
    assert reply.entry is not None
    assert reply.entry.carried_out is carried_out
    assert bool(sandbox.worlds["test"].contacts.by_id) is carried_out
    assert reply.cut == fault.get("cut", "")
    assert (reply.hang_seconds > 0) is ("hang" in fault)
    assert reply.delay_seconds == fault.get("latency_ms", 0) / 1000
    assert reply.status == fault.get("status", 201 if carried_out else 0)


@pytest.mark.parametrize(
    ("name", "statuses", "carried_out"),
    [
        ("error_rate", {500, 502, 503}, False),
        ("error_after_rate", {500, 502, 503}, True),
        ("throttle_rate", {429}, False),
        ("guardrail_rate", {429}, False),
        ("cut_rate", {200}, True),
        ("cut_before_rate", {0}, False),
        ("hang_rate", {0}, False),
    ],
)
def test_each_rate_of_one_hits_every_call(name: str, statuses: set[int], carried_out: bool) -> None:
    sandbox = Sandbox(SandboxOptions(seed=1, per_minute=0, per_hour=0, **{name: 1.0}))
    replies = [post(sandbox, "/emails/trigger/", trigger_key="k", to_email="a@example.com") for _ in range(40)]
    assert {reply.status for reply in replies} == statuses
    assert sandbox.worlds["test"].emails.total == (40 if carried_out else 0)
    if name == "guardrail_rate":
        assert upsert(sandbox).status == 201


def test_rates_are_shares_of_all_calls() -> None:
    """Each fault comes about as often as told, whatever the others' rates."""
    faults = Faults(Rates(error_rate=0.1, throttle_rate=0.2, cut_rate=0.3), random.Random(5))
    drawn = Counter(fault.name if fault else "" for fault in (faults.decide("upsert", (), "k") for _ in range(20_000)))
    assert {name: round(count / 20_000, 1) for name, count in drawn.items()} == {
        "error": 0.1,
        "throttle": 0.2,
        "cut_after": 0.3,
        "": 0.4,
    }


def test_latency_varies_around_its_middle_and_is_never_negative() -> None:
    faults = Faults(Rates(latency_ms=50, jitter_ms=20), random.Random(5))
    delays = [faults.latency_seconds() for _ in range(1000)]
    assert 0.03 <= min(delays) < 0.032
    assert 0.068 < max(delays) <= 0.07
    rough = Faults(Rates(latency_ms=1, jitter_ms=50), random.Random(5))
    assert min(rough.latency_seconds() for _ in range(200)) == 0


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({}, "needs"),
        ({"status": 200}, "between"),
        ({"status": 503, "cut": "after"}, "one of"),
        ({"cut": "never"}, "cut"),
        ({"status": True}, "status"),
        ({"status": 503, "times": 0}, "times"),
        ({"status": 503, "skip": -1}, "skip"),
        ({"status": 503, "retry_after": "5\r\nx: y"}, "printable"),
        ({"status": 503, "contcat": "a"}, "contcat"),
        ({"status": 503, "hits": 3}, "hits"),
    ],
)
def test_a_rule_that_means_nothing_is_refused(body: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Rule.parse(body)


@pytest.mark.parametrize("rates", [{"error_rate": 1.1}, {"latency_ms": -1}, {"error_rate": 0.6, "cut_rate": 0.5}])
def test_rates_that_cannot_be_are_refused(rates: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"rate|latency"):
        Faults(Rates(**rates), random.Random(1))


def test_clearing_ends_all_faults(sandbox: Sandbox) -> None:
    rule(sandbox, status=503)
    sandbox.faults.rates = Rates(error_rate=1.0, latency_ms=5)
    sandbox.faults.changed()
    sandbox.faults.clear()
    reply = upsert(sandbox)
    assert (reply.status, reply.delay_seconds) == (201, 0)
