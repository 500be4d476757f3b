"""The pages of dead letters, and the JSON beside them: what they tell, what they ask for, and of whom. No socket."""

from __future__ import annotations

import asyncio
import re
from html import unescape
from urllib.parse import urlencode

import pytest

from bridge.model import LetterKind
from bridge.replay.ledger import State, Wish
from bridge.replay.shelf import Tail
from tests.support.letters import LetterDesk, path_of

EVIL = """</pre></td><script>window.evil=1</script><img src=x onerror="window.evil=2">"'{body}{title}"""


def words(html: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html)))


# Looking


async def test_the_list_tells_what_somebody_needs_to_know_with_contacts_masked() -> None:
    """The newest first; what is settled is not there unless asked for."""
    desk = LetterDesk()
    desk.letter("anna@example.com", rule="signup", message="anna@example.com is refused", status=400)
    settled = desk.logs.ask(desk.letter("ben@example.com"))
    desk.answer(settled, State.REPLAYED, "1 delivered")
    desk.letter("cleo@example.com", kind=LetterKind.EXHAUSTED)
    page = await desk.get("/dead-letters")
    told = words(page.text)
    assert "2 dead letters, the newest first" in told
    assert told.index("open exhausted") < told.index("open rejected signup")
    assert "a***@example.com is refused" in told and "events/0/0" in told
    assert "anna" not in page.text and "b***@" not in page.text
    assert "b***@example.com" in words((await desk.get("/dead-letters?state=replayed")).text)
    assert "3 dead letters, the newest" in words((await desk.get("/dead-letters?state=all")).text)


async def test_letters_are_chosen_by_kind_rule_and_state() -> None:
    desk = LetterDesk()
    desk.letter(rule="a")
    desk.letter(rule="b")
    desk.letter(rule="b", kind=LetterKind.EXPIRED)
    facts = (await desk.get("/api/dead-letters?rule=b&kind=rejected")).json()
    assert [(each["rule"], each["kind"]) for each in facts["letters"]] == [("b", "rejected")]
    assert facts["matching"] == 1 and facts["states"] == {"open": 3}
    page = await desk.get("/dead-letters?rule=b")
    assert '<option value="b" selected>' in page.text
    for wrong in ("kind=x", "state=x", "limit=0", "limit=501", "page=-1", f"page={'9' * 5000}"):
        assert (await desk.get(f"/api/dead-letters?{wrong}")).status_code == 400, wrong


async def test_many_letters_have_pages_and_what_is_left_out_is_said() -> None:
    """The topic may have millions: the newest are looked at."""
    desk = LetterDesk(tail=Tail(letters=120, bytes=1_000_000, facts=100))
    for _ in range(130):
        desk.letter()
    first = await desk.get("/dead-letters")
    assert "10 older records are not looked at here" in words(first.text) and "Page 1 of 3" in words(first.text)
    older = unescape(re.findall(r'<a href="([^"]+)">Older', first.text)[0])
    assert "events/0/79" in (await desk.get(older)).text
    last = await desk.get("/dead-letters?page=99")
    assert "Page 3 of 3" in words(last.text) and "Older<" not in last.text


@pytest.mark.parametrize("shown", [False, True])
async def test_a_letter_tells_everything_with_every_name_of_its_contact_masked(shown: bool) -> None:
    """Its reason, what was asked and answered, its record: emails, the id that was asked for, and the record's key."""
    desk = LetterDesk(show_contacts=shown)
    request = {"email": "anna@example.com", "external_id": "user-4711", "custom_fields": {"plan": "pro"}}
    letter = desk.letter(
        message="user-4711 is refused", request=request, response={"detail": "user-4711?"}, note="user-4711 key-99"
    )
    desk.logs.topics[("letters", 0)][0] = letter._replace(key=b"key-99", headers=(*letter.headers, ("trace", b"t1")))  # type: ignore[index]
    page = await desk.get(path_of(letter))
    told = words(page.text)
    assert "rejected" in told and "at position 0 of the event's plan" in told and "header trace t1" in told
    assert '"plan":"pro"' in told
    for name in ("anna@example.com", "user-4711", "key-99"):
        assert (name in page.text) == shown, name
    facts = (await desk.get("/api" + path_of(letter))).json()
    assert (facts["contact"], facts["state"], facts["undelivered"]) == (
        "anna@example.com" if shown else "a***@example.com",
        "open",
        [0],
    )


async def test_a_huge_value_is_cut_and_its_size_told() -> None:
    desk = LetterDesk()
    letter = desk.letter(note="x" * 300_000)
    facts = (await desk.get("/api" + path_of(letter))).json()
    assert len(facts["value"]) == 4_001 and facts["value_bytes"] > 300_000


async def test_bytes_that_are_no_text_are_shown_all_the_same() -> None:
    desk = LetterDesk()
    letter = desk.letter()
    desk.logs.topics[("letters", 0)][0] = letter._replace(value=b"\x00\xff\xfe", key=b"\xff")  # type: ignore[index]
    assert (await desk.get(path_of(letter))).status_code == 200


@pytest.mark.parametrize("path", ["letters/0/99", "letters/x/0", "letters/0/" + "9" * 5000, "other/0/77"])
async def test_a_letter_that_is_not_there_is_said_so(path: str) -> None:
    desk = LetterDesk()
    desk.letter()
    assert (await desk.get(f"/api/dead-letters/{path}")).status_code == 404
    assert (await desk.get(f"/dead-letters/{path}", accept="text/html")).status_code == 404


async def test_a_letter_is_found_by_its_records_place_where_one_is_about_it() -> None:
    desk = LetterDesk()
    letter = desk.letter(do=["upsert", "track"])
    assert (await desk.get("/api/dead-letters/events/0/0")).json()["letter"] == str(path_of(letter)).split("/", 2)[2]


async def test_hostile_texts_stay_texts() -> None:
    """In a message, a rule's name, a header, a value, a request; in each page."""
    desk = LetterDesk()
    letter = desk.letter(EVIL, rule=EVIL, message=EVIL, request={"email": EVIL}, response=EVIL)
    desk.logs.topics[("letters", 0)][0] = letter._replace(key=EVIL.encode(), headers=(*letter.headers, (EVIL, b"x")))  # type: ignore[index]
    named = urlencode({"letter": "letters/0/0"})
    for path in ("/dead-letters", path_of(letter), f"/dead-letters/replay?{named}", f"/dead-letters/discard?{named}"):
        page = await desk.get(path)
        assert page.status_code == 200
        assert "<script>window" not in page.text and "<img" not in page.text, path
        assert "script-src 'self';" in page.headers["content-security-policy"]
    queried = await desk.get("/dead-letters?" + urlencode({"rule": EVIL}))
    assert "<script>window" not in queried.text


async def test_a_broker_that_is_away_makes_the_page_say_so_and_come_back() -> None:
    """With what was read before and its time; nothing can be asked for meanwhile."""
    desk = LetterDesk()
    desk.away = True
    page = await desk.get("/dead-letters")
    assert page.status_code == 200 and "cannot be read: the broker is away" in words(page.text)
    assert (await desk.get("/api/dead-letters")).status_code == 503
    desk.away = False
    letter = desk.letter()
    form = await desk.get("/dead-letters/replay?letter=letters/0/0")
    assert "cannot be read" not in form.text
    desk.away = True
    pressed = await desk.press(form)
    assert pressed.status_code == 503 and "Nothing was asked for: the broker is away" in words(pressed.text)
    assert (await desk.send("POST", f"/api{path_of(letter)}/replay")).status_code == 503
    desk.away = False
    assert desk.requests() == []


# Replays


async def test_a_replay_is_asked_for_after_what_it_would_send_was_told() -> None:
    """The page names the fields, and those that are left out; its form leads back to the letter, which then waits."""
    desk = LetterDesk()
    letter = desk.letter(fields={"plan": "free", "country": "de"})
    desk.letter(fields={"plan": "pro"})
    form = await desk.get("/dead-letters/replay?letter=letters/0/0")
    told = words(form.text)
    assert "1 dead letter would be replayed" in told
    assert "sends upsert for a***@example.com: email, seq, custom_fields.country" in told
    assert "leaves out what later events wrote: custom_fields.plan" in told
    assert desk.requests() == []
    answer = await desk.press(form)
    assert (answer.status_code, answer.headers["location"]) == (303, path_of(letter))
    (request,) = desk.requests()
    assert (request.wish, request.overwrite, request.send_again) == (Wish.REPLAY, False, False)
    page = await desk.get(path_of(letter))
    assert "requested" in words(page.text) and 'http-equiv="refresh"' in page.text
    desk.answer(request, State.FAILED, "anna@example.com is away")
    await desk.desk.look(anew=True)
    page = await desk.get(path_of(letter))
    assert "failed a***@example.com is away" in words(page.text) and 'http-equiv="refresh"' not in page.text


async def test_pressed_twice_it_is_asked_for_once() -> None:
    desk = LetterDesk()
    desk.letter()
    form = await desk.get("/dead-letters/replay?letter=letters/0/0")
    assert (await desk.press(form)).status_code == 303
    again = await desk.press(form)
    assert again.status_code == 409 and "it is requested already" in words(again.text)
    assert len(desk.requests()) == 1


async def test_two_who_press_at_once_ask_once() -> None:
    desk = LetterDesk()
    desk.letter()
    form = await desk.get("/dead-letters/replay?letter=letters/0/0")
    answers = await asyncio.gather(desk.press(form), desk.press(form))
    assert sorted(answer.status_code for answer in answers) == [303, 409] and len(desk.requests()) == 1


async def test_what_others_asked_for_a_moment_ago_is_seen_before_it_is_asked_for() -> None:
    """By the command line, or by the page of another instance: what was read for this page is older."""
    desk = LetterDesk()
    letter = desk.letter()
    form = await desk.get("/dead-letters/replay?letter=letters/0/0")
    desk.logs.ask(letter)
    answer = await desk.press(form)
    assert answer.status_code == 409 and "it is requested already" in words(answer.text)
    assert len(desk.requests()) == 1


async def test_an_unknown_outcome_is_sent_again_only_where_that_is_ticked() -> None:
    """The box is there only where it makes a difference, and what may come of it is said."""
    desk = LetterDesk()
    desk.letter(kind=LetterKind.UNKNOWN_OUTCOME, do=["trigger"])
    desk.letter()
    form = await desk.get("/dead-letters/replay?letter=letters/0/0")
    assert "it may have been sent already; “Send again” sends it all the same" in words(form.text)
    assert 'id="send"' not in form.text
    assert (await desk.press(form)).status_code == 409 and desk.requests() == []
    ticked = await desk.get("/dead-letters/replay?letter=letters/0/0&send_again=yes")
    assert "perhaps send emails a second time" in words(ticked.text)
    assert (await desk.press(form, "send_again")).status_code == 303
    assert [(request.source.offset, request.send_again) for request in desk.requests()] == [(0, True)]
    assert 'name="send_again"' not in (await desk.get("/dead-letters/replay?letter=letters/0/1")).text


async def test_overwriting_is_ticked_by_somebody() -> None:
    desk = LetterDesk()
    desk.letter()
    form = await desk.get("/dead-letters/replay?letter=letters/0/0")
    await desk.press(form, "overwrite")
    assert [request.overwrite for request in desk.requests()] == [True]


async def test_all_that_match_are_replayed_and_no_others() -> None:
    """Those that came after the page was looked at are not meant."""
    desk = LetterDesk()
    desk.letter(rule="a")
    desk.letter(rule="b")
    desk.letter(rule="b")
    form = await desk.get("/dead-letters/replay?rule=b")
    assert "2 dead letters would be replayed" in words(form.text)
    desk.letter(rule="b")
    answer = await desk.press(form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/dead-letters?rule=b&replays=2")
    assert [request.source.offset for request in desk.requests()] == [1, 2]
    assert "2 dead letters will be replayed" in words((await desk.get(answer.headers["location"])).text)


async def test_where_more_match_than_were_meant_it_is_asked_again() -> None:
    """Older letters may come to match, as when a replay of theirs fails."""
    desk = LetterDesk()
    request = desk.logs.ask(desk.letter(rule="b"))
    desk.letter(rule="b")
    form = await desk.get("/dead-letters/replay?rule=b&state=open&state=failed")
    desk.answer(request, State.FAILED)
    answer = await desk.press(form)
    assert answer.status_code == 409 and "There are 2 dead letters now" in words(answer.text)
    assert len(desk.requests()) == 1


# Discarding


async def test_a_letter_is_discarded_after_a_page_that_asks() -> None:
    desk = LetterDesk()
    letter = desk.letter()
    form = await desk.get("/dead-letters/discard?letter=letters/0/0")
    assert "1 dead letter would be marked as settled" in words(form.text) and desk.requests() == []
    answer = await desk.press(form)
    assert (answer.status_code, answer.headers["location"]) == (303, path_of(letter))
    assert [request.wish for request in desk.requests()] == [Wish.DISCARD]
    assert "None that match" in words((await desk.get("/dead-letters")).text)


# JSON


async def test_programs_replay_and_discard_by_place() -> None:
    desk = LetterDesk()
    one, other = (f"/api{path_of(desk.letter())}" for _ in range(2))
    look = await desk.send("POST", f"{one}/replay", json={"dry_run": True})
    assert look.json()["would_send"]["sends"][0]["contact"] == "a***@example.com" and desk.requests() == []
    asked = await desk.send("POST", f"{one}/replay", json={"overwrite": True})
    assert (asked.status_code, asked.json()["requested"]["state"]) == (202, "requested")
    again = await desk.send("POST", f"{one}/replay", json={"overwrite": True})
    assert (again.status_code, again.json()["error"]) == (409, "it is requested already")
    gone = await desk.send("POST", f"{other}/discard")
    assert (gone.status_code, gone.json()["discarded"]["state"]) == (200, "discarded")
    assert [(each.wish, each.overwrite) for each in desk.requests()] == [(Wish.REPLAY, True), (Wish.DISCARD, False)]


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"overwrite": 1}', b'{"x": true}', b"[" * 100_000, b"\xff"])
async def test_what_a_program_asks_for_wrongly_is_told(body: bytes) -> None:
    desk = LetterDesk()
    answer = await desk.send("POST", f"/api{path_of(desk.letter())}/replay", content=body)
    assert answer.status_code == 400 and "overwrite" in answer.json()["error"] and desk.requests() == []


# Who may


PAGES = ["/dead-letters", "/dead-letters/letters/0/0", "/dead-letters/replay?letter=letters/0/0"]
ACTIONS = [
    "/dead-letters/replay",
    "/dead-letters/discard",
    "/api/dead-letters/letters/0/0/replay",
    "/api/dead-letters/letters/0/0/discard",
]


@pytest.mark.parametrize("path", [*PAGES, "/api/dead-letters", "/api/dead-letters/letters/0/0"])
async def test_letters_need_the_token_and_a_known_host(path: str) -> None:
    desk = LetterDesk("s3cret")
    desk.letter()
    assert (await desk.get(path)).status_code == 401
    assert (await desk.get(path, authorization="Bearer s3cret")).status_code == 200
    assert (await LetterDesk().get(path, host="evil.example")).status_code == 403


@pytest.mark.parametrize("path", ACTIONS)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"host": "evil.example", "origin": "http://evil.example"}, 403),
        ({"authorization": "Bearer wrong"}, 401),
    ],
)
async def test_other_sites_and_strangers_change_nothing(path: str, headers: dict[str, str], status: int) -> None:
    """Not even with all that a form holds."""
    desk = LetterDesk("s3cret" if status == 401 else None)
    desk.letter()
    data = {"letter": "letters/0/0", "csrf": desk.admin._access.csrf}
    answer = await desk.send("POST", path, data=data, headers=headers)
    assert answer.status_code == status and desk.requests() == []


@pytest.mark.parametrize("path", ACTIONS)
async def test_a_link_or_an_image_changes_nothing(path: str) -> None:
    desk = LetterDesk()
    desk.letter()
    await desk.get(f"{path}?letter=letters/0/0&csrf={desk.admin._access.csrf}")
    assert desk.requests() == []


@pytest.mark.parametrize("csrf", ["", "wrong"])
@pytest.mark.parametrize("path", ACTIONS[:2])
async def test_a_form_without_the_pages_own_word_is_refused(path: str, csrf: str) -> None:
    desk = LetterDesk()
    desk.letter()
    answer = await desk.send("POST", path, data={"letter": "letters/0/0", "csrf": csrf})
    assert answer.status_code == 403 and "load the page again" in answer.text and desk.requests() == []
