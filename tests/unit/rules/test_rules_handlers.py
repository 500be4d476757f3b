"""Python handlers: found, run after the YAML rules, and never able to stop the bridge."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import ProblemsFound
from bridge.model import Kind, Lane, RuleFailure
from bridge.rules import RuleBook, load
from bridge.rules import handlers as handlers_module

HEAD = "# a module of a user\nfrom bridge import handles, Upsert, Track, Trigger, AddTag\n"


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test has a registry of its own, and leaves neither modules nor paths behind."""
    monkeypatch.setattr(handlers_module, "_registered", [])
    modules, paths = set(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    assert sys.path == paths


@pytest.fixture
def book(tmp_path: Path) -> Callable[..., RuleBook]:
    def make(code: str, patterns: tuple[str, ...] = ()) -> RuleBook:
        (tmp_path / "acme_rules.py").write_text(HEAD + textwrap.dedent(code).lstrip())
        return load(patterns, tmp_path, ["acme_rules"])

    return make


def test_a_handler_yields_returns_or_declines(book: Any, make_event: Any) -> None:
    made = book("""
        @handles("invoice.*")
        def yields(event):
            yield Upsert(email=event.data["email"], custom_fields={"mrr": event.data["mrr"]})
            yield Track(email=event.data["email"], event_name="paid")
        @handles("invoice.paid", "other")
        def returns_one(event): return Upsert(email="b")
        @handles("invoice.paid")
        def returns_list(event): return [Upsert(email="c"), None]
        @handles("invoice.paid")
        def declines(event): return None
        @handles("invoice.paid", topic="elsewhere")
        def elsewhere(event): return Upsert(email="d")
        @handles("invoice.paid", name="renamed")
        def original(event): return Upsert(email="e")
    """)
    plan = made.plan(make_event("invoice.paid", email="a", mrr=12))
    assert plan.failures == ()
    assert [(action.rule, action.position, action.body["email"]) for action in plan.actions] == [
        ("yields", 0, "a"), ("yields", 1, "a"), ("returns_one", 2, "b"), ("returns_list", 3, "c"), ("renamed", 4, "e"),
    ]  # fmt: skip
    assert plan.actions[0].body == {"email": "a", "custom_fields": {"mrr": 12}}
    assert plan.actions[1].needs == 0
    assert made.topics == {"elsewhere"}


def test_handlers_run_after_the_rules(book: Any, make_event: Any, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("rules: [{name: yaml, match: '*', do: [{upsert: {email: a}}]}]")
    made = book('@handles("*")\ndef python(event): return AddTag(tag_name="t", email="a")', ("r.yaml",))
    first, second = made.plan(make_event()).actions
    assert (first.rule, second.rule, second.needs, second.body) == ("yaml", "python", 0, {"tag_name": "t"})


def test_options_of_a_handlers_action_become_its_handling(book: Any, make_event: Any) -> None:
    made = book("""
        @handles("*")
        def options(event):
            yield Trigger(trigger_key="a", to_email="b")
            yield Trigger(trigger_key="a", to_email="b", max_age="none", lane="bulk", order="independent")
            yield Upsert(email="a", aliases={"stripe": "c"}, on_suppressed="dead_letter")
            yield Track(external_id="7", event_name="x")
    """)
    plan = made.plan(make_event())
    default, explicit, upsert, track = (action.handling for action in plan.actions)
    assert (default.lane, default.max_age_seconds, default.ordered) == (Lane.TRANSACTIONAL, 86_400.0, True)
    assert (explicit.lane, explicit.max_age_seconds, explicit.ordered) == (Lane.BULK, None, False)
    assert (upsert.lane, upsert.max_age_seconds, upsert.on_suppressed) == (Lane.SYNC, None, "dead_letter")
    assert track.on_missing == "wait"
    assert [action.occurrence for action in plan.actions] == [0, 1, 0, 0]
    assert plan.actions[2].body == {"email": "a"} and plan.actions[2].contact.aliases == (("stripe", "c"),)
    assert made.plan(make_event()).actions[0].handling is default


@pytest.mark.parametrize(
    ("body", "message", "path"),
    [
        ('event.data["email"]', "data.email is missing (acme_rules.py:5)", "data.email"),
        ("event.data['a']['b']['c']", "data.a.b is missing (acme_rules.py:5)", "data.a.b"),
        ("{}[event.data['secret']]", "a key is missing (acme_rules.py:5)", ""),
        ("int(event.data['secret'])", "ValueError (acme_rules.py:5)", ""),
        ("1 / 0", "ZeroDivisionError (acme_rules.py:5)", ""),
        ("exit(3)", "SystemExit (acme_rules.py:5)", ""),
        ("helper(event)", "RuntimeError (acme_rules.py:6)", ""),
        ("(lambda: (yield 7))()", "the handler yielded int, not an action", ""),
        ("7", "the handler returned int, not an action", ""),
        ("'text'", "the handler returned str, not an action", ""),
        ("{'email': 'a'}", "the handler returned dict, not an action", ""),
        ("Upsert(email='')", "Upsert.email: String should have at least 1 character (acme_rules.py:5)", ""),
        ("Upsert(emial=event.data['secret'])", "Upsert.emial: Extra inputs are not permitted (acme_rules.py:5)", ""),
        ("Upsert(email='a', max_age=event.data['secret'])", "Upsert.max_age is not valid (acme_rules.py:5)", ""),
        ("Upsert()", "Upsert: names no contact: give email, external_id or contact (acme_rules.py:5)", ""),
        ("Upsert(email='a', custom_fields={'x': {1, 2}})", "Upsert holds a value that JSON has no form for", ""),
        ("Upsert(email='a', custom_fields={'x': 2**70})", "Upsert holds a value that JSON has no form for", ""),
        ("(Upsert(email='a') for _ in iter(int, 1))", "the handler yields more than 1000 actions", ""),
    ],
)
def test_a_handler_that_fails_fails_alone_and_shows_no_value(
    book: Any, make_event: Any, body: str, message: str, path: str
) -> None:
    made = book(f"""
        @handles("*")
        def bad(event):
            return {body}
        def helper(event): raise RuntimeError(event.data['secret'])
        @handles("*")
        def good(event): return Upsert(email="a")
    """)
    plan = made.plan(make_event(secret="hunter2", a={}))
    assert plan.failures == (RuleFailure("bad", message, path),)
    assert [(action.rule, action.position) for action in plan.actions] == [("good", 0)]


@pytest.mark.parametrize(
    ("code", "problem", "file"),
    [
        ("x = 1", "MB142", ""),
        ("import json\nimport nothing_like_this", "MB141", "acme_rules.py:4"),
        ("from acme_rules.sub import x", "MB141", ""),
        ("def (", "MB141", "acme_rules.py:3"),
        ("raise ValueError('two\\nlines')", "MB141", "acme_rules.py:3"),
        ("raise SystemExit(0)", "MB141", "acme_rules.py:3"),
        ("@handles()\ndef f(event): pass", "MB141", "acme_rules.py:3"),
        ("@handles\ndef f(event): pass", "MB141", "acme_rules.py:3"),
        ("@handles('a')\nasync def f(event): pass", "MB141", "acme_rules.py:3"),
        ("@handles('a')\ndef f(event): pass\n@handles('b', name='f')\ndef g(event): pass", "MB106", ""),
    ],
)
def test_a_module_that_cannot_serve_is_one_line_with_its_place(book: Any, code: str, problem: str, file: str) -> None:
    with pytest.raises(ProblemsFound) as caught:
        book(code)
    (found,) = caught.value.problems
    assert found.code == problem and file in str(found) and "\n" not in str(found)


def test_a_module_that_does_not_exist_is_told_with_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ProblemsFound) as caught:
        load([], tmp_path, ["nothing.like.this", "nothing_else"])
    assert [problem.code for problem in caught.value.problems] == ["MB140", "MB140"]
    assert str(tmp_path) in str(caught.value.problems[0])


def test_a_module_that_failed_once_registers_nothing_twice(book: Any, make_event: Any) -> None:
    """After the mistake is mended (a reload), each handler runs once."""
    code = '@handles("*")\ndef f(event): return Upsert(email="a")\n'
    with pytest.raises(ProblemsFound):
        book(code + "raise ValueError")
    sys.path_importer_cache.clear()
    assert len(book(code + "# mended, and longer than before\n").plan(make_event()).actions) == 1


def test_submodules_of_a_named_package_count_as_its_own(tmp_path: Path, make_event: Any) -> None:
    package = tmp_path / "acme_package"
    package.mkdir()
    (package / "__init__.py").write_text("from acme_package import inner\n")
    (package / "inner.py").write_text(HEAD + '@handles("*")\ndef f(event): return Upsert(email="a")\n')
    assert [handler.name for handler in load([], tmp_path, ["acme_package"]).handlers] == ["f"]


def test_installed_entry_points_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_event: Any) -> None:
    (tmp_path / "acme_plugin.py").write_text(HEAD + '@handles("*")\ndef plugged(event): return Upsert(email="a")\n')
    point = EntryPoint("acme", "acme_plugin", handlers_module.ENTRY_POINTS)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda *, group: [point] if group == point.group else [])
    for named in ([], ["acme_plugin"]):  # named in the configuration too: still once
        assert [handler.name for handler in load([], tmp_path, named).handlers] == ["plugged"]


def test_kinds_of_handlers_are_planned_though_unknown_beforehand(book: Any, make_event: Any) -> None:
    made = book('@handles("*")\ndef f(event): return Trigger(trigger_key="a", to_email="b")')
    assert made.kinds() == set()
    assert made.plan(make_event()).actions[0].kind is Kind.TRIGGER


def test_importing_bridge_does_not_import_yaml() -> None:
    """Handlers do `from bridge import …`, and so does every command: it must stay quick."""
    code = (
        "import sys, bridge; sys.exit(any(name.startswith(('ruamel', 'bridge.rules.loader')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
