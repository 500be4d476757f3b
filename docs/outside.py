"""The reference of what programs of others meet: routes over HTTP, the JSON of the status, headers of dead letters.

The tables here are held by tests/unit/docs/test_docs_outside.py: to the application's routes and what they answer, and
to the headers that are written. What the status holds comes from bridge/observe/snapshot.py and its docstrings.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass

from bridge.observe import snapshot
from bridge.web.serving import CONNECTIONS_MAX, HEAD_BYTES_MAX, REQUEST_BYTES_MAX, REQUEST_SECONDS_MAX
from docs.reference import GENERATED, table


@dataclass(frozen=True, slots=True)
class Route:
    """A path as the application knows it."""

    method: str
    path: str
    token: bool
    """Whether it needs the token, where one is set."""
    answers: str


ROUTES: tuple[Route, ...] = (
    Route("GET", "/", True, "the [dashboard](dashboard.md), as HTML"),
    Route("GET", "/livez", False, "200 `ok`; 503 with the reason where only a new process helps"),
    Route("GET", "/readyz", False, '200 `{"ready": true}`: in the group, even without partitions, and the key not '
          'refused. Else 503 `{"ready": false, "reason": …}`'),
    Route("GET", "/metrics", False, "[metrics](metrics.md) for Prometheus"),
    Route("GET", "/api/status", True, "[JSON](status-json.md): what [`meisa-bridge status`](status.md) shows"),
    Route("GET", "/api/live", True, "server-sent events: the dashboard's sections whenever they change. 503 while "
          "too many pages are open"),
    Route("POST", "/api/topics/{topic}/resume", True, "goes on with a topic that its dead letters stopped: 200 "
          '`{"resumed": …}`; 404, not a topic of this instance; 409, not stopped'),
    Route("GET", "/dead-letters", True,
          "[dead letters](dead-letters.md#on-the-page), the newest first, as HTML; `?kind=`, `rule=`, `state=`,"
          " `page=`"),
    Route("GET", "/dead-letters/{topic}/{partition}/{offset}", True,
          "one of them"),
    Route("GET", "/dead-letters/replay", True,
          "what a replay would send, and the form that asks for it; of `?letter=`s, or of all that `kind=`, "
          "`rule=`, `state=` choose"),
    Route("GET", "/dead-letters/discard", True,
          "the same for discarding"),
    Route("POST", "/dead-letters/replay", True,
          "the form; it holds a word without which it is refused (403). 303, back to the letter or the list; "
          "409 where nothing could be asked for; 503 where Kafka does not answer"),
    Route("POST", "/dead-letters/discard", True,
          "the same for discarding"),
    Route("GET", "/api/dead-letters", True,
          "JSON: `letters` (the newest first), `matching`, `page`, `pages`, `looked_at`, `left_out`, `as_of`, "
          "`states`, `reading`, `problem`. `?kind=`, `rule=`, `state=` (`all`; else those that need somebody) "
          "may be repeated; `limit=` up to 500, `page=` from 0. 503 where they cannot be read"),
    Route("GET", "/api/dead-letters/{topic}/{partition}/{offset}", True,
          "JSON: everything of one, by its own place or its record's; 404, not among the newest; 409, several "
          "are about that record"),
    Route("POST", "/api/dead-letters/{topic}/{partition}/{offset}/replay", True,
          'asks for a replay; as JSON, if anything: `{"overwrite": true, "send_again": true, "dry_run": true}`.'
          ' 202 `{"requested": …}`; a dry run 200 `{"would_send": …}`; 409 with the reason why it cannot be'),
    Route("POST", "/api/dead-letters/{topic}/{partition}/{offset}/discard", True,
          'marks it as settled: 200 `{"discarded": …}`; 409 where it is settled'),
    Route("GET", "/letters.js", False, "the script of the pages of dead letters"),
    Route("GET", "/dashboard.css", False, "the page's style"),
    Route("GET", "/dashboard.js", False, "the page's script"),
    Route("GET", "/favicon.ico", False, "the page's icon"),
)  # fmt: skip

HEADERS: dict[str, str] = {
    "kind": "why it is here: `decode`, `rule`, `rejected`, `exhausted`, `expired`, `unknown_contact` or "
    "`unknown_outcome`",
    "rule": "the rule whose action failed, or that failed itself",
    "action": "the kind of action: `upsert`, `trigger` …",
    "status": "the HTTP status of Meisa's answer",
    "message": "what was wrong, in one line; at most 4 KiB",
    "request": "the body that was sent, as JSON; at most 4 KiB",
    "response": "Meisa's answer; at most 4 KiB, API keys masked",
    "attempts": "how often it was sent",
    "failed_at": "when it was given up, ISO 8601",
    "source.topic": "where the record came from",
    "source.partition": "its partition",
    "source.offset": "its offset",
    "source.timestamp": "its timestamp, milliseconds since 1970",
    "undelivered": "JSON list: positions of the actions that were not delivered; a replay sends these",
    "undelivered_ids": "JSON list: the same actions by the ids that they have for ever",
    "replays": "how often the record was replayed and failed again; 0 at first",
    "value_omitted": "the value's size, where the letter with its value was too large for the broker",
    "key_omitted": "`true`, where even the key did not fit",
    "headers_omitted": "how many headers of the record did not fit",
}


def http() -> str:
    """docs/http.md"""
    rows = [
        (f"`{route.method} {route.path}`", "where one is set" if route.token else "never", route.answers)
        for route in ROUTES
    ]
    return f"""{GENERATED}
# Over HTTP

What the bridge serves on `admin.listen` (`127.0.0.1:8080`). Another address than this machine's own needs `admin.token`
([configuration.md](configuration.md#admin)). Addresses of people are masked unless `admin.show_contacts: true`.

{table(("request", "token", "answers"), rows)}
`HEAD` is answered wherever `GET` is. The token comes as `Authorization: Bearer …`, or as the password of basic
authentication, with any name; without it the answer is 401.

What needs a token where one is set is answered only under a name of the host that is known (else 403): any name with a
token, unless `admin.allowed_hosts` names some; without one `localhost`, addresses, the name of `admin.listen`, and
`admin.allowed_hosts`. Another site could make a name of its own point here. What changes something is refused (403) to
pages of other sites too, by `Origin` and `Sec-Fetch-Site`.

Every answer carries a strict content security policy, `cache-control: no-store`, `x-content-type-options: nosniff` and
`x-frame-options: DENY`. At most {CONNECTIONS_MAX} connections are open at once: the one that has asked for nothing for
longest gives way. A request that is not complete within {REQUEST_SECONDS_MAX:g} s is answered 408; a head of more than
{HEAD_BYTES_MAX:,} bytes 431, a request of more than {REQUEST_BYTES_MAX:,} bytes 413.
"""


def headers() -> str:
    """docs/dead-letter-headers.md"""
    rows = [(f"`meisa-bridge.{name}`", meaning) for name, meaning in HEADERS.items()]
    return f"""{GENERATED}
# Headers of dead letters

A dead letter is the record as it came (key, value, and its own headers in their order), and beside them headers as
text in UTF-8. Those that would be empty are left out. [dead-letters.md](dead-letters.md) tells what to do with
letters.

{table(("header", ""), rows)}"""


SUMMARY: dict[str, tuple[str, str]] = {
    "ready": ("true or false", "as `/readyz` has it"),
    "unready_reason": ("text or null", "why it is not"),
    "lag": ("whole number or null", "over all partitions; null while that of any is unknown"),
    "uptime_seconds": ("number", ""),
    "started_at": ("text", "ISO 8601"),
    "taken_at": ("text", "ISO 8601: of this moment are all figures"),
    "slowest_contacts": (
        "list of [SlowContact](#slowcontact)",
        "those whose oldest work has been here longest; masked",
    ),
}
"""What the status adds to the snapshot."""

_WORDS = {
    "str": "text", "int": "whole number", "float": "number", "bool": "true or false", "None": "null",
    "Mapping[str, int]": "map: whole number",
}  # fmt: skip


_OF_CODE, _MASKED = "to be masked before anybody sees it (bridge/web/page.py)", "masked unless `admin.show_contacts`"


def _fields(made: ast.ClassDef) -> Iterator[tuple[str, str, str]]:
    """Each with its type and what its docstring says."""
    for here, after in zip(made.body, [*made.body[1:], None], strict=True):
        if isinstance(here, ast.AnnAssign) and isinstance(here.target, ast.Name):
            said = after.value if isinstance(after, ast.Expr) else None
            text = said.value if isinstance(said, ast.Constant) and isinstance(said.value, str) else ""
            yield (
                here.target.id,
                _words(ast.unparse(here.annotation)),
                " ".join(text.split()).replace("None", "null").replace(_OF_CODE, _MASKED),
            )


def _words(annotation: str) -> str:
    if listed := re.fullmatch(r"tuple\[(.+), \.\.\.\]", annotation):
        return f"list of {_words(listed[1])}"
    if pair := re.fullmatch(r"tuple\[(.+), (.+)\]", annotation):
        return f"[{_words(pair[1])}, {_words(pair[2])}]"
    arms = [_WORDS.get(arm, f"[{arm}](#{arm.lower()})") for arm in annotation.split(" | ")]
    return " or ".join(arms)


def status() -> str:
    """docs/status-json.md"""
    classes = [each for each in ast.parse(inspect.getsource(snapshot)).body if isinstance(each, ast.ClassDef)]
    (whole,) = [each for each in classes if each.name == "Snapshot"]
    head = ("field", "is", "")
    top = [(name, *said) for name, said in SUMMARY.items()] + list(_fields(whole))
    page = f"""{GENERATED}
# The status as JSON

What `/api/status` answers ([http.md](http.md)), and `meisa-bridge status --json`, which adds `drain`. It tells of one
instance. Names that end in `_seconds` are seconds, `_wall_seconds`
seconds since 1970.

{table(head, ((f"`{name}`", kind, said) for name, kind, said in top))}"""
    for made in classes:
        if made is not whole:
            said = " ".join((ast.get_docstring(made) or "").split("No part of")[0].split())
            rows = ((f"`{name}`", kind, text) for name, kind, text in _fields(made))
            page += f"\n## {made.name}\n\n{said}\n\n{table(head, rows)}"
    return page
