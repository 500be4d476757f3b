"""The dashboard in a real browser: it lives, is read and used by everybody, and runs nobody's script but its own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from bridge.observe.metrics import Metrics
from bridge.observe.snapshot import (
    LaneState,
    PartitionState,
    QuotaState,
    RulesState,
    RuleUse,
    Snapshot,
    Traffic,
    WaitState,
)
from bridge.web import AdminServer
from tests.support.browser import browser

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

# One loop for all, so that they share one browser: it takes seconds to start.
pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

AT = 1_795_341_317.0
EVIL = """</div></table><script>window.evil=1</script><img src=x onerror="window.evil=2">"'"""
SNAPSHOT = Snapshot(
    version="0.1.0",
    started_at_wall_seconds=AT - 3660,
    taken_at_wall_seconds=AT,
    in_group=True,
    group_state="member",
    partitions=tuple(
        PartitionState("user-events-with-a-long-name", number, 2, 41_000_000, lag=9, window=5) for number in range(30)
    ),
    quota=(QuotaState("default", "minute", used=12, limit=60), QuotaState("default", "hour", used=40, limit=1000)),
    pending=(LaneState("sync", contacts=3, events=8),),
    waiting_for=(WaitState("retry", 8, "http://" + "x" * 200, until_wall_seconds=AT + 50),),
    totals={"delivered": 1234},
    dead_letters={"rejected": 2},
    rules=RulesState("abc123", rules=2, handlers=0, loaded_at_wall_seconds=AT - 60),
    traffic=Traffic(consumed=5_000, calls={"200": 321}),
    rule_uses=(RuleUse("signup", 900, 2, "a field is missing: " + "data.plan." * 20, AT - 30),),
)


class Desk:
    """An admin server over a state that a test changes, and a page of it."""

    def __init__(self) -> None:
        self.snapshot = SNAPSHOT
        self.resumed: list[str] = []
        self.complaints: list[str] = []
        """What the browser refused or could not do."""
        self.loads = 0
        self.server = self.make("127.0.0.1:0")

    def make(self, listen: str) -> AdminServer:
        return AdminServer(listen, Metrics(), lambda: self.snapshot, resume=self._resume)

    def _resume(self, topic: str) -> bool:
        self.resumed.append(topic)
        self.snapshot = replace(self.snapshot, stopped_topics=())
        return True

    def watch(self, page: Page) -> None:
        page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("load", lambda _: setattr(self, "loads", self.loads + 1))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    async with browser() as started:
        yield started


@asynccontextmanager
async def opened(chromium: Browser, desk: Desk, **context: Any) -> AsyncIterator[Page]:
    """The dashboard as a browser shows it that knows nothing yet; its server runs as long as the page."""
    await desk.server.start()
    fresh = await chromium.new_context(**context)
    try:
        page = await fresh.new_page()
        desk.watch(page)
        await page.goto(desk.server.url)
        yield page
    finally:
        await fresh.close()
        await desk.server.stop()


async def consumed(page: Page, count: str) -> None:
    """Waits until the page shows so many events in."""
    await page.get_by_role("row", name=re.compile(f"^events in {count}")).wait_for(timeout=10_000)


async def test_numbers_change_in_place_until_it_is_paused(chromium: Browser) -> None:
    """Without a load of the page; a pause holds them still, and its end shows what came meanwhile."""
    desk = Desk()
    async with opened(chromium, desk) as page:
        await page.get_by_text("live", exact=True).wait_for(timeout=10_000)
        await consumed(page, "5,000")
        desk.snapshot = replace(SNAPSHOT, traffic=Traffic(consumed=6_000))
        await consumed(page, "6,000")
        pause = page.get_by_role("button", name="Pause")
        await pause.focus()
        await page.keyboard.press("Enter")
        assert await pause.get_attribute("aria-pressed") == "true"
        async with page.expect_event("console", lambda message: message.text == "came", timeout=10_000):
            await page.evaluate(
                "() => new EventSource('/api/live').addEventListener('sections', "
                "(event) => event.data.includes('7,000') && console.log('came'))"
            )
            desk.snapshot = replace(SNAPSHOT, traffic=Traffic(consumed=7_000))
        assert await page.get_by_role("row", name=re.compile("^events in 6,000")).count() == 1
        await pause.click()
        await consumed(page, "7,000")
        assert desk.loads <= 1
    assert desk.complaints == []


async def test_a_stopped_topic_is_resumed_with_the_keyboard_while_the_page_lives(chromium: Browser) -> None:
    """The button keeps the focus while its section changes around it."""
    desk = Desk()
    desk.snapshot = replace(SNAPSHOT, stopped_topics=("users",))
    async with opened(chromium, desk) as page:
        button = page.get_by_role("button", name="Resume topic users")
        await button.focus()
        desk.snapshot = replace(desk.snapshot, stopped_topics=("users", "orders"))
        await page.get_by_role("button", name="Resume topic orders").wait_for(timeout=10_000)
        assert await page.evaluate("document.activeElement.id") == "resume-users"
        await page.keyboard.press("Enter")
        await page.get_by_role("button", name="Resume topic users").wait_for(state="detached", timeout=10_000)
    assert desk.resumed == ["users"]
    assert desk.complaints == []


async def test_without_javascript_it_shows_all_and_comes_again(chromium: Browser) -> None:
    desk = Desk()
    async with opened(chromium, desk, java_script_enabled=False) as page:
        await consumed(page, "5,000")
        assert not await page.get_by_role("button", name="Pause").is_visible()
        desk.snapshot = replace(SNAPSHOT, traffic=Traffic(consumed=6_000))
        await consumed(page, "6,000")
        assert desk.loads == 2


@pytest.mark.parametrize("colours", ["light", "dark"])
async def test_a_narrow_window_needs_no_scrolling_to_the_side(chromium: Browser, colours: Any) -> None:
    """At 320 pixels, with long words: only tables scroll, each by itself and with the keyboard."""
    async with opened(chromium, Desk(), viewport={"width": 320, "height": 640}, color_scheme=colours) as page:
        assert await page.evaluate("document.documentElement.scrollWidth") <= 320
        table = page.get_by_role("region", name="Partitions of this instance")
        assert await table.evaluate("each => each.scrollWidth > each.clientWidth")
        await table.focus()
        await page.keyboard.press("ArrowRight")
        async with asyncio.timeout(10):  # not wait_for_function: the page's policy forbids its eval
            while not await table.evaluate("each => each.scrollLeft"):
                await asyncio.sleep(0.02)
        background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        bright = sum(map(int, re.findall(r"\d+", background))) / 3
        assert bright > 200 if colours == "light" else bright < 60


async def test_a_screen_reader_finds_everything_by_name(chromium: Browser) -> None:
    async with opened(chromium, Desk()) as page:
        for name in ("Waiting for", "Flow", "Quota", "Delay per lane", "Dead letters", "Partitions", "Rules"):
            assert await page.get_by_role("heading", name=name, exact=True).count() == 1, name
        for name in ("Why work waits", "Events and calls", "Quota of each key", "Rules and handlers since the start"):
            assert await page.get_by_role("table", name=name, exact=True).count() == 1, name
        for name in ("Events in and calls out, per minute", "Share of the windows used, key default"):
            assert await page.get_by_role("img", name=name, exact=True).count() == 1, name
        assert await page.get_by_role("status").inner_text() == "Ready"


async def test_hostile_names_run_nothing_not_even_when_they_come_later(chromium: Browser) -> None:
    """In the page and in the stream: where the escaping failed, `evil` would be set."""
    desk = Desk()
    desk.snapshot = replace(SNAPSHOT, group_state=EVIL, rule_uses=(RuleUse(EVIL, 1, 1, EVIL, AT),))
    async with opened(chromium, desk) as page:
        desk.snapshot = replace(desk.snapshot, stopped_topics=(EVIL,), waiting_for=(WaitState(EVIL, 1, EVIL),))
        await page.get_by_role("table", name="Stopped topics").wait_for(timeout=10_000)
        assert await page.evaluate("window.evil") is None
        assert await page.locator("main img, main script").count() == 0
        assert await page.get_by_role("rowheader", name=EVIL, exact=True).count() >= 1
    assert desk.complaints == []


async def test_it_comes_back_by_itself_when_the_bridge_does(chromium: Browser) -> None:
    desk = Desk()
    async with opened(chromium, desk) as page:
        await page.get_by_text("live", exact=True).wait_for(timeout=10_000)
        port = desk.server.port
        await desk.server.stop()
        await page.get_by_text("connection lost; trying again").wait_for(timeout=10_000)
        desk.snapshot = replace(SNAPSHOT, traffic=Traffic(consumed=6_000))
        desk.server = desk.make(f"127.0.0.1:{port}")
        await desk.server.start()
        await consumed(page, "6,000")
        assert await page.get_by_text("live", exact=True).count() == 1
