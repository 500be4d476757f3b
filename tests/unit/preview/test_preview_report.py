"""What a preview's report says, on a terminal and on a page: bounded, masked, escaped, and the same everywhere."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bridge.preview.page import page
from bridge.preview.report import at_quota_seconds, percentile
from bridge.preview.text import WIDTH, duration, lines, text
from tests.support.previews import event, rehearsed, reported, settings

RULES = """\
rules:
  - name: signup
    match: user.signed_up
    do:
      - upsert: {email: "${data.email}", external_id: "${data.id}", first_name: "${data.name}"}
      - trigger: {trigger_key: welcome, to_email: "${data.email}", variables: {name: "${data.name}"}}
  - name: plan
    match: plan.changed
    do:
      - upsert: {external_id: "${data.id}", email: "${data.email}", custom_fields: {plan: "${data.plan}"}}
  - name: moment
    match: moment
    do:
      - track: {external_id: "${data.id}", event_name: "${data.name}"}
  - name: never
    match: nothing.ever
    do:
      - upsert: {email: "${data.email}"}
"""
ANN = "ann@example.com"
EVIL = "<script>alert('&\"')</script>"


def story_events() -> list[Any]:
    """Ann's id stands before the event that ties it to her address; then she changes it."""
    return [
        event("moment", 0, id="7", name="first"),
        event("user.signed_up", 5, email=ANN, id="7", name="Ann"),
        event("user.signed_up", 6, email="bob@example.com", id="8", name=EVIL),
        *(event("plan.changed", 7, email=ANN, id="7", plan=f"p{n}") for n in range(20)),
        event("plan.changed", 60, email="ann@new.example", id="7", plan="pro"),
        event("moment", 120, id="7"),
        b"broken",
    ]


def made(tmp_path: Path, events: list[Any], **options: Any) -> Any:
    config = settings(tmp_path, RULES)
    shown = options.pop("show_contacts", False)
    return reported(config, rehearsed(config, events, **options), show_contacts=shown)


def test_the_report_is_plain_json_and_adds_up(tmp_path: Path) -> None:
    """What programs read: every number of the sections fits the others."""
    report = json.loads(json.dumps(made(tmp_path, story_events())))
    assert report["version"] == 1
    assert sum(report["events"]["outcomes"].values()) == report["events"]["read"] == 26
    assert sum(report["calls"]["by_endpoint"].values()) == report["calls"]["total"]
    assert sum(report["saved"]["by_cause"].values()) == report["saved"]["total"]
    assert sum(each["count"] for each in report["dead_letters"]["by"]) == report["dead_letters"]["total"]
    points = report["course"]["points"]
    assert sum(point["arrived"] for point in points) == 26
    assert points[-1]["waiting"] == 0
    assert [each["name"] for each in report["rules"]] == ["signup", "plan", "moment", "never"]


def test_the_shape_is_the_documented_one(tmp_path: Path) -> None:
    """docs/preview.md names every key of the top level and of the sections that programs use most."""
    report = made(tmp_path, story_events(), contact=ANN)
    told = (Path(__file__).parents[3] / "docs" / "preview.md").read_text(encoding="utf-8")
    for name in report:
        assert f"`{name}`" in told, name
    for section in ("events", "actions", "calls", "saved", "time", "email", "dead_letters", "contact"):
        for name in report[section]:
            assert f"`{name}`" in told, f"{section}.{name}"
    jsonschema.validate(report["samples"], {"type": "array", "items": {"required": ["endpoint", "body", "events"]}})


def test_addresses_are_masked_unless_asked_for(tmp_path: Path) -> None:
    """In samples, letters and notes; names and ids stay, as in the service's logs."""
    masked = made(tmp_path, story_events())
    for shown in (json.dumps(masked), lines(text(masked)), page(masked)):
        assert "bob@example.com" not in shown
        assert ANN not in shown
    assert ANN in json.dumps(made(tmp_path, story_events(), show_contacts=True)["samples"])


def test_one_contacts_story_in_order(tmp_path: Path) -> None:
    """Each event under whatever name, what became of its actions, and the call that carried them, with its body."""
    contact = made(tmp_path, story_events(), contact=" Ann@Example.com ")["contact"]
    assert contact["names"] == ["e:ann@example.com", "e:ann@new.example", "x:7"]
    assert [each["type"] for each in contact["events"]] == ["moment", "user.signed_up", *["plan.changed"] * 21]
    assert [each["line"] for each in contact["events"][:2]] == [1, 2]
    signed = contact["events"][1]
    assert [(each["kind"], each["what"], each["ending"]) for each in signed["actions"]] == [
        ("upsert", "", "delivered"),
        ("trigger", "welcome", "delivered"),
    ]
    calls = {call["number"]: call for call in contact["calls"]}
    email = calls[signed["actions"][1]["calls"][0]]
    assert (email["endpoint"], email["body"]["to_email"], email["body"]["variables"]) == (
        "trigger",
        ANN,
        {"name": "Ann"},
    )
    merged = max(contact["calls"], key=lambda call: len(call["places"]))
    assert len(merged["places"]) > 10
    assert merged["body"]["custom_fields"] == {"plan": "p19"}
    assert all(action["calls"] for each in contact["events"][1:] for action in each["actions"])
    moments = [call["at_seconds"] for call in contact["calls"]]
    assert moments == sorted(moments)
    assert not any("bob" in json.dumps(call["body"]) for call in contact["calls"])


def test_the_story_of_nobody(tmp_path: Path) -> None:
    """An address without events is told so, everywhere."""
    report = made(tmp_path, story_events(), contact="nobody@example.com")
    assert "no event makes an action for this contact" in lines(text(report))
    assert "No event makes an action" in page(report)


@pytest.mark.parametrize("contact", ["", ANN])
def test_the_terminal_view_fits_80_columns(tmp_path: Path, contact: str) -> None:
    """No line is longer, whatever events and rules are called."""
    long = event("user." + "x" * 200, 3, email="a" * 100 + "@example.com")
    told = list(text(made(tmp_path, [*story_events(), long], contact=contact)))
    assert max(map(len, told)) <= WIDTH
    shown = lines(told)
    assert "nothing was sent" in shown
    assert "matched no event: never" in shown
    assert "line 26" in shown, "the broken line"


class Page(HTMLParser):
    """Every tag and every address that a page names."""

    def __init__(self, of: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.feed(of)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [str(value) for name, value in attrs if name in ("src", "href", "action")]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_and_runs_nothing(tmp_path: Path) -> None:
    """No script, no link, no other host; a policy forbids both; content of events is text, never markup."""
    report = made(tmp_path, [*story_events(), event(EVIL, 200, email=ANN, id="7")], contact=ANN)
    shown = page(report)
    found = Page(shown)
    assert not found.open
    assert found.tags <= {
        *("html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "p", "code", "div", "span", "b", "ul"),
        *("ol", "li", "svg", "line", "rect", "polyline", "text", "section", "table", "tr", "th", "td"),
        *("details", "summary", "pre"),
    }
    assert found.addresses == []
    assert "default-src 'none'" in shown
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown
    assert "http" not in shown.replace("http-equiv", "")


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0 s"),
        (0.0504, "50 ms"),
        (59.4, "59 s"),
        (61, "1m 01s"),
        (3599.9, "1h 00m"),
        (7384, "2h 03m"),
        (90_000, "1d 01h"),
        (86_400 * 400, "400d 00h"),
    ],
)
def test_durations_are_short(seconds: float, told: str) -> None:
    """Two units at most."""
    assert duration(seconds) == told


def test_percentiles_and_the_quota() -> None:
    """The smallest value that so large a share does not exceed; and the slower of the two limits."""
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0
    assert percentile([1.0], 0.99) == 1.0
    assert at_quota_seconds(1000, 60, 1000) == 3600
    assert at_quota_seconds(60, 60, 100_000) == 60
