"""The page's sections: what a person needs to see, and nothing of what hostile names want a browser to do."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bridge.observe.history import EVERY_SECONDS, History, moment_of
from bridge.observe.snapshot import (
    BreakerState,
    LaneDelay,
    LaneState,
    PartitionState,
    QuotaState,
    RulesState,
    RuleUse,
    SlowContact,
    Snapshot,
    Traffic,
    WaitState,
)
from bridge.web import page, plots
from bridge.web.sections import LANES, ROWS_MAX, TITLES

AT = 1_795_341_317.0
EVIL = """</table><script>alert(1)</script>"onmouseover='x'&amp;"""
SNAPSHOT = Snapshot(
    version="0.1.0",
    started_at_wall_seconds=AT - 3660,
    taken_at_wall_seconds=AT,
    in_group=True,
    group_state="member",
    partitions=(PartitionState("users", 0, epoch=2, frontier=41_000, lag=9, window=5),),
    quota=(QuotaState("default", "minute", used=12, limit=60), QuotaState("default", "hour", used=40, limit=1000)),
    pending=(LaneState("sync", contacts=3, events=8),),
    totals={"delivered": 1234, "merged": 77},
    calls_saved={"unchanged": 55},
    dead_letters={"rejected": 2},
    rules=RulesState("abc123", rules=2, handlers=1, loaded_at_wall_seconds=AT - 60),
    traffic=Traffic(
        consumed=5_000,
        calls={"200": 321, "503": 4},
        delays=(LaneDelay("transactional", 100, 50.0, ((0.25, 10), (0.5, 60), (1.0, 96))), LaneDelay("bulk", 0, 0.0)),
    ),
    rule_uses=(RuleUse("idle"), RuleUse("signup", 900, 2, "anna@example.com has no plan", AT - 30)),
)
SLOWEST = (
    SlowContact("anna@example.com", 75.0, "upsert", "next", "users", 0, 41_000),
    SlowContact("customer-7", 60.0, "track", "in flight", "users", 0, 41_001),
)


def parts(
    snapshot: Snapshot = SNAPSHOT, history: History | None = None, *, show_contacts: bool = False
) -> dict[str, str]:
    slowest = [SlowContact(EVIL, 1.0, EVIL, EVIL, EVIL, 0, 0)] if snapshot.version == EVIL else SLOWEST
    return page.parts(snapshot, history or History(), slowest, show_contacts=show_contacts)


def words(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", html))


def test_flow_tells_totals_and_what_happens_per_minute() -> None:
    """In, out, and what needed no call; the rate is that of the last minute."""
    history = History()
    history.take(replace(SNAPSHOT, taken_at_wall_seconds=AT - 60, traffic=Traffic(consumed=4_400, calls={"200": 25})))
    flow = words(parts(history=history)["flow"])
    assert "events in 5,000 600" in flow
    assert "calls out 325 300" in flow
    assert "events merged 77 0" in flow and "events lazy 0 0" in flow and "events dead-lettered 0 0" in flow
    assert "calls saved: unchanged 55" in flow
    assert "503 4" in flow


def test_what_is_slow_is_named_with_contacts_masked() -> None:
    """Ids that are no addresses too; `admin.show_contacts` shows both."""
    hidden, shown = words(parts()["slowest"]), words(parts(show_contacts=True)["slowest"])
    assert "a***@example.com 1 min 15 s upsert next users/0/41000" in hidden
    assert "c*** 1 min 0 s track in flight users/0/41001" in hidden
    assert "anna@example.com" in shown and "customer-7" in shown
    assert "anna" not in "".join(parts().values())


def test_rules_tell_their_use_their_last_error_and_the_version() -> None:
    rules = words(parts()["rules"])
    assert "Version abc123: 2 rules and 1 handlers, in force since" in rules
    assert rules.index("signup 900 2 a***@example.com has no plan 30 s ago") < rules.index("idle 0 0")


def test_letters_come_with_the_page_and_the_command_that_look_at_them() -> None:
    letters = parts()["letters"]
    assert "rejected 2 look, replay meisa-bridge dlq list --kind rejected" in words(letters)
    assert 'href="/dead-letters?kind=rejected"' in letters and 'href="/dead-letters"' in letters


def test_delays_are_told_per_lane() -> None:
    assert "transactional 100 500 ms within 500 ms within 1.0 s" in words(parts()["delay"])
    late = Traffic(delays=(LaneDelay("bulk", 10, 1e6, ((86_400.0, 5),)),))
    assert "within 1 d 0 h over a day" in words(parts(replace(SNAPSHOT, traffic=late))["delay"])


def test_waiting_tells_why_and_until_when() -> None:
    waiting = (WaitState("quota", 120, "default", until_wall_seconds=AT + 43), WaitState("commits", 0))
    found = words(parts(replace(SNAPSHOT, waiting_for=waiting))["waiting"])
    assert "quota 120 the windows of the quota are used up" in found
    assert "09:56:00Z (in 43 s) default" in found
    assert "Kafka acknowledges no commit not known" in found


@pytest.mark.parametrize(
    ("change", "state", "says"),
    [
        ({}, "good", "Ready"),
        ({"refused_keys": ("default",)}, "bad", "Not ready: Meisa refuses the API key"),
        ({"stopped_topics": ("users",)}, "soon", "Topic users is stopped"),
        ({"breakers": (BreakerState("track", True, AT, "outage: 503"),)}, "soon", "Endpoint track is held back"),
        (
            {"rules": RulesState("abc", 1, 0, AT, problem="rules/a.yaml:3: no")},
            "soon",
            "the rules of before stay in force: rules/a.yaml:3: no",
        ),
        (
            {"partitions": (PartitionState("users", 0, 1, 7, stalled_seconds=70.0, stalled_because=("quota",)),)},
            "soon",
            "users/0 stands still at offset 7, waiting for: quota",
        ),
        (
            {"partitions": (PartitionState("users", 0, 1, 7, retention_seconds=600.0),)},
            "soon",
            "retention soon lets the broker delete",
        ),
    ],
)
def test_the_verdict_says_what_needs_somebody(change: dict[str, object], state: str, says: str) -> None:
    verdict = parts(replace(SNAPSHOT, **change))["verdict"]  # type: ignore[arg-type]
    assert f'class="verdict {state}"' in verdict
    assert says in words(verdict)


def test_the_verdict_does_not_change_while_nothing_does() -> None:
    """It is read aloud at each change: a time that runs in it would never let a screen reader rest."""
    broken = replace(
        SNAPSHOT,
        stopped_topics=("users",),
        breakers=(BreakerState("track", True, AT - 5, "outage"),),
        partitions=(PartitionState("users", 0, 1, 7, oldest_wait_seconds=70.0, stalled_seconds=70.0),),
    )
    later = replace(
        broken,
        taken_at_wall_seconds=AT + 7,
        partitions=(PartitionState("users", 0, 1, 7, oldest_wait_seconds=77.0, stalled_seconds=77.0),),
    )
    assert parts(broken)["verdict"] == parts(later)["verdict"]


def test_many_partitions_and_rules_are_cut_and_it_is_said() -> None:
    many = replace(
        SNAPSHOT,
        partitions=tuple(PartitionState("users", number, 1, 0, lag=number) for number in range(ROWS_MAX + 50)),
        rule_uses=tuple(RuleUse(f"rule-{number}", number) for number in range(ROWS_MAX + 1)),
    )
    found = parts(many)
    assert found["partitions"].count("<tr>") == ROWS_MAX + 1
    assert f"The {ROWS_MAX} with the most lag of {ROWS_MAX + 50}" in found["partitions"]
    assert f"users/{ROWS_MAX + 49}" in found["partitions"] and "users/0<" not in found["partitions"]
    assert "rule-0<" not in found["rules"] and f"{ROWS_MAX} of {ROWS_MAX + 1}" in found["rules"]


# What names may hold


def hostile() -> Snapshot:
    return Snapshot(
        version=EVIL,
        started_at_wall_seconds=AT,
        taken_at_wall_seconds=AT,
        group_state=EVIL,
        refused_keys=(EVIL,),
        partitions=(
            PartitionState(EVIL, 0, 1, 1, retention_seconds=1.0, stalled_seconds=1.0, stalled_because=(EVIL,)),
        ),
        quota=(QuotaState(EVIL, EVIL, 1, 2),),
        pending=(LaneState(EVIL, 1, 1),),
        waiting_for=(WaitState(EVIL, 1, EVIL),),
        breakers=(BreakerState(EVIL, True, AT, EVIL),),
        stopped_topics=(EVIL,),
        totals={EVIL: 1},
        calls_saved={EVIL: 1},
        dead_letters={EVIL: 1},
        rules=RulesState(EVIL, 1, 1, AT, EVIL),
        traffic=Traffic(1, {EVIL: 1}, (LaneDelay(EVIL, 1, 1.0),)),
        rule_uses=(RuleUse(EVIL, 1, 1, EVIL, AT),),
    )


class Elements(HTMLParser):
    """Which elements and attributes a browser would make of the page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.ids += [value or "" for name, value in attrs if name == "id"]


@pytest.mark.parametrize("show_contacts", [True, False])
def test_hostile_names_stay_text_wherever_they_stand(show_contacts: bool) -> None:
    """One script, ours; no handler, no style of an element: what the policy would stop is not there either."""
    elements = Elements()
    elements.feed(page.as_html(parts(hostile(), show_contacts=show_contacts)))
    assert elements.tags.count("script") == 1
    assert {name for name in elements.attributes if name.startswith("on") or name == "style"} == set()
    assert elements.tags.count("table") == elements.tags.count("caption") > 8
    assert len(elements.ids) == len(set(elements.ids))
    for name in TITLES:
        assert name in elements.ids, "the stream's sections have their places"


def test_every_text_of_a_snapshot_was_hostile_in_this_test() -> None:
    """Else a field that is added later is not tried."""
    plain = hostile()
    harmless = {"started_at_wall_seconds", "taken_at_wall_seconds", "in_group", "in_flight", "topics"}
    harmless |= {"suppressed_addresses", "lazy_contacts", "dedupe_ids"}
    assert {each.name for each in fields(plain) if EVIL not in _texts(getattr(plain, each.name))} == harmless


def _texts(value: object) -> str:
    return str(value).replace("\\'", "'").replace('\\"', '"')


def test_sections_are_well_formed() -> None:
    """Every element is closed: one that is not would swallow the sections behind it."""
    for snapshot in (SNAPSHOT, hostile(), Snapshot("0.1.0", 1.0, 2.0)):
        for html in parts(snapshot).values():
            assert ElementTree.fromstring(f"<section>{html}</section>").tag == "section"


# Plots


def filled(count: int = 400) -> History:
    history = History()
    for step in range(count):
        seconds = AT - (count - step) * EVERY_SECONDS
        delays = (LaneDelay("sync", step, step * 30.0), LaneDelay("transactional", step // 50, step / 100))
        quota = (QuotaState("default", "minute", step % 60, 60), QuotaState("default", "hour", step, 1000))
        traffic = Traffic(step * 7, {"200": step * 3}, delays)
        history.take(replace(SNAPSHOT, taken_at_wall_seconds=seconds, traffic=traffic, quota=quota))
    return history


def test_plots_draw_the_last_hour_inside_of_their_frame() -> None:
    """Whatever was before it: every point lies within, from the left to the right."""
    found = parts(history=filled())
    for name, lines in (("flow", 2), ("quota", 2), ("delay", 1)):
        drawn = re.findall(r'class="line \w+" d="(M[^"]*L[^"]*)"', found[name])
        assert len(drawn) >= lines, name
        for path in drawn:
            points = [tuple(map(float, each)) for each in re.findall(r"[ML]([\d.]+) ([\d.e-]+)", path)]
            assert all(0 <= x <= plots.WIDTH and 0 <= y <= plots.HEIGHT for x, y in points), name
            assert [x for x, _ in points] == sorted(x for x, _ in points)
        assert 'role="img" aria-label="' in found[name]


def test_where_nothing_was_delivered_nothing_is_drawn() -> None:
    """A line through a pause would claim deliveries; a single one is a dot."""
    points = plots.delays(filled().until(moment_of(SNAPSHOT)), LANES)
    assert all(height is None for _, height in points["bulk"])
    assert 0 < sum(height is not None for _, height in points["transactional"]) < 20
    assert plots._path([(0.0, None), (10.0, 0.5), (20.0, None)]).endswith("h0")


def test_the_scale_of_delays_goes_through_its_labels() -> None:
    heights = [plots.delay_height(seconds) for seconds, _ in plots.DELAY_TICKS]
    assert heights == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0])
    assert plots.delay_height(0.0) == 0.0 and plots.delay_height(1e9) == 1.0


def test_without_history_the_page_is_there() -> None:
    """The first second of a process has one moment and no rate."""
    assert "None yet" not in words(parts()["flow"])
    assert "not known yet" in words(parts(replace(SNAPSHOT, partitions=(PartitionState("u", 0, 1, 1),)))["summary"])


def test_the_page_needs_nothing_from_elsewhere_and_refreshes_without_javascript() -> None:
    whole = page.as_html(parts())
    room = Path(page.__file__).parent
    for source in (whole, (room / "dashboard.css").read_text(), (room / "dashboard.js").read_text()):
        assert not re.search(r"(?:https?:)?//(?!www\.w3\.org)[\w-]+\.\w", source)
    assert '<noscript><meta http-equiv="refresh" content="5"></noscript>' in whole
    assert "prefers-color-scheme: dark" in page.static("dashboard.css")


def brightness(colour: str) -> float:
    """Relative luminance as WCAG 2.2 has it."""
    digits = colour.lstrip("#")
    digits = "".join(each * 2 for each in digits) if len(digits) == 3 else digits
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_words_can_be_read_in_both_schemes() -> None:
    """Contrast as WCAG 2.2 AA asks for: 4.5 for text, 3 for what plots draw, on both backgrounds."""
    style = page.static("dashboard.css")
    schemes = re.findall(r":root \{([^}]*)\}", style)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+): (#\w+);", scheme))
        for back in ("back", "panel"):
            for name, least in [
                *((name, 4.5) for name in ("text", "quiet", "link", "good", "soon", "bad")),
                *((name, 3.0) for name in ("first", "second", "third")),
            ]:
                low, high = sorted((brightness(colours[name]), brightness(colours[back])))
                assert (high + 0.05) / (low + 0.05) >= least, (name, back)
