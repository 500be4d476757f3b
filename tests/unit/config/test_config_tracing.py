"""The section `tracing`: what it means, and what is wrong with it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from bridge.config import examine, load
from bridge.config.settings import Tracing

MINIMAL = """\
kafka: {bootstrap_servers: "localhost:9092"}
topics: {users: {}}
meisa: {api_key: {env: KEY}}
rules: ["*.yaml"]
"""
ENVIRON = {"KEY": "meisa_live_x", "OTLP": "Bearer 5up3r53cr3t"}


def problems(folder: Path, section: str, **environ: str) -> list[str]:
    file = folder / "bridge.yaml"
    file.write_text(MINIMAL + section)
    return [
        f"{each.line}:{each.column} {each.code} {each.message} ({each.hint})"
        for each in examine(file, {**ENVIRON, **environ}).problems
    ]


def tracing(folder: Path, section: str, **environ: str) -> Tracing | None:
    file = folder / "bridge.yaml"
    file.write_text(MINIMAL + section)
    return load(file, {**ENVIRON, **environ}).tracing


def test_it_is_off_unless_it_is_asked_for(tmp_path: Path) -> None:
    """By the section, be it empty, or by a variable of the bridge's own."""
    assert tracing(tmp_path, "") is None
    empty = tracing(tmp_path, "tracing: {}\n")
    assert empty is not None and (empty.endpoint, empty.sample, empty.service_name, empty.headers) == (None,) * 3 + (
        {},
    )
    by_variable = tracing(tmp_path, "", MEISA_BRIDGE__TRACING__ENDPOINT="http://collector:4318/")
    assert by_variable is not None and by_variable.endpoint == "http://collector:4318"


def test_headers_are_secrets(tmp_path: Path) -> None:
    """Kept as references, shown nowhere."""
    found = tracing(tmp_path, "tracing: {endpoint: 'https://c', headers: {authorization: {env: OTLP}}, sample: 0.1}\n")
    assert found is not None
    assert found.headers["authorization"].read() == "Bearer 5up3r53cr3t"
    assert "5up3r" not in repr(found) + str(found.model_dump())
    (literal,) = problems(tmp_path, "tracing: {headers: {authorization: Bearer hunter2}}\n")
    assert "MB012" in literal and "hunter2" not in literal


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ("tracing: {endpoint: 'collector:4318'}", "5:21 MB022 `tracing.endpoint` is not a URL"),
        ("tracing: {endpoint: 'http://a:b@collector:4318'}", "MB012"),
        ("tracing: {endpoint: 'http://token@collector:4318'}", "5:21 MB022 `tracing.endpoint` holds a user"),
        ("tracing: {endpoint: 'http://c:4318', headers: {a: {env: OTLP}}}", "5:21 MB023 `tracing.endpoint` would send"),
        ("tracing: {headers: {a: {env: OTLP}}}", "5:11 MB005 `tracing.headers` need `tracing.endpoint`"),
        ("tracing: {sample: 2}", "5:19 MB008 `tracing.sample` must be at most 1"),
        ("tracing: {sampling: 1}", "5:11 MB004 unknown key `sampling`"),
        ("tracing: {endpoint: 'https://c', headers: {'a b': {env: OTLP}}}", "MB006 `tracing.headers"),
    ],
)
def test_mistakes_are_told_with_their_place(tmp_path: Path, section: str, says: str) -> None:
    (problem,) = problems(tmp_path, section + "\n")
    assert says in problem


def test_a_header_that_cannot_be_sent_is_told_without_its_value(tmp_path: Path) -> None:
    """A file of two lines, or a typographic character: no export would ever succeed."""
    for value in ("Bearer 5up3r\n53cr3t", "Bearer 5up3r\u201353cr3t"):
        section = "tracing: {endpoint: 'https://c', headers: {a: {env: TWO}}}\n"
        (problem,) = problems(tmp_path, section, TWO=value)
        assert "MB006 `tracing.headers.a` holds characters" in problem and "5up3r" not in problem


def test_headers_may_leave_in_clear_to_this_machine_or_where_somebody_says_so(tmp_path: Path) -> None:
    """As everywhere where a secret is sent."""
    headers = "headers: {a: {env: OTLP}}"
    assert problems(tmp_path, f"tracing: {{endpoint: 'http://127.0.0.1:4318', {headers}}}\n") == []
    assert problems(tmp_path, f"tracing: {{endpoint: 'http://c:4318', {headers}, allow_http: true}}\n") == []


def test_without_its_packages_it_is_a_mistake_that_says_how_to_mend_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told by `check` and at the start, not by a traceback; and only where traces are wanted."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "bridge.config.checks.find_spec", lambda name: None if name.startswith("opentelemetry") else real(name)
    )
    (problem,) = problems(tmp_path, "tracing: {}\n")
    assert problem == (
        "5:1 MB050 `tracing` needs packages that are not installed "
        "(pip install 'meisa-bridge[tracing]', or remove the section)"
    )
    assert problems(tmp_path, "") == []
