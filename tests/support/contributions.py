"""Which events' upserts a call stands for, said by the call itself: merging leaves only the newest event's number.

Rules made by `counted` put a tag into each upsert that tells its event's number, and tags are united when upserts
merge. The numbers are told modulo RING, so that a contact has no more tags than that: what merges are numbers close to
each other, because every few events of a user something else than an upsert is due.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

RING: Final = 128
"""A run of so many upserts with nothing else of the user between: once in a thousand million events of the stream."""

_TAG: Final = re.compile(r"n(\d+)")


def tag(number: int) -> str:
    """The tag of an upsert of the user's event `number`."""
    return f"n{number % RING}"


def counted() -> str:
    """The rules of the sandbox's demo, whose upserts carry their event's tag."""
    rules = files("bridge.sandbox").joinpath("demo_files", "rules.yaml").read_text(encoding="utf-8")
    ours = f'"n${{data.seq % {RING}}}"'
    made = []
    for upsert in rules.split("      - upsert:\n")[1:]:
        before, found, after = upsert.partition("          tag_names: [trial]\n")
        tags = f"          tag_names: [{'trial, ' if found else ''}{ours}]\n"
        made.append(f"      - upsert:\n{tags}{before}{after}")
    assert "".join(made).count("tag_names") == len(made), "an upsert of the demo has tags that are not known here"
    return rules.partition("      - upsert:\n")[0] + "".join(made)


def contributions(body: Mapping[str, Any]) -> list[int]:
    """Numbers of the events whose upserts this one stands for, ascending; empty where it does not tell."""
    newest = (body.get("custom_fields") or {}).get("seq")
    if not isinstance(newest, int):
        return []
    told = (_TAG.fullmatch(name) for name in body.get("tag_names") or ())
    return sorted(newest - (newest - int(found.group(1))) % RING for found in told if found is not None)
