"""Damaged configurations and rules files through `check --offline`: always problems with their places, never a bug."""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from click.testing import CliRunner

from bridge.cli import main
from tests.support.fuzz import damage
from tests.support.fuzz.case import API_KEY, Broken, Report, dice_of, hold, no_secret
from tests.support.fuzz.corpus import ROOT
from tests.support.fuzz.plant import ENVIRON, RULES

CONFIG: dict[str, Any] = {
    "kafka": {
        "bootstrap_servers": "localhost:9092",
        "group_id": "g",
        "properties": {"group.instance.id": {"env": "MEISA_API_KEY"}, "sasl.password": {"env": "KAFKA_PASSWORD"}},
        "offset_metadata_max_bytes": 4096,
    },
    "topics": {
        "user-events": {"format": "json", "start": "earliest", "keyed_by": "contact", "dedupe": "10m",
                        "envelope": {"id": "${value.id}", "type": "${value.type}", "data": "${value.data}"}},
        "billing": {"format": "avro", "registry": {"url": "https://r", "basic_auth": {"env": "REGISTRY_AUTH"}}},
        "cdc": {"format": "debezium", "encoding": "json"},
    },
    "meisa": {
        "environment": "test", "api_key": {"env": "MEISA_API_KEY"}, "keys": {"trigger": {"env": "MEISA_API_KEY"}},
        "quota": {"per_minute": 60, "per_hour": 1000, "reserve": 0.1, "shared": "partitions"}, "timeout": "10s",
        "idempotency_window": "55m", "retry": {"attempts": 10, "max_age": "15m"}, "max_in_flight": 64,
    },
    "rules": ["rules.yaml"],
    "dead_letters": {"topic": "letters", "stop_at": {"share": 0.2, "of": 500}},
    "state": {"url": "sqlite:///state.db", "unchanged_for": "1d"},
    "delivery": {"bulk_after": "1h", "unknown_contact_after": "10m", "scope_wait": "1h", "shutdown_timeout": "25s"},
    "admin": {"listen": "127.0.0.1:8080", "token": {"env": "ADMIN_TOKEN"}},
    "x-anchors": {"a": 1},
}  # fmt: skip
SNIPPETS = (
    "!!python/object/apply:os.system ['id']", "!!binary aGk=", "!custom x", "&a [*a]", "*missing", "<<: *missing",
    "<<: [1]",
    "? [complex, key]\n: 1", "- - - - -", "%YAML 1.1", "--- x", "...", "\t", "|", ">-", "{a: [}", "'", '"\\x',
    "# \x07", "\x00",
    "\ufeff", "\u2028", "=", "~", "no", "0o17", "0x_f", "1_000", ".inf", "-.nan", "2026-01-01", "12:30:45", "1e999",
    "${", "${}", "$${", "${data.", "${(((((((((((((", "${'" + "a" * 500, "${data.email or}", "${__import__('os')}",
    "${[x for x in [y for y in data]]}", "${lambda: 1}", "${data.a[0:1:2]}", "${" + "(" * 300 + "1" + ")" * 300 + "}",
    "${" + "-" * 2_000 + "1}", "${9**9**9}", "${'a' * 10**9}", "a: &x {b: *x}", "a: b: c", "on: off", "{env: NOT_SET}",
    "{file: /nonexistent}", "{env: [1]}", "{env: MEISA_API_KEY, file: x}", "{file: .}", "99999999999999999999d",
    "-1s", "1.5h",
)  # fmt: skip
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)


def rules_texts() -> list[str]:
    files = sorted((ROOT / "config" / "rules").glob("*.yaml"))
    return [RULES, *(file.read_text(encoding="utf-8") for file in files)]


def damaged_text(text: str, dice: Random) -> bytes:
    """The YAML text, changed in one to three places."""
    if dice.random() < 0.15:
        return damage.damaged(text.encode(), dice)
    lines = text.split("\n")
    start = dice.randrange(len(lines))
    lines = lines[: start + 200] if dice.random() < 0.5 else lines
    for _ in range(dice.choice((1, 1, 2, 3))):
        at = dice.randrange(len(lines))
        line = lines[at]
        roll = dice.randrange(9)
        piece = dice.choice(
            (*SNIPPETS, *damage.HOSTILE[:14], str(dice.choice(damage.EXTREMES)), str(dice.choice(damage.TIMES)))
        )
        if roll == 0:
            del lines[at : at + dice.choice((1, 1, 3))]
            lines = lines or [""]
        elif roll == 1:
            lines.insert(at, line)
        elif roll == 2:
            lines[at] = " " * dice.choice((1, 2, 4)) + line
        elif roll == 3:
            lines[at] = line[dice.choice((1, 2)) :]
        elif roll == 4 and ":" in line:
            lines[at] = f"{line.partition(':')[0]}: {piece}"
        elif roll == 5 and "${" in line:
            cut = line.index("${") + 2
            lines[at] = line[:cut] + piece.removeprefix("${") + line[cut:]
        elif roll == 6:
            lines.insert(at, piece)
        elif roll == 7 and line:
            cut = dice.randrange(len(line))
            lines[at] = line[:cut] + dice.choice("{}[]:,&*!|>'\"%@`#-?\t \x1b") + line[cut:]
        else:
            other = dice.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def case(seed: int, number: int, rules: list[str]) -> tuple[bytes, bytes]:
    """A configuration and a rules file, of which one is damaged."""
    dice = dice_of("file", seed, number)
    good = json.dumps(CONFIG).encode()
    if dice.random() < 0.02:
        return good, BOMB.encode() + dice.choice(rules).encode()
    if dice.random() < 0.5:
        return good, damaged_text(dice.choice(rules), dice)
    if dice.random() < 0.5:
        return damage.written(damage.tree(CONFIG, dice), dice).encode("utf-8", "surrogatepass"), rules[0].encode()
    text = (ROOT / "config" / "bridge.yaml").read_text(encoding="utf-8").replace("rules/*.yaml", "rules.yaml")
    if dice.random() < 0.5:
        text = re.sub(r"(?m)^( *)# (?=[a-z_-]+:)", r"\1", text)  # what is commented out there is in force here
    return damaged_text(text, dice), rules[0].encode()


def run_files(seed: int, count: int, first: int = 0) -> Report:
    """Raises Broken with the number of the case that breaks an invariant."""
    report = Report("files", seed, count)
    rules = rules_texts()
    with TemporaryDirectory() as folder, patch.dict("os.environ", ENVIRON):
        for number in range(first, first + count):
            config, rule = case(seed, number, rules)
            try:
                report.outcomes[_checked(Path(folder), config, rule, as_json=number % 2 == 1)] += 1
            except Broken as broken:
                again = f"again: make fuzz KIND=files SEED={seed} FIRST={number} COUNT=1"
                raise Broken(f"file {number} of seed {seed}: {broken}\n{again}") from None
    return report.ended()


def _checked(folder: Path, config: bytes, rules: bytes, *, as_json: bool) -> str:
    (folder / "bridge.yaml").write_bytes(config)
    (folder / "rules.yaml").write_bytes(rules)
    flags = ["--output-format", "json" if as_json else "text"]
    done = CliRunner().invoke(main, ["check", "--offline", "-c", str(folder / "bridge.yaml"), *flags])
    said = done.stdout + done.stderr
    hold(done.exception is None or isinstance(done.exception, SystemExit), f"{done.exception!r}: {said[-2_000:]}")
    hold("this is a bug" not in said and "Traceback" not in said, said[-2_000:])
    no_secret("what check says", said)
    hold(API_KEY not in said, "the key shows")
    hold(done.exit_code in (0, 1, 2), f"exit status {done.exit_code}")
    if done.exit_code == 1:
        if as_json:
            problems = json.loads(done.stdout)
            hold(any(each["severity"] == "error" and each["file"] for each in problems), f"no place: {said[:1_000]}")
        else:
            hold(re.search(r"\.yaml(:\d+(:\d+)?)?: error MB\d{3}: ", said), f"no problem with a place: {said[:1_000]}")
    if done.exit_code == 2:  # a missing secret is told with its place, and is status 2 all the same
        hold(done.stderr.startswith("meisa-bridge: ") or "MB013" in said, f"no clear line: {said[:1_000]}")
    return ("nothing wrong, or only warnings", "problems with places", "a file or secret cannot be read")[
        done.exit_code
    ]
