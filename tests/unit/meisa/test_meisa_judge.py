"""The one table that judges answers: every endpoint with every kind of answer or fault."""

from __future__ import annotations

import json
from email.utils import formatdate
from typing import Any

import httpx
import orjson
import pytest

from bridge.meisa.assumed import Assumptions
from bridge.meisa.endpoints import ENDPOINTS
from bridge.meisa.judge import Judge, Reply
from bridge.model import Outcome, Verdict

WALL = 1_800_000_000.0
WRITES = sorted(name for name, endpoint in ENDPOINTS.items() if not endpoint.reads)
READS = sorted(name for name, endpoint in ENDPOINTS.items() if endpoint.reads)
ALL = sorted(ENDPOINTS)

GOOD: dict[str, Any] = {
    "ping": {"scopes": ["contacts:write"], "environment": "test", "product": "acme"},
    "upsert": {"id": "c1", "email": "a@example.com", "tags": [{"id": "t1", "name": "trial"}], "opens": 3},
    "track": {"status": "tracked", "contact_id": "c1", "event_name": "x", "timestamp": "2026-01-01T00:00:00Z"},
    "add_tag": {"anything": True},
    "remove_tag": {},
    "unsubscribed": {"as_of": "2026-01-01T00:00:00Z", "count": 1, "emails": ["b@example.com"]},
    "enroll": {"status": "enrolled"},
    "bulk_enroll": {"results": [{"email": "a@example.com", "status": "enrolled"}]},
    "sequences": {"results": [{"slug": "onboarding"}]},
    "enrollments": {"enrollments": [{"sequence_slug": "onboarding", "status": "active"}]},
    "trigger": {"status": "sent", "email_send_id": "s1", "contact_id": "c1", "contact_created": False},
}


def judge(
    endpoint: str,
    status: int,
    body: Any = b"",
    *,
    assumed: Assumptions | None = None,
    retry_after: str | None = None,
    date: str | None = None,
    keys: tuple[bytes, ...] = (),
) -> Outcome:
    """`body`: bytes as they are, None for a body that was cut short, all else as JSON."""
    data = body if isinstance(body, bytes | None) else orjson.dumps(body)
    reply = Reply(status, data, retry_after, date, "cut" if body is None else "")
    return Judge(assumed or Assumptions()).answer(ENDPOINTS[endpoint], reply, WALL, keys)


# Carried out.


def test_a_bulk_enroll_tells_of_each_address() -> None:
    """As a single enroll would have told it; addresses compare trimmed and case-folded, and ids are kept."""
    said = [
        {"email": " New@x.io", "status": "enrolled", "contact_id": "c1"},
        {"email": "in@x.io", "status": "already_enrolled"},
        {"email": "active@x.io", "outcome": "skipped", "reason": "already active in this sequence"},
        {"email": "gone@x.io", "status": "suppressed"},
        {"email": "bounced@x.io", "result": "skipped", "message": "The address bounced."},
        {"email": "what", "status": "invalid", "message": "Not a valid email address."},
        {"email": "new@x.io", "status": "already_enrolled"},
    ]
    each = judge("bulk_enroll", 200, {"results": said}).each
    assert each is not None
    assert {email: (outcome.verdict, outcome.detail) for email, outcome in each.items()} == {
        "new@x.io": (Verdict.DELIVERED, ""),
        "in@x.io": (Verdict.DELIVERED, "already_enrolled"),
        "active@x.io": (Verdict.DELIVERED, "already_enrolled"),
        "gone@x.io": (Verdict.REFUSED, "suppressed"),
        "bounced@x.io": (Verdict.REFUSED, "suppressed"),
        "what": (Verdict.REFUSED, "refused"),
    }
    assert each["new@x.io"].contact_id == "c1"
    assert each["what"].message == "Not a valid email address."


@pytest.mark.parametrize("said", ["skipped", "error", "pending", "", "not enrolled"])
def test_a_bulk_enroll_that_does_not_clearly_tell_of_an_address_tells_nothing(said: str) -> None:
    """It may pass, or have been carried out: to dead-letter it would be a guess."""
    outcome = judge("bulk_enroll", 200, {"results": {"unclear@x.io": said, "a@x.io": {"status": "enrolled"}}})
    assert outcome.verdict is Verdict.DELIVERED
    assert outcome.each is not None and list(outcome.each) == ["a@x.io"]


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"enrolled": 3}'])
def test_an_unreadable_answer_to_a_bulk_enroll_tells_of_nobody(body: bytes) -> None:
    """The call was carried out all the same."""
    outcome = judge("bulk_enroll", 200, body)
    assert (outcome.verdict, outcome.each) == (Verdict.DELIVERED, None)


@pytest.mark.parametrize("endpoint", ALL)
@pytest.mark.parametrize("status", [200, 201])
def test_a_documented_answer_is_delivered(endpoint: str, status: int) -> None:
    """2xx with the documented body is delivered, without a remark, and the answer is kept."""
    outcome = judge(endpoint, status, GOOD[endpoint])
    assert (outcome.verdict, outcome.status, outcome.message) == (Verdict.DELIVERED, status, "")
    assert outcome.data == GOOD[endpoint]


@pytest.mark.parametrize(
    ("endpoint", "body", "contact_id"),
    [
        ("upsert", {"id": "c1"}, "c1"),
        ("upsert", {"id": 17}, "17"),
        ("upsert", {"email": "a@example.com"}, None),
        ("upsert", [], None),
        ("track", {"contact_id": "c1"}, "c1"),
        ("track", {}, None),
        ("trigger", {"status": "sent", "contact_id": "c1"}, "c1"),
        ("add_tag", {"id": "not a contact"}, None),
    ],
)
def test_the_contact_id_comes_from_the_answer(endpoint: str, body: Any, contact_id: str | None) -> None:
    """Upsert, track and trigger tell the contact's id; where it is missing there is none, and the call still counts."""
    outcome = judge(endpoint, 200, body)
    assert (outcome.verdict, outcome.contact_id) == (Verdict.DELIVERED, contact_id)


@pytest.mark.parametrize("endpoint", WRITES)
@pytest.mark.parametrize("body", [b"", b"OK", b"<html>", b"{", b"\xff\xfe", b"null", b"[1]"])
def test_a_write_with_a_strange_answer_is_delivered_all_the_same(endpoint: str, body: bytes) -> None:
    """The status is the truth: the write happened; repeating it for its answer's looks would do it twice."""
    outcome = judge(endpoint, 200, body)
    assert outcome.verdict is Verdict.DELIVERED
    if body not in (b"null", b"[1]"):  # the lists of bulk enrolls may be bare
        assert outcome.message


@pytest.mark.parametrize("endpoint", READS)
@pytest.mark.parametrize("body", [b"", b"OK", b"<html>", b"{", b"7"])
def test_a_read_with_a_strange_answer_has_not_been_read(endpoint: str, body: bytes) -> None:
    """A read is for its answer; reading again does no harm."""
    outcome = judge(endpoint, 200, body)
    assert (outcome.verdict, outcome.detail) == (Verdict.RETRY, "unreadable")


@pytest.mark.parametrize("endpoint", ALL)
@pytest.mark.parametrize("status", [200, 202, 204])
def test_a_cut_2xx_is_unknown(endpoint: str, status: int) -> None:
    """2xx whose body did not come whole."""
    outcome = judge(endpoint, status, None)
    assert (outcome.verdict, outcome.detail, outcome.status) == (Verdict.UNKNOWN, "cut", status)


@pytest.mark.parametrize(
    ("status", "body", "detail", "message"),
    [
        (200, {"status": "sent"}, "sent", ""),
        (202, {"status": "scheduled"}, "scheduled", ""),
        (202, b"", "scheduled", "the answer is empty"),
        (200, {"status": "skipped", "reason": "conditions_not_met"}, "skipped", "conditions_not_met"),
        (200, {"status": "queued"}, "queued", "unexpected status 'queued'"),
        (200, b"", "", "the answer is empty"),
    ],
)
def test_what_a_trigger_did_is_told(status: int, body: Any, detail: str, message: str) -> None:
    """sent, scheduled and skipped are all delivered, and told apart."""
    outcome = judge("trigger", status, body)
    assert (outcome.verdict, outcome.detail, outcome.message) == (Verdict.DELIVERED, detail, message)


# Not carried out.


@pytest.mark.parametrize("endpoint", ALL)
@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (101, Verdict.UNKNOWN),
        (301, Verdict.REFUSED),
        (302, Verdict.REFUSED),
        (304, Verdict.REFUSED),
        (308, Verdict.REFUSED),
        (400, Verdict.REFUSED),
        (401, Verdict.KEY_REFUSED),
        (402, Verdict.REFUSED),
        (403, Verdict.SCOPE_MISSING),
        (405, Verdict.REFUSED),
        (408, Verdict.REFUSED),
        (409, Verdict.REFUSED),
        (410, Verdict.REFUSED),
        (413, Verdict.REFUSED),
        (415, Verdict.REFUSED),
        (422, Verdict.REFUSED),
        (425, Verdict.REFUSED),
        (429, Verdict.THROTTLED),
        (499, Verdict.REFUSED),
        (500, Verdict.RETRY),
        (502, Verdict.RETRY),
        (503, Verdict.RETRY),
        (504, Verdict.RETRY),
        (599, Verdict.RETRY),
        (600, Verdict.UNKNOWN),
        (999, Verdict.UNKNOWN),
    ],
)
def test_a_status_has_its_verdict_whatever_the_body(endpoint: str, status: int, verdict: Verdict) -> None:
    """The status decides; a strange or missing body changes nothing, and there is always something to read."""
    for body in (b"", b"{}", b"<html><title>Bad</title>", {"detail": "no"}, [1], None, b"\xff"):
        expected = verdict
        if endpoint == "enroll" and body is None and status in (400, 409):
            expected = Verdict.UNKNOWN  # it may have said "already enrolled"
        outcome = judge(endpoint, status, body)
        assert (outcome.verdict, outcome.status) == (expected, status), body
        assert outcome.message
        assert "\n" not in outcome.message


@pytest.mark.parametrize("endpoint", ALL)
def test_404(endpoint: str) -> None:
    """A missing contact: a track can be mended by an upsert, a tag call cannot; elsewhere it is a plain refusal."""
    outcome = judge(endpoint, 404, {"detail": "Contact not found."})
    expected = {
        "track": (Verdict.NEEDS_CONTACT, "no_contact"),
        "add_tag": (Verdict.REFUSED, "no_contact"),
        "remove_tag": (Verdict.REFUSED, "no_contact"),
    }.get(endpoint, (Verdict.REFUSED, "refused"))
    assert (outcome.verdict, outcome.detail) == expected
    assert outcome.message == "Contact not found."


def test_a_404_that_is_not_meisas_points_at_the_address() -> None:
    """A page from some other server says that the base URL is wrong."""
    assert "base_url" in judge("upsert", 404, b"<html><title>404</title></html>").message


@pytest.mark.parametrize(
    "words",
    [
        "already enrolled",
        "Contact is already active in this sequence",
        "ALREADY_ENROLLED",
        "already in sequence",
        "already paused",
    ],
)
@pytest.mark.parametrize("status", [400, 409])
def test_already_enrolled_is_delivered(words: str, status: int) -> None:
    """A repeat of an enroll is rejected by Meisa, and that is what was wanted."""
    outcome = judge("enroll", status, {"error": words})
    assert (outcome.verdict, outcome.detail) == (Verdict.DELIVERED, "already_enrolled")


@pytest.mark.parametrize(
    ("endpoint", "status", "body"),
    [
        ("enroll", 400, {"error": "sequence is not active in this environment"}),
        ("enroll", 400, {"error": "no such sequence"}),
        ("enroll", 404, {"error": "already enrolled"}),
        ("enroll", 400, {"error": "bad slug", "metadata": {"note": "already enrolled elsewhere"}}),
        ("upsert", 400, {"error": "already enrolled"}),
    ],
)
def test_what_is_not_an_existing_enrolment_is_refused(endpoint: str, status: int, body: Any) -> None:
    """An enroll that failed must not pass for one that succeeded."""
    assert judge(endpoint, status, body).verdict is Verdict.REFUSED


@pytest.mark.parametrize(
    "words", ["Recipient unsubscribed", "address bounced", "contact complained", "on suppression list"]
)
@pytest.mark.parametrize("endpoint", ["trigger", "enroll", "upsert"])
def test_422_suppressed(endpoint: str, words: str) -> None:
    """An address that must not be written to is told apart from other refusals."""
    outcome = judge(endpoint, 422, {"detail": words})
    assert (outcome.verdict, outcome.detail) == (Verdict.REFUSED, "suppressed")


@pytest.mark.parametrize(
    "body",
    [
        {"detail": "the trigger has no sender"},
        {"detail": "no sender for complaints@example.com"},
        {"detail": "no sender", "variables": {"why": "unsubscribed"}},
    ],
)
def test_422_without_a_sender_is_refused(body: Any) -> None:
    """Also where the request's own words, repeated in the answer, sound like a suppression."""
    outcome = judge("trigger", 422, body)
    assert (outcome.verdict, outcome.detail) == (Verdict.REFUSED, "refused")


def test_assumptions_can_be_changed() -> None:
    """What is not documented is a setting."""
    assumed = Assumptions(
        already_enrolled_statuses=frozenset({422}),
        already_enrolled_words="bereits",
        suppressed_words="abgemeldet",
        retried_4xx=frozenset({408}),
    )
    assert judge("enroll", 422, {"error": "bereits dabei"}, assumed=assumed).detail == "already_enrolled"
    assert judge("enroll", 409, {"error": "already enrolled"}, assumed=assumed).verdict is Verdict.REFUSED
    assert judge("trigger", 422, {"error": "abgemeldet"}, assumed=assumed).detail == "suppressed"
    assert judge("track", 408, assumed=assumed).verdict is Verdict.RETRY


@pytest.mark.parametrize(
    ("endpoint", "scope"),
    [
        ("upsert", "contacts:write"),
        ("add_tag", "contacts:write"),
        ("track", "events:track"),
        ("unsubscribed", "contacts:read"),
        ("sequences", "sequences:read"),
        ("bulk_enroll", "sequences:enroll"),
        ("trigger", "emails:trigger"),
    ],
)
def test_403_names_the_scope(endpoint: str, scope: str) -> None:
    """Who reads it knows what to give the key."""
    assert scope in judge(endpoint, 403, {"detail": "Forbidden"}).message


def test_a_redirect_points_at_the_address() -> None:
    """Redirects are not followed: a POST would become a GET, and the key would go elsewhere."""
    outcome = judge("upsert", 301)
    assert outcome.detail == "redirected"
    assert "base_url" in outcome.message


# Retry-After and Date.

DATE = formatdate(WALL + 500, usegmt=True)


@pytest.mark.parametrize(
    ("retry_after", "date", "seconds"),
    [
        ("7", None, 7.0),
        ("0", None, 0.0),
        ("1.5", None, 1.5),
        (" 12 ", None, 12.0),
        (None, None, None),
        (formatdate(WALL + 30, usegmt=True), None, 30.0),
        (formatdate(WALL + 530, usegmt=True), DATE, 30.0),
        (formatdate(WALL + 400, usegmt=True), DATE, 0.0),
        ("99999999999", None, 86_400.0),
        ("inf", None, 86_400.0),
        ("nan", None, None),
        ("-5", None, None),
        ("soon", None, None),
        ("", None, None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after(status: int, retry_after: str | None, date: str | None, seconds: float | None) -> None:
    """Seconds, or a date against Meisa's own clock where it tells it; nonsense counts as absent."""
    assert judge("upsert", status, retry_after=retry_after, date=date).retry_after_seconds == seconds


def test_retry_after_means_nothing_on_a_refusal() -> None:
    """A final answer stays final."""
    assert judge("upsert", 400, retry_after="7").retry_after_seconds is None


@pytest.mark.parametrize("status", [200, 400, 429, 500])
def test_meisas_clock_is_told(status: int) -> None:
    """The Date header, as Unix seconds, whatever the verdict."""
    assert judge("upsert", status, GOOD["upsert"], date=DATE).date_wall_seconds == WALL + 500


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 99 Foo 2026 99:99:99 GMT"])
def test_a_senseless_date_is_no_date(date: str) -> None:
    assert judge("upsert", 200, GOOD["upsert"], date=date).date_wall_seconds is None


def test_dates_are_read_anew() -> None:
    """The last date is remembered to spare parsing it; another one is another one."""
    one = Judge()
    dates = [formatdate(WALL + second, usegmt=True) for second in (0, 0, 5)]
    told = [one.answer(ENDPOINTS["ping"], Reply(500, b"", None, date), WALL).date_wall_seconds for date in dates]
    assert told == [WALL, WALL, WALL + 5]


# Faults.

_REQUEST = httpx.Request("POST", "https://api.meisa.io/")


@pytest.mark.parametrize(
    "fault",
    [
        httpx.ConnectError("refused", request=_REQUEST),
        httpx.ConnectTimeout("", request=_REQUEST),
        httpx.PoolTimeout("", request=_REQUEST),
        httpx.UnsupportedProtocol("", request=_REQUEST),
    ],
)
def test_what_never_left_may_go_again(fault: Exception) -> None:
    outcome = Judge().fault(fault)
    assert (outcome.verdict, outcome.detail, outcome.sent, outcome.status) == (Verdict.RETRY, "never_sent", False, None)
    assert outcome.message


@pytest.mark.parametrize(
    "fault",
    [
        httpx.ReadError("x", request=_REQUEST),
        httpx.ReadTimeout("x", request=_REQUEST),
        httpx.WriteError("x", request=_REQUEST),
        httpx.WriteTimeout("x", request=_REQUEST),
        httpx.CloseError("x", request=_REQUEST),
        httpx.RemoteProtocolError("x", request=_REQUEST),
        httpx.LocalProtocolError("x", request=_REQUEST),
        httpx.ProxyError("x", request=_REQUEST),
        httpx.DecodingError("x", request=_REQUEST),
        OSError("x"),
        ValueError("x"),
    ],
)
def test_all_other_faults_are_unknown(fault: Exception) -> None:
    """In doubt it was sent."""
    outcome = Judge().fault(fault)
    assert (outcome.verdict, outcome.sent) == (Verdict.UNKNOWN, True)


# What a person reads.


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": "bad"}, "bad"),
        ({"detail": "bad"}, "bad"),
        ({"message": "bad", "error": "code_7"}, "bad"),
        ({"error": {"message": "bad", "code": 7}}, "bad"),
        ({"error": "", "detail": "bad"}, "bad"),
        ({"errors": {"email": ["is required"]}}, "email: is required"),
        ({"errors": [{"message": "one"}, {"message": "two"}]}, "one; two"),
        (
            {"email": ["Enter a valid email."], "source": ["wrong", "odd"]},
            "email: Enter a valid email.; source: wrong; odd",
        ),
        ({"non_field_errors": ["bad"]}, "bad"),
        ({"detail": [{"loc": ["body", "email"], "msg": "field required"}]}, "field required"),
        (["one", "two"], "one; two"),
        ("bad", "bad"),
        (b"bad\r\n  thing\x00", "bad thing"),
        (b"<!doctype html><title>Bad\nGateway</title>", "a page instead of JSON: Bad Gateway"),
        (b"", "HTTP 400 Bad Request"),
        ({}, "HTTP 400 Bad Request"),
        (None, "HTTP 400 Bad Request"),
    ],
)
def test_the_reason_is_found_in_many_shapes(body: Any, message: str) -> None:
    """Errors are JSON with a human-readable message (documented); in which shape is not."""
    assert judge("upsert", 400, body).message == message


def test_a_long_reason_is_bounded() -> None:
    """It goes into a log line and a Kafka header."""
    assert len(judge("upsert", 400, {"detail": "x" * 10_000}).message) <= 500
    assert len(judge("upsert", 400, {str(n): ["x" * 100] for n in range(1000)}).message) <= 500


def test_a_deep_reason_is_bounded() -> None:
    """Nesting does not exhaust the stack."""
    body = b'{"error":' * 60 + b"1" + b"}" * 60
    assert judge("upsert", 400, body).message == "HTTP 400 Bad Request"
    assert len(judge("upsert", 400, body * 200).message) <= 500


def test_a_huge_refusal_is_kept_short() -> None:
    """Its answer goes into a dead letter's header."""
    data = judge("upsert", 400, {"detail": "x" * 200_000}).data
    assert isinstance(data, str)
    assert len(data) <= 2_000


@pytest.mark.parametrize("status", [200, 400, 401, 500])
@pytest.mark.parametrize("key", ["meisa_live_abcDEF123-_x", "meisa_test_0000"])
def test_a_key_in_an_answer_is_masked(status: int, key: str) -> None:
    """Neither the message nor the kept answer holds anything that looks like a key."""
    outcome = judge("upsert", status, {"detail": f"key {key} is not valid", "id": key})
    assert key not in repr(outcome)
    assert "meisa_" in repr(outcome)


def test_a_key_of_another_shape_is_masked_too() -> None:
    """The keys in use are known, whatever they look like."""
    outcome = judge("upsert", 401, {"detail": "hunter2 is wrong"}, keys=(b"hunter2",))
    assert "hunter2" not in repr(outcome)


@pytest.mark.parametrize("depth", [62, 63, 64, 65, 300, 1_000, 100_000])
@pytest.mark.parametrize("status", [200, 400, 422, 503])
def test_an_answer_that_is_nested_without_end_is_an_answer_all_the_same(status: int, depth: int) -> None:
    """What is parsed at a depth of a thousand, nothing can write again: the judge must not raise, nor the letter."""
    body = b'{"a":' + b"[" * depth + b"]" * depth + b"}"
    outcome = Judge().answer(ENDPOINTS["enroll"], Reply(status, body), 0.0)
    assert outcome.verdict is judge("enroll", status, b"{}").verdict
    assert isinstance(outcome.data, dict) == (depth < 64)
    json.dumps(outcome.data)
