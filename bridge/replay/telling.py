"""Dead letters as JSON's types, for commands and pages: masked as `admin.show_contacts` says."""

from __future__ import annotations

import json
from typing import Any

from bridge.model import Record
from bridge.observe.masking import mask, mask_contact
from bridge.replay.letters import PREFIX, parse
from bridge.replay.outlook import Outlook
from bridge.replay.shelf import Found


def plain(found: Found, record: Record | None = None, *, show_contacts: bool) -> dict[str, Any]:
    """A letter as JSON's types; with its record, everything."""
    letter = found.letter if record is None else parse(record)
    told: dict[str, Any] = {
        "letter": str(letter.place),
        "source": str(letter.source),
        "kind": letter.kind,
        "rule": letter.rule or None,
        "action": letter.action or None,
        "status": _number(letter.status),
        "message": letter.message,
        "attempts": _number(letter.attempts),
        "failed_at": letter.failed_at,
        "undelivered_ids": list(letter.ids),
        "replays": letter.replays,
        "copies": found.copies,
        "state": found.state.value,
        "state_message": found.message or None,
    }
    if record is not None:
        told |= {
            "request": letter.request or None,
            "response": letter.response or None,
            "undelivered": _positions(record),
            "source_timestamp": letter.source_timestamp_ms,
            "key": _text(record.key),
            "value": _text(record.value),
            "whole": letter.whole,
            "headers": [[name, _text(value)] for name, value in record.headers if not name.startswith(PREFIX)],
        }
    masked: dict[str, Any] = mask(told, show_contacts=show_contacts)
    return masked


def _positions(record: Record) -> list[int]:
    """The places of the undelivered actions in the event's plan."""
    text = dict(record.headers).get(PREFIX + "undelivered") or b"[]"
    try:
        positions = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return [each for each in positions if isinstance(each, int)] if isinstance(positions, list) else []


def plain_outlook(look: Outlook, *, show_contacts: bool) -> dict[str, Any]:
    """What a replay would do, as JSON's types."""
    return {
        "sends": [
            {
                "action": each.kind,
                "contact": each.contact if show_contacts else mask_contact(each.contact),
                "what": each.what or None,
                "fields": list(each.fields),
                "left_out": list(each.left_out),
            }
            for each in look.sends
        ],
        "undone_by_later_events": list(look.undone),
        "done_before": look.done,
        "fails": [mask(each, show_contacts=show_contacts) for each in look.fails],
        "problem": mask(look.problem, show_contacts=show_contacts) or None,
        "left_out_unknown": look.unknown or None,
    }


def outlook_lines(look: Outlook, *, show_contacts: bool) -> list[str]:
    """The same for people, one sentence each."""
    told = plain_outlook(look, show_contacts=show_contacts)
    lines = []
    for each in told["sends"]:
        what = " ".join(part for part in (each["action"], each["what"], "for", each["contact"]) if part)
        fields = ", ".join(each["fields"]) or "no fields"
        lines.append(f"sends {what}: {fields}")
        if each["left_out"]:
            lines.append(f"leaves out what later events wrote: {', '.join(each['left_out'])}")
    lines += [f"sends no {kind}: later events undid it" for kind in told["undone_by_later_events"]]
    if told["done_before"]:
        lines.append(f"{told['done_before']} of its actions were carried out before")
    lines += [f"rule {each}; a fresh letter stands for it" for each in told["fails"]]
    if told["problem"]:
        lines.append(f"sends nothing: {told['problem']}")
    if told["left_out_unknown"]:
        lines.append(f"which fields it leaves out is not known: {told['left_out_unknown']}")
    return lines or ["sends nothing: the rules plan nothing for it now"]


def _number(text: str) -> int | None:
    """None for what no bridge wrote: anybody may write to the topic, and `int` refuses thousands of digits."""
    return int(text) if text.isdecimal() and len(text) < 10 else None


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")
