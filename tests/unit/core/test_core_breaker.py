"""Outage or poison: when an endpoint's work waits, and when it goes on."""

import math

from bridge.core.breaker import Breaker, Reason


def failing(breaker: Breaker, *contacts: str, now: float = 0.0) -> Breaker:
    for contact in contacts:
        breaker.failed(now, contact)
    return breaker


def test_failures_of_several_contacts_in_a_row_open_it() -> None:
    """Five failures, three contacts: an outage."""
    breaker = failing(Breaker(), "a", "b", "c", "a")
    assert not breaker.is_open and breaker.allow(0.0)
    failing(breaker, "b")
    assert breaker.is_open and breaker.reason is Reason.OUTAGE
    assert not breaker.allow(0.5)
    assert breaker.probe_at == 1.0


def test_one_poison_contact_never_opens_it() -> None:
    """However often it fails; nor do two."""
    assert not failing(Breaker(), *["a"] * 500).is_open
    assert not failing(Breaker(), *["a", "b"] * 500).is_open


def test_any_success_between_starts_the_count_anew() -> None:
    """Others' success shows that the endpoint works."""
    breaker = failing(Breaker(), "a", "b", "c", "d")
    breaker.worked()
    assert not failing(breaker, "a", "b", "c", "d").is_open


def test_one_probe_goes_out_and_its_success_closes_it() -> None:
    """Half open: one call at a time."""
    breaker = failing(Breaker(), *"abcde")
    assert breaker.allow(1.0)
    assert not breaker.allow(1.0), "one probe is enough"
    assert breaker.probe_at == math.inf
    breaker.worked()
    assert not breaker.is_open and breaker.allow(1.0)


def test_failed_probes_make_the_waits_longer_up_to_a_minute() -> None:
    """1, 2, 4 … 60 seconds; a success makes it short again."""
    breaker = failing(Breaker(), *"abcde")
    waits = []
    for _ in range(8):
        now = breaker.probe_at
        assert breaker.allow(now)
        breaker.failed(now, "a", probe=True)
        waits.append(breaker.probe_at - now)
    assert waits == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    breaker.worked()
    failing(breaker, *"abcde", now=1000.0)
    assert breaker.probe_at == 1001.0


def test_waits_differ_by_a_quarter_so_that_instances_do_not_probe_in_step() -> None:
    """Randomness comes from outside."""
    assert failing(Breaker(random=lambda: 0.0), *"abcde").probe_at == 0.75
    assert failing(Breaker(random=lambda: 0.999), *"abcde").probe_at < 1.25


def test_late_failures_of_calls_under_way_do_not_prolong_it() -> None:
    """They left before it opened."""
    breaker = failing(Breaker(), *"abcdefghij")
    assert breaker.probe_at == 1.0
    assert breaker.allow(1.0)
    failing(breaker, "k", now=1.5)
    breaker.told_nothing()
    assert not breaker.allow(60.0), "the probe is still under way"


def test_a_probe_that_did_not_leave_or_met_something_else_may_be_repeated() -> None:
    """A withdrawn item, a full quota or a refused key say nothing of the endpoint."""
    breaker = failing(Breaker(), *"abcde")
    assert breaker.allow(1.0)
    breaker.told_nothing(probe=True)
    assert breaker.allow(1.0)


def test_a_missing_scope_holds_the_endpoint_until_a_probe_shows_it_granted() -> None:
    """At once, by one answer: the scope is the key's, not the contact's. A probe every half minute."""
    breaker = Breaker()
    breaker.scope_missing(0.0)
    assert breaker.reason is Reason.SCOPE
    breaker.scope_missing(5.0)
    assert breaker.probe_at == 30.0, "calls that were under way change nothing"
    assert breaker.allow(30.0)
    breaker.scope_missing(31.0, probe=True)
    assert breaker.probe_at == 61.0
    assert breaker.allow(61.0)
    breaker.worked()
    assert breaker.allow(61.0) and breaker.allow(61.0)


def test_a_guardrail_holds_the_endpoint_from_the_third_contact_on() -> None:
    """One contact's guardrail is that contact's; success between starts anew."""
    breaker = Breaker()
    breaker.throttled(0.0, "a", 7.0)
    breaker.throttled(0.0, "a", 7.0)
    breaker.throttled(0.0, "b", 7.0)
    assert not breaker.is_open
    breaker.worked()
    for contact in "ab":
        breaker.throttled(0.0, contact, 7.0)
    assert not breaker.is_open
    breaker.throttled(1.0, "c", 7.0)
    assert breaker.reason is Reason.GUARDRAIL
    assert breaker.probe_at == 8.0
    breaker.throttled(2.0, "d", 7.0)
    assert breaker.probe_at == 8.0, "it left before"
    assert breaker.allow(8.0)
    breaker.throttled(8.0, "d", 3.0, probe=True)
    assert breaker.probe_at == 11.0


def test_a_closed_breaker_has_no_probe() -> None:
    """Nothing to wait for."""
    assert Breaker().probe_at == math.inf
