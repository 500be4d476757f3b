"""The pages of dead letters in a real browser: everybody looks, replays and discards, and nobody's script runs."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from bridge.model import LetterKind
from bridge.replay.ledger import State, Wish
from tests.support.browser import browser
from tests.support.letters import LetterDesk, path_of

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

# One loop for all, so that they share one browser: it takes seconds to start.
pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

EVIL = """</pre></td></table><script>window.evil=1</script><img src=x onerror="window.evil=2">"'"""
SECONDS = 10_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    async with browser() as started:
        yield started


class Watched(LetterDesk):
    """Hears what the browser refused or could not do."""

    def __init__(self) -> None:
        super().__init__(listen="127.0.0.1:0")
        self.complaints: list[str] = []

    def hear(self, page: Page) -> None:
        page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))


@asynccontextmanager
async def opened(chromium: Browser, desk: Watched, path: str = "/dead-letters", **context: Any) -> AsyncIterator[Page]:
    await desk.admin.start()
    fresh = await chromium.new_context(**context)
    try:
        page = await fresh.new_page()
        desk.hear(page)
        await page.goto(desk.admin.url + path)
        yield page
    finally:
        await fresh.close()
        await desk.admin.stop()


@pytest.mark.parametrize("scripts", [True, False], ids=["javascript", "no javascript"])
async def test_from_the_list_to_a_letter_to_its_replay_and_what_became_of_it(chromium: Browser, scripts: bool) -> None:
    """The state changes on the open page by itself."""
    desk = Watched()
    desk.letter("anna@example.com", rule="signup", message="no such plan", fields={"plan": "free"})
    async with opened(chromium, desk, java_script_enabled=scripts) as page:
        await page.get_by_role("link", name="0/0").click()
        await page.get_by_text("no such plan").first.wait_for(timeout=SECONDS)
        await page.get_by_role("button", name="Replay …").click()
        await page.get_by_text("sends upsert for a***@example.com").wait_for(timeout=SECONDS)
        assert desk.requests() == []
        await page.get_by_role("button", name="Replay 1 dead letter").click()
        status = page.get_by_role("status")
        await status.get_by_text("requested").wait_for(timeout=SECONDS)
        (request,) = desk.requests()
        desk.answer(request, State.REPLAYED, "1 delivered")
        await status.get_by_text("replayed").wait_for(timeout=SECONDS)
    assert desk.complaints == []


async def test_with_the_keyboard_alone_letters_are_chosen_and_discarded(chromium: Browser) -> None:
    """Every step by Tab and Enter, in the order in which things stand."""
    desk = Watched()
    desk.letter(rule="a")
    desk.letter(rule="b", kind=LetterKind.EXPIRED)

    async with opened(chromium, desk) as page:

        async def to(id: str) -> None:
            for _ in range(40):
                if await page.evaluate("document.activeElement.id || document.activeElement.name") == id:
                    return
                await page.keyboard.press("Tab")
            raise AssertionError(f"{id} is not reached")

        await to("kind")
        await page.keyboard.type("expired")
        await to("state")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await page.get_by_text("1 dead letter, the newest first").wait_for(timeout=SECONDS)
        await to("discard-these")
        await page.keyboard.press("Enter")
        await page.get_by_text("would be marked as settled").wait_for(timeout=SECONDS)
        await to("send")
        await page.keyboard.press("Enter")
        await page.get_by_text("1 dead letter marked as settled.").wait_for(timeout=SECONDS)
    assert [(each.wish, each.source.offset) for each in desk.requests()] == [(Wish.DISCARD, 1)]
    assert desk.complaints == []


async def test_an_unknown_outcome_is_sent_only_by_who_ticks_the_box(chromium: Browser) -> None:
    """The page says why not, then what may come of it; the box has a name for screen readers."""
    desk = Watched()
    letter = desk.letter(kind=LetterKind.UNKNOWN_OUTCOME, do=["trigger"])
    async with opened(chromium, desk, path_of(letter)) as page:
        await page.get_by_text("It may have been sent").wait_for(timeout=SECONDS)
        await page.get_by_role("button", name="Replay …").click()
        assert await page.get_by_role("button", name="Replay 1 dead letter").count() == 0
        await page.get_by_role("checkbox", name=re.compile("^Send again")).check()
        await page.get_by_role("button", name="Look again").click()
        await page.get_by_text("perhaps send emails a second time").wait_for(timeout=SECONDS)
        assert await page.get_by_role("checkbox", name=re.compile("^Send again")).is_checked()
        await page.get_by_role("button", name="Replay 1 dead letter").click()
        await page.get_by_role("status").get_by_text("requested").wait_for(timeout=SECONDS)
    assert [each.send_again for each in desk.requests()] == [True]


async def test_new_letters_come_into_the_open_list_and_the_focus_stays(chromium: Browser) -> None:
    desk = Watched()
    desk.letter(rule="first")
    async with opened(chromium, desk) as page:
        link = page.get_by_role("link", name="0/0")
        await link.focus()
        desk.letter(rule="second")
        await page.get_by_role("link", name="0/1").wait_for(timeout=SECONDS)
        assert await page.evaluate("document.activeElement.id") == "letter-0-0"
    assert desk.complaints == []


async def test_a_broker_that_goes_away_is_said_on_the_open_page_and_passes(chromium: Browser) -> None:
    desk = Watched()
    desk.letter()
    async with opened(chromium, desk) as page:
        desk.away = True
        await page.get_by_text("cannot be read: the broker is away").wait_for(timeout=SECONDS)
        assert await page.get_by_role("link", name="0/0").count() == 1, "what was read stays"
        desk.away = False
        await page.get_by_text("cannot be read").wait_for(state="detached", timeout=SECONDS)


@pytest.mark.parametrize("colours", ["light", "dark"])
async def test_a_narrow_window_needs_no_scrolling_to_the_side(chromium: Browser, colours: Any) -> None:
    """At 320 pixels, with long words, on every page."""
    desk = Watched()
    long = "x" * 300
    letter = desk.letter(f"{long}@example.com", rule=long, message=long, request={"email": long}, note=long)
    paths = ["/dead-letters", path_of(letter), *(f"/dead-letters/{each}?state=all" for each in ("replay", "discard"))]
    async with opened(chromium, desk, viewport={"width": 320, "height": 640}, color_scheme=colours) as page:
        for path in paths:
            await page.goto(desk.admin.url + path)
            assert await page.evaluate("document.documentElement.scrollWidth") <= 320, path
            background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
            bright = sum(map(int, re.findall(r"\d+", background))) / 3
            assert bright > 200 if colours == "light" else bright < 60


async def test_a_screen_reader_finds_everything_by_name(chromium: Browser) -> None:
    desk = Watched()
    letter = desk.letter(request={"email": "anna@example.com"}, response={"detail": "no"})
    async with opened(chromium, desk) as page:
        assert await page.get_by_role("search", name="Which dead letters").count() == 1
        for name in ("Kind", "Rule", "State"):
            assert await page.get_by_role("combobox", name=name).count() == 1, name
        assert await page.get_by_role("table", name="1 dead letter, the newest first").count() == 1
        await page.goto(desk.admin.url + path_of(letter))
        for name in ("Why", "What was asked", "What was answered", "Its record"):
            assert await page.get_by_role("heading", name=name, exact=True).count() == 1, name
        assert await page.get_by_role("heading", level=1).count() == 1


async def test_hostile_texts_run_nothing_not_even_when_they_come_later(chromium: Browser) -> None:
    """On each page, and in what the script puts into an open one: where the escaping failed, `evil` would be set."""
    desk = Watched()
    letter = desk.letter(EVIL, rule=EVIL, message=EVIL, request={"email": EVIL}, response=EVIL, note=EVIL)
    async with opened(chromium, desk) as page:
        asked = [f"/dead-letters/{each}?state=all" for each in ("replay", "discard")]
        for path in (path_of(letter), *asked, "/dead-letters"):
            await page.goto(desk.admin.url + path)
            assert await page.evaluate("window.evil") is None
            assert await page.locator("main img, main script").count() == 0
        desk.letter(EVIL, rule=EVIL + "later", message=EVIL)
        await page.get_by_role("link", name="0/1").wait_for(timeout=SECONDS)
        assert await page.evaluate("window.evil") is None
        assert await page.locator("main img, main script").count() == 0
    assert desk.complaints == []
