"""Writes the pages that are made from the code: python docs/generate.py

docs/problems.md comes from the tables of codes, docs/expressions.md from the published functions, docs/metrics.md from
the catalogue of metrics; docs/reference.py and docs/outside.py make the rest of the reference. Every result among the
expressions is computed here, by the language itself. A test compares the pages with what would be written.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # as a script it finds its own folder only
    sys.path.insert(0, str(Path(__file__).parents[1]))

from bridge import preflight
from bridge.config import codes as config_codes
from bridge.model import Event, Record
from bridge.observe.catalogue import CATALOGUE, WAITING_FOR_REASONS, Definition, Label
from bridge.rules import ENVELOPE_NAMES, RULE_NAMES, compile_expression, scan, source, unit
from bridge.rules import codes as rule_codes
from bridge.rules.functions import FUNCTIONS, METHODS, Function
from bridge.rules.operations import ITEMS_MAX, TEXT_MAX
from docs import outside, reference
from docs.reference import GENERATED
from docs.reference import sentence as _sentence
from docs.reference import table as _table

DOCS = Path(__file__).parent

TABLES: tuple[tuple[str, str, Mapping[str, str]], ...] = (
    ("Configuration", "What can be wrong with `bridge.yaml` and the environment. Known offline.", config_codes.CODES),
    ("Rules", "What can be wrong with rules, expressions, handlers. Known offline.", rule_codes.CODES),
    ("Outside", "What Kafka and Meisa say when `check` asks them (without `--offline`).", preflight.CODES),
)

SAMPLE: dict[str, Any] = {
    "plan": "pro",
    "plans": ["free", "pro"],
    "amount": 1250,
    "from": "free",
    "first name": "Ada",
    "nothing": None,
    "lines": [{"sku": "a", "count": 2}, {"sku": "b", "count": 0}],
}

OPERATORS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("`data.plan`", "a field; keywords are fields too", ("data.plan", "data.from")),
    ('`data["first name"]`', "a field by its text, an item by its number from 0, or from the end by -1",
     ('data["first name"]', "data.lines[-1].sku")),
    ("`x[a:b]`", "a part of a text or list", ("data.plan[0:2]", "data.plans[1:]")),
    ("`+ - * / // %`", "arithmetic; + also joins texts and lists",
     ("-data.amount / 100", "'plan ' + data.plan", "7 // 2")),
    ("`== != < <= > >=`", "comparisons, also in a chain", ("data.plan != 'free'", "0 < data.amount <= 2000")),
    ("`in`, `not in`", "whether a list has an item, an object a field, a text a part",
     ("'pro' in data.plans", "'x' not in data.plan")),
    ("`and or not`", "conditions; what is decided already is not evaluated",
     ("data.plan == 'pro' and data.amount > 0", "not has(data.trial) or data.trial < 3")),
    ("`a if c else b`", "one of two values", ("'paid' if data.amount else 'free'",)),
    ("`[…]`, `{…}`", "lists and objects", ("[data.plan, 1]", "{'plan': data.plan}")),
    ("`[… for x in … if …]`", "a list or object made from another",
     ("[line.sku for line in data.lines if line.count]", "{line.sku: line.count for line in data.lines}")),
)  # fmt: skip

MISSING: tuple[tuple[str, str], ...] = (
    ("in a `when`", "the condition is false; it is counted, so that a misspelt field shows"),
    ("elsewhere", "the rule fails for that event: a dead letter of kind `rule` names the path"),
    ("`optional(x)`", "leaves the field out of the request where it is the whole value, else null"),
    ("`default(x, y)`", "`y`"),
    ("`has(x)`", "false"),
    ("`missing: omit` on the action", "leaves out each field that needs it, never those that name the contact"),
)


def evaluated(expression: str) -> str:
    """The value of an expression on the sample event, as JSON."""
    record = Record("user-events", 0, 0, 1_767_323_045_000, None, b"{}")
    time = "2026-01-02T03:04:05Z"
    event = Event(id="e1", type="plan.changed", time=time, time_wall_seconds=0.0, data=SAMPLE, record=record)
    return json.dumps(compile_expression(expression).evaluate(event), ensure_ascii=False)


def problems() -> str:
    """docs/problems.md"""
    page = f"""{GENERATED}
# Problems and their codes

`meisa-bridge check` and `meisa-bridge run` tell every mistake in one line: where it stands, its code, what is wrong,
and in parentheses what to write instead.

    config/bridge.yaml:3:1: error MB004: unknown key `meissa` (did you mean `meisa`?)

A code never changes its meaning and is never used again, so scripts can rely on it (`check --output-format json`).
Errors end with status 1; MB013 and MB055, a secret or a file that is missing, with status 2; warnings fail only with
`--strict`, notices never.
"""
    for title, about, table in TABLES:
        rows = [(f"`{code}`", _sentence(meaning)) for code, meaning in sorted(table.items())]
        page += f"\n## {title}\n\n{about}\n\n{_table(('code', 'says'), rows)}"
    return page


def _examples(expressions: Iterable[str]) -> str:
    return "<br>".join(f"`{expression}` → `{evaluated(expression)}`" for expression in expressions)


def _published(table: Mapping[str, Function]) -> Iterator[tuple[str, str, str]]:
    for entry in table.values():
        signatures = entry.signature.replace(" or ", "`, `")
        yield f"`{signatures}`", entry.doc, _examples(expression for expression, _ in entry.examples)


def expressions() -> str:
    """docs/expressions.md"""
    names = ", ".join(f"`{name}`" for name in RULE_NAMES)
    envelope = ", ".join(f"`{name}`" for name in ENVELOPE_NAMES)
    limits = (
        ("characters of one expression", scan.LENGTH_MAX),
        ("brackets inside one another", scan.NESTING_MAX),
        ("operations inside one another", source.DEPTH_MAX),
        ("names, values and operations of one expression", source.NODES_MAX),
        ("steps that the comprehensions of one action take for one event", unit.STEPS_MAX),
        ("characters of a text that is made", TEXT_MAX),
        ("items of a list that is made", ITEMS_MAX),
    )
    operators = [(syntax, doc, _examples(examples)) for syntax, doc, examples in OPERATORS]
    return f"""{GENERATED}
# Expressions

Rules compute with a safe subset of Python's expressions. `when` takes a bare expression; in any other text of an action
`${{data.plan}}` stands for a value, and `$${{` for a literal `${{`. A text that is one `${{…}}` keeps the value's type;
otherwise values are put into the text, where null is an error. `meisa-bridge eval 'data.plan' --file event.json` tries
one out.

The examples below use an event with this `data`:

```json
{json.dumps(SAMPLE, indent=2, ensure_ascii=False)}
```

## Names

In rules: {names}. In an envelope: {envelope}. Literals: numbers, texts in `'` or `"`, `true`, `false`, `null`.

## Operators

{_table(("write", "for", "examples"), operators)}
Left out on purpose: `is` (write `== null`), `**`, bit operators, `lambda`, `:=`, f-strings, sets, arguments by name,
steps in slices. Nothing of Python can be reached through a value: `data.x` only ever reads a field.

## Missing fields

A field is missing where the event lacks it, or something on its path is null or no object. Inside `optional`, `default`
and `has`, null counts as missing too.

{_table(("a missing field", "gives"), MISSING)}
Other faults, such as a text compared with a number or a division by zero, make the rule fail for that event, in a
`when` as well. Messages name fields and kinds of values, never the values.

## Functions

{_table(("function", "gives", "examples"), _published(FUNCTIONS))}
## Methods of texts

{_table(("method", "gives", "examples"), _published(METHODS))}
## Limits

So that no expression can take a worker's time or memory. What is too large as written is refused by `check`;
what becomes too large with an event is a fault of the rule for that event. Numbers are those of JSON: whole ones from
-2^63 to 2^64 - 1, and finite others.

{_table(("at most", "number"), ((what, f"{number:,}") for what, number in limits))}"""


def _label(label: Label) -> str:
    values = ", ".join(f"`{value}`" for value in label.values)
    if label.values == tuple(WAITING_FOR_REASONS):
        values = "the reasons below"
    return f"`{label.name}`: {values or label.bound}"


def _metric(definition: Definition) -> tuple[str, str, str, str]:
    buckets = ", ".join(f"{bound:g}" for bound in definition.buckets)
    unit = definition.unit + (f" (buckets to {buckets})" if buckets else "")
    labels = "<br>".join(_label(label) for label in definition.labels) or "none"
    return f"`{definition.name}`<br>{definition.type}, {unit}", labels, definition.help, definition.moves


def metrics() -> str:
    """docs/metrics.md"""
    rows = [_metric(definition) for definition in CATALOGUE]
    reasons = [(f"`{reason}`", _sentence(meaning)) for reason, meaning in WAITING_FOR_REASONS.items()]
    return f"""{GENERATED}
# Metrics

`/metrics` on `admin.listen` never needs the token. Beside the metrics of the process itself (`process_…`: memory, CPU,
file handles) it tells what follows, of this instance alone. Alert rules for Prometheus are in
[deploy/prometheus/alerts.yaml](../deploy/prometheus/alerts.yaml), what to do about each in [runbook.md](runbook.md),
and a Grafana dashboard in [deploy/grafana/dashboard.json](../deploy/grafana/dashboard.json).

Counters begin at 0 with the process. Where all values of the labels are known beforehand they are told from the start,
so that `increase()` sees the first failure; of `endpoint`, `status` and `rule` a series begins with its first count.
No label has values that come from events: no contact, no id, no key of a record.

{_table(("metric", "labels, and all values that they can have", "what it tells", "when it moves"), rows)}
## What it waits for

Values of `reason` in `meisa_bridge_waiting_for`; `/api/status` tells more of each.

{_table(("reason", "means"), reasons)}"""


PAGES = {
    "problems.md": problems,
    "expressions.md": expressions,
    "metrics.md": metrics,
    "configuration.md": reference.configuration,
    "commands.md": reference.command_line,
    "rules.md": reference.rules,
    "http.md": outside.http,
    "status-json.md": outside.status,
    "dead-letter-headers.md": outside.headers,
}


def main() -> None:
    for name, made in PAGES.items():
        (DOCS / name).write_text(made(), encoding="utf-8")


if __name__ == "__main__":
    main()
