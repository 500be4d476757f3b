"""The pages of dead letters: the list, one letter, and what is asked before something is done.

They work without JavaScript: forms and links. With it, what has the class `live` is kept as it is now (letters.js);
without it a page that waits for something loads itself again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from bridge.replay.outlook import Key, Outlook
from bridge.replay.shelf import Found
from bridge.replay.telling import outlook_lines
from bridge.replay.wishes import Wishes, counted
from bridge.web.html import Markup, cell, code, duration, table, text
from bridge.web.letters import KINDS, STATES, Facts, Filter, row
from bridge.web.page import static

RULES_MAX = 200
"""Names of rules that the filter offers."""
SKIPPED_MAX = 20
RELOAD = '<noscript><meta http-equiv="refresh" content="5"></noscript>'
"""Only while something is under way: without a script a page that loads itself disturbs who fills in a form."""

COLUMNS = ("letter", "age", "state", "kind", "rule", "action", "contact", "message", "replays", "record")
"""What is needed first stands first: on a narrow screen the rest is scrolled to."""

Pairs = Sequence[tuple[str, str]]


def page(title: str, body: str, *, waits: bool = False, lives: bool = True) -> str:
    return (
        static("letters.html")
        .replace("{refresh}", RELOAD if waits else "")
        .replace("{script}", '<script src="/letters.js" defer></script>' if lives else "")
        .replace("{title}", text(title))
        .replace("{body}", body)
    )


# The list


def list_page(facts: Facts, filter: Filter, rules: Iterable[str], topic: str, done: str = "") -> str:
    body = (
        (f'<p class="verdict good" role="status">{text(done)}</p>' if done else "")
        + f'<div id="notice" class="live">{_notice(facts, topic)}</div>'
        + _filter_form(filter, rules)
        + f'<section aria-label="Letters"><div id="letters" class="live">{_list(facts, filter)}</div></section>'
    )
    under_way = facts["reading"] or any(each["state"] == "requested" for each in facts["letters"])
    return page("Dead letters", body, waits=under_way)


def _notice(facts: Facts, topic: str) -> str:
    """What is known of how whole and how new the list is."""
    lines = []
    if facts["problem"]:
        since = f"What is shown is as of {facts['as_of']}. " if facts["as_of"] else ""
        lines.append(
            f'<p class="verdict bad">The dead letters cannot be read: {text(facts["problem"])}. {text(since)}'
            "It is tried again.</p>"
        )
    if facts["reading"]:
        lines.append('<p class="verdict soon">The dead letters are being read; this takes a moment.</p>')
    if facts["as_of"]:
        counts = ", ".join(f"{count:,} {state.replace('_', ' ')}" for state, count in facts["states"].items())
        about = f"Topic {topic}, as of {facts['as_of']}: {counts or 'no dead letters'}."
        if facts["left_out"]:
            about += (
                f" {facts['left_out']:,} older records are not looked at here; "
                "all of them: meisa-bridge dlq list --all."
            )
        if facts["states_left_out"]:
            about += " Replays that were asked for long ago may be missing from the states."
        lines.append(f'<p class="quiet">{text(about)}</p>')
    return "".join(lines)


def _filter_form(filter: Filter, rules: Iterable[str]) -> str:
    names = sorted({*rules, *filter.rules})[:RULES_MAX]
    states = [("", "needs somebody"), ("all", "all"), *((state, state.replace("_", " ")) for state in STATES)]
    return (
        '<form class="filter" method="get" action="/dead-letters" role="search" aria-label="Which dead letters">'
        + _select("kind", "Kind", [("", "all"), *((kind, kind) for kind in KINDS)], filter.kinds)
        + _select("rule", "Rule", [("", "all"), *((name, name) for name in names)], filter.rules)
        + _select("state", "State", states, filter.states)
        + "<button>Show</button></form>"
    )


def _select(name: str, label: str, options: Pairs, chosen: Sequence[str]) -> str:
    made = "".join(
        f'<option value="{text(value)}"{" selected" if value in chosen else ""}>{text(shown)}</option>'
        for value, shown in options
    )
    return f'<label>{label} <select name="{name}">{made}</select></label>'


def _list(facts: Facts, filter: Filter) -> str:
    rows = [_row(each) for each in facts["letters"]]
    query = pairs_of(filter)
    empty = "None that match." if facts["as_of"] else "Not known yet."
    made = table("letters", f"{counted(facts['matching'])}, the newest first", COLUMNS, rows, empty)
    if facts["letters"]:
        them = "it" if facts["matching"] == 1 else f"all {facts['matching']:,}"
        made += _pager(facts, query) + (
            '<div class="actions">'
            + _button("/dead-letters/replay", f"Replay {them} …", query, "replay-these")
            + _button("/dead-letters/discard", f"Discard {them} …", query, "discard-these")
            + "</div>"
        )
    return made


def _row(each: Facts) -> tuple[Any, ...]:
    return (
        _link(each["letter"]),
        Markup(f'<span class="number">{"" if each["age_seconds"] is None else duration(each["age_seconds"])}</span>'),
        _state(each),
        each["kind"],
        each["rule"] or "",
        _action(each),
        each["contact"] or "",
        _short(each["message"]),
        str(each["replays"]),
        each["source"],
    )


def _action(each: Facts) -> str:
    return (each["action"] or "") + (f" ({each['status']})" if each["status"] else "")


def _state(each: Facts) -> Markup:
    message = f" <small>{text(_short(each['state_message']))}</small>" if each["state_message"] else ""
    return Markup(f'<span class="state {text(each["state"])}">{text(each["state"].replace("_", " "))}</span>{message}')


def _short(message: str, length: int = 200) -> str:
    return message if len(message) <= length else message[: length - 1] + "…"


def _link(letter: str) -> Markup:
    name = letter.split("/", 1)[1]
    return Markup(f'<a id="letter-{text(name.replace("/", "-"))}" href="{text(path_of(letter))}">{text(name)}</a>')


def path_of(letter: str) -> str:
    return f"/dead-letters/{quote(letter)}"


def _pager(facts: Facts, query: Pairs) -> str:
    page, pages = facts["page"], facts["pages"]
    if pages == 1:
        return ""

    def link(number: int, name: str) -> str:
        address = "/dead-letters?" + urlencode([*query, ("page", str(number))])
        return f'<a href="{text(address)}">{name}</a>'

    newer = link(page - 1, "Newer") if page else ""
    older = link(page + 1, "Older") if page + 1 < pages else ""
    return f'<nav class="pager" aria-label="Older and newer letters">{newer} Page {page + 1} of {pages} {older}</nav>'


def pairs_of(filter: Filter) -> list[tuple[str, str]]:
    """The filter as a query or the fields of a form."""
    return [
        *(("kind", kind) for kind in filter.kinds),
        *(("rule", rule) for rule in filter.rules),
        *(("state", state) for state in filter.states),
    ]


def _hidden(pairs: Pairs) -> str:
    return "".join(f'<input type="hidden" name="{text(name)}" value="{text(value)}">' for name, value in pairs)


def _button(action: str, words: str, pairs: Pairs, id: str) -> str:
    return f'<form method="get" action="{action}">{_hidden(pairs)}<button id="{id}">{text(words)}</button></form>'


# One letter


def letter_page(facts: Facts) -> str:
    letter = facts["letter"]
    own = [("letter", letter)]
    status = f'<div id="state" class="live" role="status"><p>{cell(_state(facts))}</p></div>'
    waits = facts["state"] in ("open", "requested", "failed", "replayed", "discarded")
    actions = (
        '<div id="actions" class="actions live">'
        + (_button("/dead-letters/replay", "Replay …", own, "replay") if waits else "")
        + (
            _button("/dead-letters/discard", "Discard …", own, "discard")
            if facts["state"] in ("open", "requested", "failed")
            else ""
        )
        + "</div>"
    )
    remark = ""
    if facts["kind"] == "unknown_outcome":
        remark = (
            '<p class="verdict soon">It may have been sent: Meisa did not answer in time. '
            "Look there first; it is sent again only if you say so.</p>"
        )
    names = ("kind", "rule", "action", "contact", "message", "status", "attempts", "failed_at", "source", "replays")
    facts = {**facts, "undelivered": ", ".join(map(str, facts["undelivered"])), "copies": str(facts["copies"])}
    about = [(name.replace("_", " "), facts[name]) for name in names if facts[name] not in (None, "")]
    if facts["undelivered"]:
        about.append(("undelivered actions", f"at position {facts['undelivered']} of the event's plan"))
    if facts["undelivered_ids"]:
        about.append(("their ids", ", ".join(facts["undelivered_ids"])))
    if facts["copies"] != "1":
        about.append(("written", f"{facts['copies']} times; it is replayed once"))
    body = (
        remark
        + status
        + actions
        + f'<section aria-labelledby="why"><h2 id="why">Why</h2>{_list_of(about)}</section>'
        + _block("request", "What was asked", facts["request"])
        + _block("response", "What was answered", facts["response"])
        + _record(facts)
    )
    return page(f"Dead letter {letter}", body, waits=facts["state"] == "requested")


def _list_of(rows: Iterable[tuple[str, Any]]) -> str:
    made = "".join(f"<div><dt>{text(name)}</dt><dd>{text(str(value))}</dd></div>" for name, value in rows)
    return f'<dl class="facts">{made}</dl>'


def _block(name: str, title: str, value: str | None) -> str:
    if not value:
        return ""
    return (
        f'<section aria-labelledby="{name}"><h2 id="{name}">{title}</h2>'
        f'<pre tabindex="0" role="region" aria-label="{title}">{text(value)}</pre></section>'
    )


def _record(facts: Facts) -> str:
    rows = [("key", "null" if facts["key"] is None else facts["key"])]
    rows += [(f"header {name}", "null" if value is None else value) for name, value in facts["headers"]]
    if facts["headers_left_out"]:
        rows.append(("headers", f"{facts['headers_left_out']} more"))
    if not facts["whole"]:
        rows.append(("value", "it was too large for the dead-letter topic; a replay reads it at its source"))
    else:
        rows.append(("value", "null" if facts["value"] is None else f"{facts['value_bytes']:,} bytes"))
    value = f'<pre tabindex="0" role="region" aria-label="Value">{text(facts["value"])}</pre>' if facts["value"] else ""
    return f'<section aria-labelledby="record"><h2 id="record">Its record</h2>{_list_of(rows)}{value}</section>'


# Before something is done


def replay_page(
    wishes: Wishes,
    looks: Mapping[Key, Outlook],
    *,
    remark: str,
    pairs: Pairs,
    options: Mapping[str, bool],
    offers: Mapping[str, bool],
    csrf: str,
    now: float,
    show_contacts: bool,
    problem: str = "",
) -> str:
    """What a replay would do; `pairs` name the letters, `offers` tell which options make a difference."""
    count = len(wishes.chosen)
    boxes = [
        _box("overwrite", "Overwrite: send fields too that later events of the contact wrote", options["overwrite"])
    ]
    if offers["send_again"]:
        boxes.append(
            _box("send_again", "Send again what may have been sent, or was replayed already", options["send_again"])
        )
    again = (
        '<button id="look" formmethod="get" formaction="/dead-letters/replay">Look again with these options</button>'
    )
    send = f'<button id="send" class="go">Replay {counted(count)}</button>' if count else ""
    asked = [name for name in ("overwrite", "send_again") if options[name]]
    warning = wishes.consequence(**options) if count and asked else ""
    body = (
        _problem(problem)
        + f"<p><strong>{counted(count)}</strong> would be replayed, in the order of their records, within the quota. "
        "Only what was not delivered is sent, under its first idempotency key.</p>"
        + (f'<p class="verdict soon" id="warning">{text(warning)}</p>' if warning else "")
        + '<form class="decide" method="post" action="/dead-letters/replay">'
        + _hidden([*pairs, ("csrf", csrf)])
        + f'<fieldset><legend>Options</legend>{"".join(boxes)}</fieldset><div class="actions">{send}{again}'
        + '<a href="/dead-letters">Do nothing</a></div></form>'
        + _outlooks(wishes, looks, remark, now, show_contacts=show_contacts)
        + _skipped(wishes)
    )
    return page("Replay dead letters", body, lives=False)


def discard_page(wishes: Wishes, *, pairs: Pairs, csrf: str, now: float, show_contacts: bool, problem: str = "") -> str:
    count = len(wishes.chosen)
    send = f'<button id="send" class="go">Discard {counted(count)}</button>' if count else ""
    rows = [_row(row(each, now, show_contacts=show_contacts)) for each in wishes.chosen[:SKIPPED_MAX]]
    more = f"The first {SKIPPED_MAX} of {count:,}." if count > SKIPPED_MAX else ""
    body = (
        _problem(problem)
        + f"<p><strong>{counted(count)}</strong> would be marked as settled: what they name is not delivered. "
        "Nothing is deleted, and a discarded letter can still be replayed by itself.</p>"
        + '<form class="decide" method="post" action="/dead-letters/discard">'
        + _hidden([*pairs, ("csrf", csrf)])
        + f'<div class="actions">{send}<a href="/dead-letters">Do nothing</a></div></form>'
        + f"<section>{table('which', 'Which', COLUMNS, rows, 'None.', more)}</section>"
        + _skipped(wishes)
    )
    return page("Discard dead letters", body, lives=False)


def _problem(problem: str) -> str:
    return f'<p class="verdict bad" role="alert">{text(problem)}</p>' if problem else ""


def _box(name: str, words: str, checked: bool) -> str:
    return (
        f'<label class="box"><input type="checkbox" name="{name}" value="yes"{" checked" if checked else ""}> '
        f"{text(words)}</label>"
    )


def _outlooks(wishes: Wishes, looks: Mapping[Key, Outlook], remark: str, now: float, *, show_contacts: bool) -> str:
    rows = []
    for each in wishes.chosen:
        look = looks.get((each.letter.source, each.letter.name))
        if look is None:
            continue
        lines = "".join(f"<li>{text(on_page(line))}</li>" for line in outlook_lines(look, show_contacts=show_contacts))
        facts = row(each, now, show_contacts=show_contacts)
        rows.append((_link(facts["letter"]), Markup(f"<ul>{lines}</ul>"), each.letter.kind, each.letter.rule))
    if not rows:
        return f"<section><p>{text(on_page(remark))}</p></section>" if remark else ""
    made = table("outlook", "What would be sent now", ("letter", "it", "kind", "rule"), rows, "", on_page(remark))
    return f"<section>{made}</section>"


def _skipped(wishes: Wishes) -> str:
    if not wishes.skipped:
        return ""
    rows = [(_link(str(each.letter.place)), on_page(why), each.letter.kind) for each, why in wishes.skipped]
    more = f"The first {SKIPPED_MAX} of {len(rows):,}." if len(rows) > SKIPPED_MAX else ""
    made = table("skipped", f"{counted(len(rows))} left out", ("letter", "why", "kind"), rows[:SKIPPED_MAX], "", more)
    return f"<section>{made}</section>"


def on_page(words: str) -> str:
    """What was written for the command line, where the options are boxes."""
    return words.replace("--send-again", "“Send again”").replace("--overwrite", "“Overwrite”")


def offers_send_again(letters: Iterable[Found]) -> bool:
    return any(each.letter.kind == "unknown_outcome" or each.state.value == "replayed" for each in letters)


def missing_page(problem: str) -> str:
    body = f'<p class="verdict bad" role="alert">{text(problem)}</p><p>{cell(code("meisa-bridge dlq list --all"))}</p>'
    return page("Dead letters", body, lives=False)
