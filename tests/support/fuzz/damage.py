"""Damage: what is done to good bytes, text and JSON to make bad ones of them. Pure: the dice decide everything."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\x1b[2J\x1b[31mred\x1b]0;title\x07",
    '\r\n{"level": "error", "event": "forged"}\r\n',
    "a\nX-Forged: 1\r\n\r\n",
    "%s%n%x%(asctime)s",
    "${event.id} $${ ${1/0} {0.__class__.__mro__} {{7*7}}",
    "../../../../etc/passwd\x00.json",
    "\u202egnp.exe\u2066\u2069",
    "\u2028\u2029\x85\x9b31m",
    "\x00\x01\x7f",
    "\ufeff\u200b\u00ad\uffff",
    "Ω≈ç√∫😀👩‍👩‍👧 İıßﬁ",
    "' OR 1=1; DROP TABLE contacts; --",
    "user.*",
    "[a-z]?*",
    "=cmd|'/c calc'!A0",
    "meisa_live_notARealKeyButLooksLikeOne",
    "constructor",
    "__proto__",
    "-",
    " ",
    "a" * 300,
    "é" * 2_000,
    "@",
    "a@b@c@example.com",
    "Ada@Example.com ",
)
TIMES = (
    "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "10000-01-01T00:00:00Z", "2026-02-30T00:00:00Z",
    "2026-01-01T00:00:00+99:99", "2026-01-01T24:00:00Z", "2016-12-31T23:59:60Z", "2026-W01-1", "2026-01-01", "now", "",
    -62_135_596_800, 253_402_300_800, 1e308, -1, 1_780_000_000, 1_780_000_000_000, 10**18, "1780000000",
)  # fmt: skip
EXTREMES = (
    0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 1e308, -1e-320, 0.1, -0.0, True, False, None, "",
    [], {}, [None], {"": None}, [[]], {"a": {"b": {"c": []}}},
)  # fmt: skip
RAW = (
    "NaN", "Infinity", "1e400", "-1e400", "18446744073709551616", "1" * 400, "0.1e-999", "01", "+1", ".5", "0x10",
    "'a'", "undefined", '"\\ud800"', '"\\u0000"', '"\\x41"', '"\t"', "// no", "1e5", "-0",
)  # fmt: skip


class Raw:
    """A piece of JSON as it is to be written, right or wrong."""

    def __init__(self, text: str) -> None:
        self.text = text


def leaf(dice: Random) -> Any:
    """A value that nobody expects."""
    roll = dice.random()
    if roll < 0.35:
        return dice.choice(HOSTILE)
    if roll < 0.5:
        return dice.choice(TIMES)
    if roll < 0.8:
        return copy.deepcopy(dice.choice(EXTREMES))
    if roll < 0.9:
        return Raw(dice.choice(RAW))
    if roll < 0.95:
        return nested(dice.choice((5, 30, 60, 126, 127, 128, 129, 300)), dice.random() < 0.5)
    return {dice.choice(HOSTILE): leaf(dice) for _ in range(dice.randint(1, 5))}


def nested(levels: int, objects: bool) -> Raw:
    return Raw('{"a":' * levels + "1" + "}" * levels if objects else "[" * levels + "]" * levels)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container with each of its keys."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        each = waiting.pop()
        names: Any = each if isinstance(each, dict) else range(len(each)) if isinstance(each, list) else ()
        for name in list(names):
            found.append((each, name))
            waiting.append(each[name])
    return found


def tree(value: Any, dice: Random) -> Any:
    """The JSON value, changed in one to four places."""
    value = copy.deepcopy(value)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        found = places(value)
        if not found:
            return leaf(dice)
        inside, name = dice.choice(found)
        roll = dice.random()
        if roll < 0.5:
            inside[name] = leaf(dice)
        elif roll < 0.65:
            del inside[name]
        elif roll < 0.75:
            inside[name] = [inside[name]] if dice.random() < 0.5 else {"value": inside[name]}
        elif roll < 0.85 and isinstance(inside, dict):
            inside[dice.choice(HOSTILE) if dice.random() < 0.5 else f"{name} "] = inside.pop(name)
        elif isinstance(inside[name], str):
            inside[name] += dice.choice(HOSTILE)
        else:
            other, its = dice.choice(found)
            if its in (other if isinstance(other, dict) else range(len(other))):
                inside[name] = copy.deepcopy(other[its])
    return value


def words(value: Any, dice: Random) -> Any:
    """The JSON value with hostile text in some of its texts, and its shape as it was: it gets far."""
    value = copy.deepcopy(value)
    spared = () if dice.random() < 0.1 else ("type", "time", "specversion", "op", "email")
    found = places(value)
    texts = [(inside, name) for inside, name in found if isinstance(inside[name], str) and name not in spared]
    person = dice.randrange(5_000)
    for inside, name in found:
        if name in ("email", "user_id") and dice.random() < 0.95:
            inside[name] = f"{name[0]}{person}@example.com" if name == "email" else f"u_{person}"
    for inside, name in dice.sample(texts, min(len(texts), dice.randint(1, 3))):
        hostile = dice.choice(HOSTILE)
        inside[name] = hostile if dice.random() < 0.5 else f"{hostile}{inside[name]}"
    return value


def written(value: Any, dice: Random) -> str:
    """JSON text; now and then with a name twice, or all of it in escapes."""
    plain = dice.random() < 0.5

    def write(value: Any) -> str:
        if isinstance(value, Raw):
            return value.text
        if isinstance(value, dict):
            items = [f"{write(str(name))}:{write(each)}" for name, each in value.items()]
            if items and dice.random() < 0.02:
                items.append(f"{items[0].partition(':')[0]}:{write(leaf(dice))}")
            return "{" + ",".join(items) + "}"
        if isinstance(value, list):
            return "[" + ",".join(map(write, value)) + "]"
        return json.dumps(value, ensure_ascii=plain)

    return write(value)


def damaged(data: bytes, dice: Random) -> bytes:
    """The bytes, changed in one to five places: flipped, cut, repeated, overwritten, moved."""
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 5))):
        if not changed:
            changed += dice.randbytes(dice.randint(1, 40))
            continue
        at = dice.randrange(len(changed))
        roll = dice.randrange(9)
        if roll == 0:
            changed[at] ^= 1 << dice.randrange(8)
        elif roll == 1:
            changed[at] = dice.choice(b'\x00\xff\x7f\x80"\\{}[],:\n\xc0\xed')
        elif roll == 2:
            del changed[at : at + dice.choice((1, 1, 4, 40))]
        elif roll == 3:
            del changed[at:]
        elif roll == 4:
            changed[at:at] = changed[max(0, at - dice.randint(1, 60)) : at] * dice.choice((1, 2, 20))
        elif roll == 5:
            changed[at:at] = dice.choice(
                (b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\xc0\x80", b"\xff\xfe", b"\x00" * 8)
            )
        elif roll == 6:
            changed[at : at + 4] = dice.randbytes(4)
        elif roll == 7:
            changed[at : at + 10] = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"  # a varint without an end
        else:
            changed = changed[at:] + changed[:at]
    return bytes(changed)
