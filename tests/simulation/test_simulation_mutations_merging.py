"""The ledger must catch an engine that merges upserts wrongly: one mutation per way to do so."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from bridge.core import pending
from bridge.core.pending import Pending
from bridge.model import Kind
from bridge.runtime import delivery
from bridge.runtime.delivery import Delivery
from bridge.runtime.items import Item
from tests.support.amount import THOROUGH, some
from tests.support.simulation.mutations import caught, merging, sharing
from tests.support.simulation.run import simulate
from tests.support.simulation.scenario import Scenario

Patch = pytest.MonkeyPatch
Body = dict[str, Any]


def test_a_merge_over_a_barrier_is_caught(monkeypatch: Patch) -> None:
    """An upsert joins one that waits, though a track of its contact stands between them."""
    admit = Delivery._admit

    def careless(self: Delivery, part: Any) -> Any:
        names = self._ordering.joined(part.action.contact.ordering_keys())
        for ticket in reversed(self._ordering._queues.get(names[0], ())):
            item = ticket.item
            if item.kind is part.action.kind is Kind.UPSERT and not item.leaving and item.pending.takes(part.action):
                self._pending += 1
                self._join(ticket, part, names)
                return None
        return admit(self, part)

    monkeypatch.setattr(Delivery, "_admit", careless)
    caught("2", merging())


def test_a_contribution_that_is_lost_is_caught(monkeypatch: Patch) -> None:
    """A merged call says what the last one said, as if those before it had never been."""
    monkeypatch.setattr(pending, "merged", lambda bodies: list(bodies)[-1])
    caught("2", merging(), "left before")


def test_a_field_that_is_lost_is_caught(monkeypatch: Patch) -> None:
    """Custom fields merge key by key, not as a whole."""
    merged = pending.merged

    def careless(bodies: Iterable[Body]) -> Body:
        each = list(bodies)
        fields = merged(each)["custom_fields"]
        kept = {name: value for name, value in fields.items() if not name.startswith("f")}
        return {**merged(each), "custom_fields": {**kept, **each[-1]["custom_fields"]}}

    monkeypatch.setattr(pending, "merged", careless)
    caught("1", merging(), "is missing")


def test_an_older_value_that_wins_is_caught(monkeypatch: Patch) -> None:
    """Merged in the wrong order, with nothing missing."""
    merged = pending.merged
    monkeypatch.setattr(pending, "merged", lambda bodies: merged(reversed(list(bodies))))
    caught("1", merging(), "is wrong")


def test_a_source_of_the_last_one_is_caught(monkeypatch: Patch) -> None:
    """Meisa keeps the original: it must get the first one's."""
    merged = pending.merged

    def careless(bodies: Iterable[Body]) -> Body:
        each = list(bodies)
        sources = [body["source"] for body in each if "source" in body]
        return {**merged(each), "source": sources[-1]} if sources else merged(each)

    monkeypatch.setattr(pending, "merged", careless)
    caught("1", merging(), "source")


def test_a_lost_tag_is_caught(monkeypatch: Patch) -> None:
    """Tags unite; the last one's are not enough."""
    merged = pending.merged

    def careless(bodies: Iterable[Body]) -> Body:
        each = list(bodies)
        return {**merged(each), "tag_names": each[-1].get("tag_names", [])}

    monkeypatch.setattr(pending, "merged", careless)
    caught("1", merging(), "tags")


def test_a_preserved_value_that_is_merged_away_is_caught(monkeypatch: Patch) -> None:
    """Each value of it must be sent."""
    monkeypatch.setattr(pending, "_same", lambda one, other: True)
    caught("1", merging(), "preserved")


def test_a_merge_of_what_must_stay_alone_is_caught(monkeypatch: Patch) -> None:
    """`coalesce: false`"""
    monkeypatch.setattr(pending, "mergeable", lambda action: action.kind is Kind.UPSERT)
    caught("1", merging(), "coalesce")


def test_an_upsert_that_joins_a_call_under_way_is_caught(monkeypatch: Patch) -> None:
    """It ends with that call, and was never in it."""
    monkeypatch.setattr(Item, "leaving", property(lambda self: False, lambda self, value: None))
    caught("1", slow())


def test_a_refusal_that_buries_all_is_caught(monkeypatch: Patch) -> None:
    """Only the contribution that Meisa refuses may be dead-lettered."""
    monkeypatch.setattr(delivery, "REFUSES_ALL", range(400, 600))
    caught("1", merging(), "without a reason")


def test_a_refused_call_of_which_half_is_forgotten_is_caught(monkeypatch: Patch) -> None:
    """Taken apart, the second half must follow."""
    halve = Pending.halve

    def careless(self: Pending[Any]) -> bool:
        split = halve(self)
        if split:
            del self.groups[1]
        return split

    monkeypatch.setattr(Pending, "halve", careless)
    caught("5", merging())


def test_a_refused_call_that_is_sent_in_the_wrong_order_is_caught(monkeypatch: Patch) -> None:
    """Its halves leave in the order of their contributions."""
    halve = Pending.halve

    def careless(self: Pending[Any]) -> bool:
        split = halve(self)
        if split:
            self.groups[0], self.groups[1] = self.groups[1], self.groups[0]
        return split

    monkeypatch.setattr(Pending, "halve", careless)
    caught("2", merging())


def test_a_revocation_that_drops_the_others_contributions_is_caught(monkeypatch: Patch) -> None:
    """What other partitions have put into the same call stays."""
    withdraw = Delivery.withdraw

    def careless(self: Delivery, partitions: Any) -> None:
        leaving = list(partitions)
        for partition in leaving:
            for item in self._items.get(partition, ()):
                for part in item.pending:
                    part.gone = not item.in_flight
        withdraw(self, leaving)

    monkeypatch.setattr(Delivery, "withdraw", careless)
    caught("5", sharing())


@pytest.mark.slow
def test_a_revocation_that_drops_nothing_is_caught(monkeypatch: Patch) -> None:
    """What was put into a merged call by a partition that went is its new owner's to send."""
    monkeypatch.setattr(Delivery, "withdraw", lambda self, partitions: None)
    caught("", sharing())  # it spins, or it sends what it has given up


def slow() -> list[Scenario]:
    """Upserts come while others of their contact are under way."""
    return [
        Scenario(seed, records=60, contacts=2, horizon=20.0, backlog=0.0, latency=4.0, bursts=True) for seed in range(5)
    ]


@pytest.mark.parametrize("family", [merging, sharing, slow])
def test_merging_as_it_is_holds_in_these_scenarios(family: Callable[[], list[Scenario]]) -> None:
    """Else a mutation would be caught for another reason; and calls do merge in them."""
    merged = 0
    for scenario in some(family()):
        report = simulate(scenario)
        assert report.broken is None, f"{scenario}\n{report.story()}"
        merged += report.merged
    assert merged > (50 if THOROUGH else 5)
