"""Keys, scopes, environments, quota and errors: what stands in front of the endpoints."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import Any

import orjson
import pytest

from bridge.sandbox.api import BASE_PATH, ENDPOINTS, Clock, Reply, Request, Sandbox
from bridge.sandbox.options import SCOPES, SandboxOptions

NOW = 1_800_000_000.0
TEST, LIVE = "meisa_test_sandbox", "meisa_live_sandbox"


def make(**options: Any) -> Sandbox:
    return Sandbox(SandboxOptions(**{"seed": 1, **options}))


def call(
    sandbox: Sandbox, method: str, path: str, body: Any = None, *, key: str = TEST, now: float = NOW, query: str = ""
) -> Reply:
    content = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
    return sandbox.handle(Request(method, BASE_PATH + path, query, {"x-api-key": key} if key else {}, content), now)


def data(reply: Reply) -> Any:
    return orjson.loads(reply.body)


def header(reply: Reply, name: str) -> str | None:
    return dict(reply.headers).get(name)


BODIES: dict[str, Any] = {
    "upsert": {"email": "a@example.com"},
    "track": {"event_name": "e", "email": "a@example.com"},
    "add_tag": {"tag_name": "t"},
    "remove_tag": {"tag_name": "t"},
    "enroll": {"email": "b@example.com", "sequence_slug": "s"},
    "bulk_enroll": {"emails": ["c@example.com"], "sequence_slug": "s"},
    "trigger": {"trigger_key": "k", "to_email": "a@example.com"},
}


@pytest.mark.parametrize("path", ENDPOINTS)
def test_each_endpoint_needs_exactly_its_scope(path: str) -> None:
    """With the documented scope alone it works; with all the others it is 403 and nothing is carried out."""
    endpoint = ENDPOINTS[path]
    others = ",".join(scope for scope in SCOPES if scope != endpoint.scope)
    alone = endpoint.scope or "tags:write"
    sandbox = make(keys=(f"meisa_test_alone={alone}", f"meisa_test_others={others}"))
    contact_id = data(call(sandbox, "POST", "/contacts/upsert/", {"email": "a@example.com"}))["id"]
    place, query = path.replace("{id}", contact_id), "email=a@example.com"
    refused = call(sandbox, endpoint.method, place, BODIES.get(endpoint.name), key="meisa_test_others", query=query)
    if endpoint.scope is not None:
        assert refused.status == 403
        assert endpoint.scope in data(refused)["error"]["message"]
        assert refused.entry is not None
        assert not refused.entry.carried_out
    allowed = call(sandbox, endpoint.method, place, BODIES.get(endpoint.name), key="meisa_test_alone", query=query)
    assert 200 <= allowed.status < 300


def test_the_eleven_documented_endpoints_are_there() -> None:
    """Names, methods, paths and scopes as in the API's documentation."""
    assert {(path, endpoint.method, endpoint.scope) for path, endpoint in ENDPOINTS.items()} == {
        ("/ping/", "GET", None),
        ("/contacts/upsert/", "POST", "contacts:write"),
        ("/events/track/", "POST", "events:track"),
        ("/contacts/{id}/add_tag/", "POST", "contacts:write"),
        ("/contacts/{id}/remove_tag/", "POST", "contacts:write"),
        ("/contacts/api/unsubscribed-emails/", "GET", "contacts:read"),
        ("/sequences/enroll/", "POST", "sequences:enroll"),
        ("/sequences/api/bulk-enroll/", "POST", "sequences:enroll"),
        ("/sequences/api/list/", "GET", "sequences:read"),
        ("/sequences/api/contact-enrollments/", "GET", "sequences:read"),
        ("/emails/trigger/", "POST", "emails:trigger"),
    }


def test_ping_tells_what_a_key_may_do() -> None:
    sandbox = make(keys=("meisa_live_reader=contacts:read,sequences:read",))
    answer = data(call(sandbox, "GET", "/ping/", key="meisa_live_reader"))
    assert (answer["scopes"], answer["environment"]) == (["contacts:read", "sequences:read"], "live")
    assert answer["product"]
    assert data(call(sandbox, "GET", "/ping/"))["environment"] == "test"


@pytest.mark.parametrize("key", ["", "meisa_test_other", "nonsense"])
def test_a_missing_or_wrong_key_is_401(key: str) -> None:
    """Nothing is carried out, and the stranger's key is not written down."""
    sandbox = make()
    reply = call(sandbox, "POST", "/contacts/upsert/", {"email": "a@example.com"}, key=key)
    assert reply.status == 401
    assert reply.entry is not None
    assert (reply.entry.key, reply.entry.carried_out) == ("", False)
    assert not sandbox.worlds["test"].contacts.by_id


def test_a_revoked_key_works_again_when_restored() -> None:
    sandbox = make()
    sandbox.keys[TEST].revoked = True
    assert call(sandbox, "GET", "/ping/").status == 401
    sandbox.keys[TEST].revoked = False
    assert call(sandbox, "GET", "/ping/").status == 200


def test_environments_share_nothing() -> None:
    """Contacts, emails, suppression and idempotency of test and live are apart; quotas are per key."""
    sandbox = make()
    sandbox.worlds["live"].contacts.suppress("a@example.com")
    body = {"trigger_key": "k", "to_email": "a@example.com", "idempotency_key": "1"}
    assert call(sandbox, "POST", "/emails/trigger/", body).status == 200
    assert call(sandbox, "POST", "/emails/trigger/", body, key=LIVE).status == 422
    sandbox.worlds["live"].contacts.allow("a@example.com")
    assert call(sandbox, "POST", "/emails/trigger/", body, key=LIVE).status == 200
    assert [world.emails.total for world in sandbox.worlds.values()] == [1, 1]
    track = {"event_name": "e", "email": "b@example.com"}
    call(sandbox, "POST", "/contacts/upsert/", {"email": "b@example.com"})
    assert call(sandbox, "POST", "/events/track/", track).status == 200
    assert call(sandbox, "POST", "/events/track/", track, key=LIVE).status == 404


def test_over_the_quota_is_429_with_retry_after() -> None:
    """The 61st call within a minute is refused and not carried out; the header says when there is room."""
    sandbox = make()
    for number in range(60):
        assert call(sandbox, "GET", "/ping/", now=NOW + number / 10).status == 200
    reply = call(sandbox, "POST", "/contacts/upsert/", {"email": "a@example.com"}, now=NOW + 10.5)
    assert reply.status == 429
    assert header(reply, "retry-after") == "50"
    assert not sandbox.worlds["test"].contacts.by_id
    assert call(sandbox, "GET", "/ping/", key=LIVE, now=NOW + 10.5).status == 200
    assert call(sandbox, "GET", "/ping/", now=NOW + 60.5).status == 200


@pytest.mark.parametrize("form", ["date", "none"])
def test_retry_after_as_a_date_or_not_at_all(form: str) -> None:
    sandbox = make(per_minute=1, retry_after=form)
    call(sandbox, "GET", "/ping/")
    value = header(call(sandbox, "GET", "/ping/", now=NOW + 0.5), "retry-after")
    if form == "none":
        assert value is None
    else:
        assert value is not None
        assert parsedate_to_datetime(value).timestamp() == NOW + 60


def test_every_call_with_a_valid_key_counts_whatever_its_answer() -> None:
    """400, 403 and 404 use the quota up; 401 and unknown paths do not."""
    sandbox = make(keys=("meisa_test_poor=tags:write",))
    calls = ("POST", "/contacts/upsert/", b"{"), ("POST", "/events/track/", {"event_name": "e", "email": "x@y.zz"})
    for method, path, body in calls:
        assert call(sandbox, method, path, body).status in (400, 404)
    call(sandbox, "GET", "/nowhere/")
    assert sandbox.keys[TEST].quota.snapshot(NOW)["minute"]["used"] == 2
    assert call(sandbox, "GET", "/sequences/api/list/", key="meisa_test_poor").status == 403
    assert sandbox.keys["meisa_test_poor"].quota.snapshot(NOW)["minute"]["used"] == 1


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"null", b"\xff", b'{"email": NaN}'])
def test_a_body_that_is_no_json_object_is_400(body: bytes) -> None:
    reply = call(make(), "POST", "/contacts/upsert/", body)
    assert reply.status == 400
    assert data(reply)["error"]["code"] == "invalid_json"


def test_a_path_without_its_slash_is_404_and_says_so() -> None:
    reply = call(make(), "POST", "/contacts/upsert", {"email": "a@example.com"})
    assert reply.status == 404
    assert "/api/v1/contacts/upsert/" in data(reply)["error"]["message"]
    assert "/contacts/1/add_tag/" in data(call(make(), "POST", "/contacts/1/add_tag", {}))["error"]["message"]


def test_a_wrong_method_is_405() -> None:
    reply = call(make(), "GET", "/contacts/upsert/")
    assert (reply.status, header(reply, "allow")) == (405, "POST")


def test_a_body_that_is_too_large_is_413() -> None:
    request = Request("POST", BASE_PATH + "/contacts/upsert/", "", {"x-api-key": TEST}, b"", too_large=True)
    assert make().handle(request, NOW).status == 413


def test_errors_can_have_the_other_shape() -> None:
    reply = call(make(error_shape="detail"), "GET", "/ping/", key="")
    assert set(data(reply)) == {"detail"}


def test_query_parameters_reach_the_endpoint() -> None:
    sandbox = make(sequences={"onboarding": "active", "old": "inactive"})
    listed = data(call(sandbox, "GET", "/sequences/api/list/", query="status=all&search=ol"))
    assert [sequence["slug"] for sequence in listed["results"]] == ["old"]
    assert call(sandbox, "GET", "/sequences/api/contact-enrollments/", query="email=a%40example.com").status == 404
    assert call(sandbox, "GET", "/sequences/api/contact-enrollments/").status == 400
    assert call(sandbox, "GET", "/sequences/api/list/", query="&".join("a=1" for _ in range(60))).status == 400


def test_the_ledger_holds_every_call_in_order_of_arrival() -> None:
    """Also those that were refused at the door; the contact is named by its email, however the call named it."""
    sandbox = make()
    contact_id = data(call(sandbox, "POST", "/contacts/upsert/", {"email": "a@example.com", "external_id": "7"}))["id"]
    call(sandbox, "POST", "/events/track/", {"event_name": "e", "external_id": "7"}, now=NOW + 1)
    call(sandbox, "POST", f"/contacts/{contact_id}/add_tag/", {"tag_name": "t"}, now=NOW + 2)
    call(sandbox, "GET", "/nowhere/", key="")
    call(sandbox, "POST", "/emails/trigger/", {"trigger_key": "k", "to_email": "b@example.com", "idempotency_key": "1"})
    call(sandbox, "POST", "/emails/trigger/", {"trigger_key": "k", "to_email": "b@example.com", "idempotency_key": "1"})
    seen = [
        (entry.number, entry.endpoint, entry.contact, entry.status, entry.carried_out, entry.repeated)
        for entry in sandbox.ledger.entries
    ]
    assert seen == [
        (1, "upsert", "a@example.com", 201, True, False),
        (2, "track", "a@example.com", 200, True, False),
        (3, "add_tag", "a@example.com", 200, True, False),
        (4, "", "", 404, False, False),
        (5, "trigger", "b@example.com", 200, True, False),
        (6, "trigger", "b@example.com", 200, False, True),
    ]
    assert sandbox.ledger.calls["trigger", 200] == 2
    assert sandbox.ledger.counts["received"] == 6
    assert sandbox.ledger.counts["carried_out"] == 4
    assert next(iter(sandbox.ledger.entries)).json() == {"email": "a@example.com", "external_id": "7"}


def test_the_ledger_is_bounded_and_its_counters_are_not() -> None:
    sandbox = make(log_limit=3, per_minute=0)
    for _ in range(10):
        call(sandbox, "GET", "/ping/")
    assert [entry.number for entry in sandbox.ledger.entries] == [8, 9, 10]
    assert sandbox.ledger.calls["ping", 200] == 10


def test_the_same_seed_gives_the_same_answers() -> None:
    """Ids and faults repeat with the same calls in the same order."""
    runs = []
    for _ in range(2):
        sandbox = make(seed=7, error_rate=0.3, cut_rate=0.2)
        replies = [
            call(sandbox, "POST", "/contacts/upsert/", {"email": f"{number}@example.com"}) for number in range(30)
        ]
        runs.append([(reply.status, reply.cut, reply.body) for reply in replies])
    assert runs[0] == runs[1]
    assert len({(status, cut) for status, cut, _ in runs[0]}) > 2


def test_the_clock_goes_forward_only() -> None:
    clock = Clock()
    before = clock.now()
    clock.advance(3600)
    assert clock.now() - before >= 3600
    with pytest.raises(ValueError, match="forward"):
        clock.advance(-1)
