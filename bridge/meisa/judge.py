"""Judges how a call went. One table, read from the top; the first row that fits decides.

The status is the truth: what the body says can refine a verdict, never overturn a 2xx. A body that was cut short makes
a 2xx unknown (it may be another answer's beginning); for all other statuses it only loses the explanation, with one
exception: an enroll whose rejection may have meant "already enrolled".
"""

from __future__ import annotations

import re
from collections.abc import Collection
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import httpx
import orjson
from pydantic import BaseModel, ValidationError

from bridge.meisa.assumed import DEFAULT, Assumptions
from bridge.meisa.endpoints import Endpoint
from bridge.meisa.messages import TEXT_CHARACTERS_MAX, human_message, one_line, without_keys
from bridge.meisa.models import BulkEnrolled
from bridge.meisa.transport import NEVER_SENT, Withheld
from bridge.model import Outcome, Verdict, email_key

ERROR_BODY_BYTES_MAX = 64 * 1024
"""A refusal larger than this is kept as the beginning of its text: it goes into a dead letter's header."""

DEPTH_MAX = 64
"""Levels of an answer's JSON; Meisa's have four."""

_ECHOED = frozenset({"variables", "recipient", "metadata", "properties", "custom_fields", "email", "to_email"})
_EMAIL = re.compile(r"[^\s@\"']+@[^\s@\"']+")
_TAGS = frozenset({"add_tag", "remove_tag"})


class Reply(NamedTuple):
    """An answer as far as it came."""

    status: int
    body: bytes | None
    """None: it was cut short; `fault` says how."""
    retry_after: str | None = None
    date: str | None = None
    fault: str = ""


class Row(NamedTuple):
    verdict: Verdict
    statuses: Collection[int]
    endpoints: frozenset[str] | None = None
    """None: all."""
    words: re.Pattern[str] | None = None
    """The row fits only if the body says so."""
    detail: str = ""
    hint: str = ""
    """Put behind Meisa's message."""


def table(assumed: Assumptions = DEFAULT) -> tuple[Row, ...]:
    already = re.compile(assumed.already_enrolled_words, re.IGNORECASE)
    suppressed = re.compile(assumed.suppressed_words, re.IGNORECASE)
    return (
        Row(Verdict.DELIVERED, range(200, 300)),
        Row(
            Verdict.DELIVERED,
            assumed.already_enrolled_statuses,
            frozenset({"enroll"}),
            already,
            detail="already_enrolled",
        ),
        Row(Verdict.RETRY, assumed.retried_4xx, detail="retried_4xx"),
        Row(Verdict.KEY_REFUSED, (401,), detail="key_refused", hint="the API key is missing or not valid"),
        Row(Verdict.SCOPE_MISSING, (403,), detail="scope_missing", hint="the API key lacks the scope {scope}"),
        Row(Verdict.NEEDS_CONTACT, (404,), frozenset({"track"}), detail="no_contact"),
        Row(Verdict.REFUSED, (404,), _TAGS, detail="no_contact"),
        Row(Verdict.REFUSED, (422,), None, suppressed, detail="suppressed"),
        Row(Verdict.THROTTLED, (429,), detail="throttled"),
        Row(Verdict.REFUSED, range(400, 500), detail="refused"),
        Row(Verdict.RETRY, range(500, 600), detail="server_error"),
        Row(
            Verdict.REFUSED,
            range(300, 400),
            detail="redirected",
            hint="Meisa does not redirect: is meisa.base_url right (https, and the path /api/v1)?",
        ),
    )


class Judge:
    """The table, compiled for one set of assumptions."""

    def __init__(self, assumed: Assumptions = DEFAULT) -> None:
        self._assumed = assumed
        self._rows = table(assumed)
        self._already = re.compile(assumed.already_enrolled_words, re.IGNORECASE)
        self._suppressed = re.compile(assumed.suppressed_words, re.IGNORECASE)
        self._bulk_refused = re.compile(assumed.bulk_refused_words, re.IGNORECASE)
        self._last_date: tuple[str, float | None] = ("", None)

    def fault(self, fault: BaseException) -> Outcome:
        """No answer came."""
        message = one_line(f"{_words(fault)}")
        if isinstance(fault, Withheld):
            return Outcome(Verdict.WITHHELD, message=message, detail="never_sent")
        if isinstance(fault, NEVER_SENT):
            return Outcome(Verdict.RETRY, message=message, detail="never_sent")
        return Outcome(Verdict.UNKNOWN, message=message, detail="timeout" if _timed_out(fault) else "no_answer")

    def answer(self, endpoint: Endpoint, reply: Reply, wall: float, keys: tuple[bytes, ...] = ()) -> Outcome:
        """`wall` is this machine's clock (Unix seconds), for a `Retry-After` date in an answer without `Date`."""
        status = reply.status
        date = self._date_wall_seconds(reply.date) if self._assumed.date_header_is_meisas_clock else None
        if 200 <= status < 300:
            return self._done(endpoint, reply, date, keys)
        data = _parsed(reply.body, keys)
        outcome = self._not_done(endpoint, reply, data, date)
        if reply.retry_after is not None and outcome.verdict in (Verdict.THROTTLED, Verdict.RETRY):
            seconds = self._retry_after_seconds(reply.retry_after, date if date is not None else wall)
            outcome = outcome._replace(retry_after_seconds=seconds)
        return outcome

    def _done(self, endpoint: Endpoint, reply: Reply, date: float | None, keys: tuple[bytes, ...]) -> Outcome:
        status, body = reply.status, reply.body
        if body is None:
            message = one_line(f"HTTP {status}, but the answer was cut short: {reply.fault}")
            return Outcome(Verdict.UNKNOWN, status, message, detail="cut", date_wall_seconds=date)
        data: Any = None
        noted = ""
        contact_id = None
        detail = ""
        try:
            data = _loads(without_keys(body, keys))
            answer = endpoint.response.model_validate(data)
        except orjson.JSONDecodeError as error:
            data = _text(without_keys(body, keys))
            noted = (
                error.msg
                if isinstance(error, _TooDeep)
                else "the answer is not JSON"
                if body
                else "the answer is empty"
            )
        except ValidationError as error:
            noted = f"the answer is not as documented: {_first_problem(error)}"
        else:
            found = getattr(answer, "id" if endpoint.name == "upsert" else "contact_id", None)
            contact_id = found if isinstance(found, str) else None
        if endpoint.reads:
            if noted:  # nothing was carried out, and what was asked for did not come
                return Outcome(Verdict.RETRY, status, noted, "unreadable", data=data, date_wall_seconds=date)
        elif endpoint.name == "bulk_enroll" and not noted:
            each = self._each_address(status, answer)
            return Outcome(Verdict.DELIVERED, status, noted, detail, data=data, date_wall_seconds=date, each=each)
        elif endpoint.name == "trigger":
            detail, said = self._trigger_status(status, data)
            noted = noted or said
        return Outcome(Verdict.DELIVERED, status, noted, detail, None, contact_id, data, date)

    def _each_address(self, status: int, answer: BaseModel) -> dict[str, Outcome]:
        """What a bulk enroll did with each address, as a single one would have told it; without those that it does not
        clearly tell of."""
        assert isinstance(answer, BulkEnrolled)
        found: dict[str, Outcome] = {}
        for result in answer.results:
            word, reason = result.status or "", one_line(result.reason or "")
            text = f"{word} {_EMAIL.sub('', reason)}"
            if word.casefold() in self._assumed.bulk_enrolled_words:
                outcome = Outcome(Verdict.DELIVERED, status, contact_id=result.contact_id)
            elif self._already.search(text):
                outcome = Outcome(Verdict.DELIVERED, status, reason, "already_enrolled", contact_id=result.contact_id)
            elif self._suppressed.search(text):
                outcome = Outcome(Verdict.REFUSED, status, reason or word, "suppressed")
            elif self._bulk_refused.search(text):
                outcome = Outcome(Verdict.REFUSED, status, reason or word, "refused")
            else:
                continue
            # An address that stands there twice was enrolled the first time, and in the sequence already the second.
            found.setdefault(email_key(result.email), outcome)
        return found

    def _trigger_status(self, status: int, data: Any) -> tuple[str, str]:
        """The detail and what to say of it: 200 sent, 202 scheduled, 200 skipped."""
        word = data.get("status") if isinstance(data, dict) else None
        if not isinstance(word, str):
            return ("scheduled" if status == 202 else ""), ""
        if word not in self._assumed.trigger_statuses:
            return one_line(word, 40), f"unexpected status {one_line(word, 40)!r}"
        return word, one_line(str(data.get("reason") or "")) if word == "skipped" else ""

    def _not_done(self, endpoint: Endpoint, reply: Reply, data: Any, date: float | None) -> Outcome:
        status = reply.status
        said = human_message(status, data)
        if reply.body is None and endpoint.name == "enroll" and status in self._assumed.already_enrolled_statuses:
            return Outcome(Verdict.UNKNOWN, status, f"{said}, cut short", "cut", date_wall_seconds=date)
        everything = None
        for row in self._rows:
            if status not in row.statuses or (row.endpoints is not None and endpoint.name not in row.endpoints):
                continue
            if row.words is not None:
                if everything is None:
                    everything = _text_of(data)
                if not row.words.search(everything):
                    continue
            hint = row.hint.format(scope=endpoint.scope or "for it")
            if status == 404 and not isinstance(data, dict | list):
                hint = "and not as Meisa says it: is meisa.base_url right?"
            message = f"{said} ({hint})" if hint else said
            return Outcome(row.verdict, status, message, row.detail, data=data, date_wall_seconds=date)
        message = f"{said} (not a status that ends a call)"
        return Outcome(Verdict.UNKNOWN, status, message, "odd_status", data=data, date_wall_seconds=date)

    def _date_wall_seconds(self, text: str | None) -> float | None:
        if text is None:
            return None
        if text != self._last_date[0]:  # it changes once a second, calls come more often
            self._last_date = (text, _http_date(text))
        return self._last_date[1]

    def _retry_after_seconds(self, text: str, since_wall_seconds: float) -> float | None:
        """Seconds to wait; None where the header makes no sense."""
        try:
            seconds = float(text)
        except ValueError:
            at = _http_date(text)
            if at is None:
                return None
            seconds = max(0.0, at - since_wall_seconds)
        if not seconds >= 0:  # also NaN
            return None
        return min(seconds, self._assumed.retry_after_seconds_max)


def _http_date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _parsed(body: bytes | None, keys: tuple[bytes, ...]) -> Any:
    """The parsed JSON, else the text, else None."""
    if not body:
        return None
    if len(body) > ERROR_BODY_BYTES_MAX:
        return _text(without_keys(body[:ERROR_BODY_BYTES_MAX], keys))
    body = without_keys(body, keys)
    try:
        return _loads(body)
    except orjson.JSONDecodeError:
        return _text(body)


class _TooDeep(orjson.JSONDecodeError):
    pass


def _loads(body: bytes) -> Any:
    """Parsed JSON with which all else can work: what was read at a depth of a thousand can be written by nobody."""
    data = orjson.loads(body)
    if body.count(b"[") + body.count(b"{") > DEPTH_MAX:
        level = [data]
        for _ in range(DEPTH_MAX):
            inner = (each.values() if isinstance(each, dict) else each for each in level)
            level = [value for values in inner for value in values if isinstance(value, dict | list)]
            if not level:
                return data
        raise _TooDeep(f"the answer is nested deeper than {DEPTH_MAX} levels", "", 0)
    return data


def _text(body: bytes) -> str | None:
    return body[: 4 * TEXT_CHARACTERS_MAX].decode("utf-8", "replace")[:TEXT_CHARACTERS_MAX] or None


def _text_of(data: Any) -> str:
    """What a row's words are searched in: all that Meisa says, but not what it repeats of the request."""
    if isinstance(data, dict):
        data = {name: value for name, value in data.items() if name not in _ECHOED}
    text = data if isinstance(data, str) else orjson.dumps(data).decode()
    return _EMAIL.sub("", text)


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    return one_line(f"{place}: {problem['msg']}" if place else problem["msg"])


def _timed_out(fault: BaseException) -> bool:
    return isinstance(fault, httpx.TimeoutException)


def _words(fault: BaseException) -> str:
    return without_keys(str(fault).encode("utf-8", "replace")).decode() or type(fault).__name__
