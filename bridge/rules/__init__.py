"""Event → Plan: the rules in YAML, the language in them, and handlers in Python.

`load(patterns, base_dir, handlers)` gives a RuleBook; `RuleBook.plan(event)` never raises. What is exported here is
imported when it is first asked for: `import bridge` passes through this package and must stay fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bridge.rules.advice import advise
    from bridge.rules.language import ENVELOPE_NAMES, RULE_NAMES, Expression, compile_expression
    from bridge.rules.loader import load, load_text, rules_files
    from bridge.rules.planner import Rule, RuleBook
    from bridge.rules.scan import ExpressionError
    from bridge.rules.template import EnvelopeScope, Template, compile_envelope_field, compile_template

_HOMES = {
    "ENVELOPE_NAMES": "language",
    "EnvelopeScope": "template",
    "Expression": "language",
    "ExpressionError": "scan",
    "RULE_NAMES": "language",
    "Rule": "planner",
    "RuleBook": "planner",
    "Template": "template",
    "advise": "advice",
    "compile_envelope_field": "template",
    "compile_expression": "language",
    "compile_template": "template",
    "load": "loader",
    "load_text": "loader",
    "rules_files": "loader",
}

__all__ = [
    "ENVELOPE_NAMES",
    "RULE_NAMES",
    "EnvelopeScope",
    "Expression",
    "ExpressionError",
    "Rule",
    "RuleBook",
    "Template",
    "advise",
    "compile_envelope_field",
    "compile_expression",
    "compile_template",
    "load",
    "load_text",
    "rules_files",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{home}"), name)
