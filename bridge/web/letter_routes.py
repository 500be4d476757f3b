"""Requests for dead letters: pages with forms, and the same as JSON.

    GET  /dead-letters                    the list; ?kind= ?rule= ?state= ?page=
    GET  /dead-letters/<t>/<p>/<o>        one letter
    GET  /dead-letters/replay, /discard   what would be done, and a form
    POST /dead-letters/replay, /discard   does it, and leads back
    GET  /api/dead-letters                the list as JSON, also ?limit=
    GET  /api/dead-letters/<t>/<p>/<o>    one letter
    POST /api/dead-letters/<t>/<p>/<o>/replay, /discard

A form that means all letters of a filter says how many it meant and when it looked. Letters that came since are not
among them, and where there are more than it meant all the same, it is asked again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from bridge.errors import LogFailed
from bridge.replay.desk import Desk, View
from bridge.replay.shelf import Found
from bridge.replay.telling import plain_outlook
from bridge.replay.wishes import Wishes, counted
from bridge.web import letter_pages as pages
from bridge.web import letters
from bridge.web.access import Access, Refusal
from bridge.web.headers import HEADERS
from bridge.web.letters import Filter
from bridge.web.routes import Handler, guarded, refused

FIELDS_MAX = 1_000
"""Of one form or query; a form of ours has some ten."""
OPTIONS = ("overwrite", "send_again")


class Meant(NamedTuple):
    """Which letters a request is about: those named, or all that match a filter."""

    names: tuple[str, ...]
    filter: Filter
    matched: int | None
    """How many matched when the form was made; None where no form was."""
    newest: str
    """When the newest of these had failed; empty where no form was."""

    def choose(self, found: Sequence[Found]) -> list[Found]:
        if self.names:
            wanted = frozenset(self.names)
            return [each for each in found if str(each.letter.place) in wanted]
        return [each for each in self.filter.choose(found) if not self.newest or each.letter.failed_at <= self.newest]

    def pairs(self, chosen: Sequence[Found]) -> list[tuple[str, str]]:
        """The same as a form's fields."""
        if self.names:
            return [("letter", name) for name in self.names]
        newest = max((each.letter.failed_at for each in chosen), default="")
        return [*pages.pairs_of(self.filter), ("count", str(len(chosen))), ("newest", newest)]

    def more(self, chosen: Sequence[Found]) -> str:
        """What is wrong where more match now than when the form was made."""
        if self.names or self.matched is None or len(chosen) <= self.matched:
            return ""
        return f"There are {counted(len(chosen))} now, and there were {self.matched:,}: look again, and repeat it"


def meant(given: QueryParams) -> Meant:
    count = _number(given.get("count", ""))
    return Meant(tuple(given.getlist("letter")), _filter(given), count, given.get("newest", ""))


def _number(text: str, digits_max: int = 18) -> int | None:
    """None for what is none, and for more digits than anything here has: `int` refuses thousands of them."""
    return int(text) if text.isdecimal() and len(text) <= digits_max else None


def _filter(given: QueryParams) -> Filter:
    kinds, rules, states = (tuple(filter(None, given.getlist(name))) for name in ("kind", "rule", "state"))
    return Filter(kinds, rules, states)


def _options(given: Mapping[str, str]) -> dict[str, bool]:
    return {name: given.get(name) == "yes" for name in OPTIONS}


class LetterRoutes:
    """Over a desk; `show_contacts` shows what is masked else."""

    def __init__(self, desk: Desk, access: Access, *, show_contacts: bool) -> None:
        self._desk = desk
        self._access = access
        self._show = show_contacts

    def routes(self) -> list[BaseRoute]:
        one = "/{topic}/{partition}/{offset}"
        seen: list[tuple[str, Handler]] = [
            ("/dead-letters", self._list),
            ("/dead-letters/replay", self._replay_form),
            ("/dead-letters/discard", self._discard_form),
            ("/dead-letters" + one, self._letter),
            ("/api/dead-letters", self._api_list),
            ("/api/dead-letters" + one, self._api_letter),
        ]
        done: list[tuple[str, Handler]] = [
            ("/dead-letters/replay", self._replay),
            ("/dead-letters/discard", self._discard),
            ("/api/dead-letters" + one + "/replay", self._api_replay),
            ("/api/dead-letters" + one + "/discard", self._api_discard),
        ]
        return [
            *(Route(path, handler, methods=["POST"]) for path, handler in done),
            *(Route(path, guarded(self._access, handler)) for path, handler in seen),
        ]

    # Pages

    async def _list(self, request: Request) -> Response:
        chosen, given = _filter(request.query_params), request.query_params
        if problem := chosen.problem():
            return _page(pages.missing_page(problem), 400)
        view = await self._desk.look()
        facts = self._listed(view, chosen, _number(given.get("page", "")) or 0, letters.ROWS)
        done = ""
        if (count := _number(given.get("replays", ""))) is not None:
            done = f"{counted(count)} will be replayed; their states tell how it went."
        elif (count := _number(given.get("discarded", ""))) is not None:
            done = f"{counted(count)} marked as settled."
        rules = {each.letter.rule for each in view.letters if each.letter.rule}
        return _page(pages.list_page(facts, chosen, rules, self._desk.topic, done))

    def _listed(self, view: View, chosen: Filter, page: int, limit: int) -> letters.Facts:
        found = chosen.choose(view.letters)
        page = min(page, max(0, (len(found) - 1) // limit))
        return letters.listed(view, found, page, limit, time.time(), show_contacts=self._show)

    async def _letter(self, request: Request) -> Response:
        status, facts = await self._whole(request)
        return _page(pages.letter_page(facts) if status == 200 else pages.missing_page(facts["error"]), status)

    async def _whole(self, request: Request) -> tuple[int, letters.Facts]:
        status, found, problem = await self._one(request)
        if found is None:
            return status, {"error": problem}
        try:
            record = await self._desk.record(found)
        except LogFailed as error:
            return 503, {"error": f"the dead letter cannot be read: {error}"}
        if record is None:
            return 404, {"error": "the dead letter is not there any more: retention has removed it"}
        return 200, letters.whole(found, record, time.time(), show_contacts=self._show)

    async def _one(self, request: Request) -> tuple[int, Found | None, str]:
        """The letter that a path names; else a status and why not."""
        partition, offset = (_number(request.path_params[name]) for name in ("partition", "offset"))
        view = await self._desk.look()
        if partition is None or offset is None:
            return 404, None, "a dead letter is named topic/partition/offset"
        found = letters.find(view.letters, request.path_params["topic"], partition, offset)
        if len(found) == 1:
            return 200, found[0], ""
        if found:
            names = ", ".join(str(each.letter.place) for each in found)
            return 409, None, f"several dead letters are about this record: {names}"
        if view.problem or view.read_at_wall_seconds is None:
            return 503, None, f"the dead letters cannot be read: {view.problem or 'they are still being read'}"
        return 404, None, f"no such dead letter is among the newest {len(view.letters):,}; see: meisa-bridge dlq show"

    async def _replay_form(self, request: Request) -> Response:
        given = request.query_params
        return await self._replay_page(meant(given)._replace(matched=None, newest=""), _options(given))

    async def _replay_page(
        self, about: Meant, options: Mapping[str, bool], problem: str = "", status: int = 200
    ) -> Response:
        view = await self._desk.look(anew=True)
        found = about.choose(view.letters)
        wishes = self._replays(about, found, options)
        looks, remark = await self._desk.foresee(wishes.requests) if wishes.requests else ({}, "")
        made = pages.replay_page(
            wishes,
            looks,
            remark=remark,
            pairs=about.pairs(found),
            options=options,
            offers={"send_again": pages.offers_send_again(found)},
            csrf=self._access.csrf,
            now=time.time(),
            show_contacts=self._show,
            problem=problem or _unread(view),
        )
        return _page(made, status)

    def _replays(self, about: Meant, found: Sequence[Found], options: Mapping[str, bool]) -> Wishes:
        return Wishes.replays(
            self._desk.topics,
            found,
            named=bool(about.names),
            overwrite=options["overwrite"],
            send_again=options["send_again"],
        )

    async def _discard_form(self, request: Request) -> Response:
        return await self._discard_page(meant(request.query_params)._replace(matched=None, newest=""))

    async def _discard_page(self, about: Meant, problem: str = "", status: int = 200) -> Response:
        view = await self._desk.look(anew=True)
        found = about.choose(view.letters)
        made = pages.discard_page(
            Wishes.discards(found),
            pairs=about.pairs(found),
            csrf=self._access.csrf,
            now=time.time(),
            show_contacts=self._show,
            problem=problem or _unread(view),
        )
        return _page(made, status)

    async def _replay(self, request: Request) -> Response:
        form, refusal = await self._submitted(request)
        if refusal is not None:
            return refused(request, refusal)
        about, options = meant(form), _options(form)
        problem = ""

        def choose(found: Sequence[Found]) -> Wishes:
            nonlocal problem
            chosen = about.choose(found)
            problem = about.more(chosen)
            return Wishes() if problem else self._replays(about, chosen, options)

        try:
            wishes = await self._desk.ask(choose)
        except LogFailed as error:
            return await self._replay_page(about, options, f"Nothing was asked for: {error}", 503)
        if not wishes.requests:
            return await self._replay_page(about, options, problem or "Nothing was asked for: see below why", 409)
        return _back(about, wishes, "replays")

    async def _discard(self, request: Request) -> Response:
        form, refusal = await self._submitted(request)
        if refusal is not None:
            return refused(request, refusal)
        about = meant(form)
        problem = ""

        def choose(found: Sequence[Found]) -> Wishes:
            nonlocal problem
            chosen = about.choose(found)
            problem = about.more(chosen)
            return Wishes() if problem else Wishes.discards(chosen)

        try:
            wishes = await self._desk.ask(choose)
        except LogFailed as error:
            return await self._discard_page(about, f"Nothing was discarded: {error}", 503)
        if not wishes.requests:
            return await self._discard_page(about, problem or "Nothing was discarded: see below why", 409)
        return _back(about, wishes, "discarded")

    async def _submitted(self, request: Request) -> tuple[QueryParams, Refusal | None]:
        """A form's fields. Read only for who may act at all; its bytes are bounded by serving.py."""
        if (refusal := self._access.act(request.headers)) is not None:
            return QueryParams(), refusal
        try:
            form = QueryParams(parse_qsl((await request.body()).decode("utf-8", "replace"), max_num_fields=FIELDS_MAX))
        except ValueError:
            return QueryParams(), Refusal(400, "the form has too many fields")
        return form, self._access.submit(request.headers, form.get("csrf", ""))

    # JSON

    async def _api_list(self, request: Request) -> Response:
        given, chosen = request.query_params, _filter(request.query_params)
        limit, page = _number(given.get("limit", str(letters.ROWS))), _number(given.get("page", "0"))
        problem = chosen.problem()
        if limit is None or page is None or not 1 <= limit <= letters.ROWS_MAX:
            limit, page = letters.ROWS, 0
            problem = problem or f"limit is a number from 1 to {letters.ROWS_MAX}, page one from 0 on"
        if problem:
            return _json({"error": problem}, 400)
        view = await self._desk.look()
        return _json(self._listed(view, chosen, page, limit), 503 if _unread(view) else 200)

    async def _api_letter(self, request: Request) -> Response:
        status, facts = await self._whole(request)
        return _json(facts, status)

    async def _api_replay(self, request: Request) -> Response:
        if (refusal := self._access.act(request.headers)) is not None:
            return refused(request, refusal)
        options, problem = await _asked(request)
        if problem:
            return _json({"error": problem}, 400)
        dry_run = options.pop("dry_run")
        status, found, problem = await self._one(request)
        if found is None:
            return _json({"error": problem}, status)
        about = Meant((str(found.letter.place),), Filter(), None, "")
        if dry_run:
            wishes = self._replays(about, [found], options)
            looks, remark = await self._desk.foresee(wishes.requests) if wishes.requests else ({}, "")
            told = [plain_outlook(look, show_contacts=self._show) for look in looks.values()]
            return _json({"would_send": told[0] if told else None, "remark": remark or _why(wishes) or None})
        return await self._api_ask(about, lambda chosen: self._replays(about, chosen, options), "requested", 202)

    async def _api_discard(self, request: Request) -> Response:
        if (refusal := self._access.act(request.headers)) is not None:
            return refused(request, refusal)
        status, found, problem = await self._one(request)
        if found is None:
            return _json({"error": problem}, status)
        about = Meant((str(found.letter.place),), Filter(), None, "")
        return await self._api_ask(about, Wishes.discards, "discarded", 200)

    async def _api_ask(self, about: Meant, wish: Any, name: str, status: int) -> Response:
        try:
            wishes: Wishes = await self._desk.ask(lambda found: wish(about.choose(found)))
        except LogFailed as error:
            return _json({"error": str(error)}, 503)
        if not wishes.requests:
            return _json({"error": _why(wishes) or "the dead letter is not there any more"}, 409)
        return _json({name: letters.row(wishes.chosen[0], time.time(), show_contacts=self._show)}, status)


async def _asked(request: Request) -> tuple[dict[str, bool], str]:
    """The options in a body, which may be empty; or what is wrong with it."""
    known = dict.fromkeys((*OPTIONS, "dry_run"), False)
    body = await request.body()
    try:
        given = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        return known, 'the body is JSON: {"overwrite": true, "send_again": true, "dry_run": true}, or nothing'
    wrong = [name for name, value in given.items() if name not in known or not isinstance(value, bool)]
    if wrong:
        return (
            known,
            f"overwrite, send_again and dry_run are true or false, and nothing else is known: {wrong[0][:50]!r}",
        )
    return {**known, **given}, ""


def _why(wishes: Wishes) -> str:
    return wishes.skipped[0][1] if wishes.skipped else ""


def _unread(view: View) -> str:
    """Why nothing can be said of the letters; empty where something can."""
    if view.read_at_wall_seconds is not None and not view.problem:
        return ""
    return f"The dead letters cannot be read: {view.problem or 'they are still being read; look again'}"


def _back(about: Meant, wishes: Wishes, name: str) -> Response:
    """To the one letter, or to the list as it was looked at."""
    if len(about.names) == 1:
        where = pages.path_of(str(wishes.chosen[0].letter.place))
    else:
        where = "/dead-letters?" + urlencode([*pages.pairs_of(about.filter), (name, str(len(wishes.requests)))])
    return RedirectResponse(where, status_code=303, headers=HEADERS)


def _page(html: str, status: int = 200) -> Response:
    return HTMLResponse(html, status_code=status, headers=HEADERS)


def _json(facts: Any, status: int = 200) -> Response:
    """In ASCII: a letter may hold halves of surrogate pairs, which UTF-8 cannot say."""
    body = json.dumps(facts, indent=2, ensure_ascii=True)
    return Response(body, status_code=status, media_type="application/json", headers=HEADERS)
