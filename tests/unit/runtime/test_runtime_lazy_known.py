"""Lazy fields beside state that Meisa is known to hold: an event says all it knows, and only a log-in is new."""

import asyncio
from typing import Any

from bridge.model import Call, Ending, Outcome, Record
from bridge.runtime.unchanged import Unchanged
from tests.support.engine import P0, House
from tests.support.fakes import DELIVERED, FakeMeisa
from tests.support.lazy import (
    DAY,
    NO_CONTACT,
    bridge,
    fields,
    record,
    said,
    settled,
)
from tests.support.virtual import run


class Knowing(FakeMeisa):
    """Answers an upsert with the whole contact; `gone` contacts are not known to a track."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.contacts: dict[str, dict[str, Any]] = {}
        self.gone: set[str] = set()

    def _answer(self, call: Call) -> Outcome:
        body = call.body or {}
        if call.endpoint == "track" and body["email"] in self.gone:
            return NO_CONTACT
        if call.endpoint == "upsert":
            self.gone.discard(body["email"])
            self.contacts.setdefault(body["email"], {}).update(fields(call))
            data = {"email": body["email"], "custom_fields": dict(self.contacts[body["email"]]), "tags": []}
            return DELIVERED._replace(data=data)
        return DELIVERED


def knowing(**options: Any) -> House:
    return bridge(meisa=Knowing(), unchanged=lambda clock: Unchanged(clock=clock, topics=[P0.topic]), **options)


def profile(offset: int, plan: str, **data: Any) -> Record:
    """What a producer sends that says all it knows with each event."""
    return record(offset, fields={"plan": plan, "seen": offset}, **data)._replace(key=b"person")


def test_a_field_that_is_lazy_no_more_since_the_rules_changed_is_sent() -> None:
    """Though it stands in one call with an event that was planned when it was lazy."""

    async def story() -> None:
        house = knowing()
        house.source.assign(P0)
        house.source.feed([profile(0, "free")])
        await settled(house)
        house.delivery.hold()
        house.source.feed([record(1, do=["track"]), profile(2, "free"), profile(3, "free", lazy=["custom_fields.x"])])
        house.delivery.open()
        await settled(house)
        assert said(house)[1:] == [{"track": "track1"}, {"plan": "free", "seen": 3}]

    run(story())


def test_a_change_only_in_lazy_fields_is_lazy_though_the_event_says_more() -> None:
    """The plan is what Meisa has, so nothing but `seen` changes; another plan is sent, and takes `seen` along."""

    async def story() -> None:
        house = knowing()
        house.source.assign(P0)
        for offset, name in enumerate(["free", "free", "free", "pro", "pro"]):
            house.source.feed([profile(offset, name)])
            await settled(house)
        assert said(house) == [{"plan": "free", "seen": 0}, {"plan": "pro", "seen": 3}]
        assert house.endings() == {Ending.DELIVERED: 2, Ending.LAZY: 3}
        assert house.source.committed == {P0: 5}
        await settled(house, DAY)
        assert said(house)[2:] == [{"seen": 4}]
        assert house.meter.counts["saved", "lazy"] == 2

    run(story())


def test_what_waits_counts_as_it_will_be_not_as_meisa_has_it_now() -> None:
    """A change to pro waits when an event says free again, as Meisa has it: both are sent, merged or one by one."""

    async def story() -> None:
        house = knowing(limits=[(1, 30.0)])
        house.source.assign(P0)
        house.source.feed([profile(0, "free")])
        await settled(house, 40)
        house.source.feed([profile(1, "pro", do=["upsert", "track"]), profile(2, "free", do=["upsert", "track"])])
        await settled(house, 600)
        assert [each.get("plan") for each in said(house)] == ["free", "pro", None, "free", None]

    run(story())


def test_events_that_waited_together_are_lazy_together() -> None:
    """Two that merged while an older call was under way: nothing but `seen` is left to say."""

    async def story() -> None:
        house = knowing()
        house.source.assign(P0)
        house.source.feed([profile(0, "free")])
        await asyncio.sleep(0.03)
        house.source.feed([profile(1, "free"), profile(2, "free")])
        await settled(house)
        assert said(house) == [{"plan": "free", "seen": 0}]
        assert house.endings() == {Ending.DELIVERED: 1, Ending.LAZY: 2}
        assert house.source.committed == {P0: 3}

    run(story())


def test_unchanged_state_settles_what_was_kept_before() -> None:
    """`seen` is back at what Meisa has: the value in between, older than that, must not go out a day later."""

    async def story() -> None:
        house = knowing()
        house.source.assign(P0)
        house.source.feed([record(0, fields={"seen": "x"})])
        await settled(house)
        house.source.feed([record(1, fields={"seen": "y"})])
        await settled(house)
        house.source.feed([record(2, fields={"seen": "x"}, coalesce=False)._replace(key=b"person")])
        await settled(house)
        assert house.endings() == {Ending.DELIVERED: 1, Ending.LAZY: 1, Ending.UNCHANGED: 1}
        await settled(house, 3 * DAY)
        assert said(house) == [{"seen": "x"}]

    run(story())


def test_a_track_learns_that_what_was_believed_is_not_so() -> None:
    """The contact was deleted in Meisa's dashboard: it is made anew with all that the event says."""

    async def story() -> None:
        house = knowing()
        house.source.assign(P0)
        house.source.feed([profile(0, "free")])
        await settled(house)
        assert isinstance(house.meisa, Knowing)
        house.meisa.gone.add("a@x")
        house.source.feed([profile(1, "free", do=["upsert", "track"])])
        await settled(house, 5)
        assert {"plan": "free", "seen": 1} in said(house)
        assert [call.endpoint for call in house.meisa.calls][-1] == "track" or said(house)[-1] == {"seen": 1}
        assert not house.letters.letters

    run(story())
