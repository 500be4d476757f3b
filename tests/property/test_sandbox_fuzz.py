"""Whatever is sent, the sandbox answers by the documented statuses, and what it holds can be shown."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.sandbox.api import BASE_PATH, ENDPOINTS, Clock, Request, Sandbox
from bridge.sandbox.control import Control
from bridge.sandbox.fields import DEPTH_MAX
from bridge.sandbox.options import SandboxOptions

KEY = {"x-api-key": "meisa_test_sandbox"}
NAMES = [
    "email", "external_id", "to_email", "event_name", "properties", "custom_fields", "tag_names", "tag_name", "source",
    "tag_id", "sequence_slug", "emails", "metadata", "trigger_key", "recipient", "idempotency_key", "variables",
    "override_unsubscribe", "first_name", "trigger_source",
]  # fmt: skip
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(["a@example.com", "b@example.com", "7", "welcome"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.sampled_from(NAMES), inner, max_size=3)
    ),
    max_leaves=8,
)
BODIES = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6)
STATUSES = {200, 201, 202, 400, 404, 409, 422}


def showable(sandbox: Sandbox) -> bool:
    """The page's view of everything is made without a mistake."""
    reply = Control(sandbox, Clock()).handle(Request("GET", "/_sandbox/overview"))
    return reply.status == 200 and isinstance(orjson.loads(reply.body), dict)


@given(st.lists(st.tuples(st.sampled_from(sorted(ENDPOINTS)), BODIES), min_size=1, max_size=6))
def test_any_json_object_has_a_documented_answer(calls: list[tuple[str, dict[str, Any]]]) -> None:
    """Never an exception; an error always says something to people."""
    sandbox = Sandbox(SandboxOptions(seed=1, per_minute=0, per_hour=0))
    contact_id = orjson.loads(
        sandbox.handle(
            Request("POST", BASE_PATH + "/contacts/upsert/", "", KEY, b'{"email":"a@example.com"}'), 1e9
        ).body
    )["id"]
    for path, body in calls:
        place = BASE_PATH + path.replace("{id}", contact_id)
        reply = sandbox.handle(Request(ENDPOINTS[path].method, place, "", KEY, orjson.dumps(body)), 1e9)
        assert reply.status in STATUSES
        answer = orjson.loads(reply.body)
        if reply.status >= 400:
            assert answer["error"]["message"]
    assert showable(sandbox)


@given(st.binary(max_size=60), st.text(st.characters(codec="latin-1"), max_size=30))
def test_any_bytes_and_any_query_have_an_answer(body: bytes, query: str) -> None:
    sandbox = Sandbox(SandboxOptions(seed=1, per_minute=0, per_hour=0))
    upsert = Request("POST", BASE_PATH + "/contacts/upsert/", query, KEY, body)
    listed = Request("GET", BASE_PATH + "/sequences/api/contact-enrollments/", query, KEY)
    assert sandbox.handle(upsert, 1e9).status in STATUSES
    assert sandbox.handle(listed, 1e9).status in STATUSES
    assert showable(sandbox)


@pytest.mark.parametrize(("depth", "status"), [(DEPTH_MAX - 2, 201), (DEPTH_MAX + 1, 400), (900, 400), (100_000, 400)])
def test_deep_nesting_has_a_limit(depth: int, status: int) -> None:
    """What is taken in can also be shown; brackets inside text are text."""
    sandbox = Sandbox(SandboxOptions(seed=1))
    nested = b'{"email": "a@example.com", "custom_fields": {"t": "%b", "x": %b%b}}' % (
        b"[" * 200,
        b"[" * depth,
        b"]" * depth,
    )
    assert sandbox.handle(Request("POST", BASE_PATH + "/contacts/upsert/", "", KEY, nested), 1e9).status == status
    assert showable(sandbox)
