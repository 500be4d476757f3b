"""The command line as a process of its own: what a shell sees."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HEAVY = (
    "confluent_kafka",
    "httpx",
    "aiohttp",
    "starlette",
    "uvicorn",
    "fastavro",
    "rich",
    "ruamel",
    "prometheus_client",
)


def shell(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bridge", *arguments],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "PYTHONSAFEPATH": "1", **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_mistake_ends_in_one_line_and_its_status(tmp_path: Path) -> None:
    """Each of these is a whole process: nothing but the line on standard error, no trace."""
    (tmp_path / "bad.yaml").write_text("kafka: [\n")
    (tmp_path / "secret.yaml").write_text(
        "kafka: {bootstrap_servers: 'a:1'}\ntopics: {a: }\nmeisa: {api_key: {env: NOWHERE}}\nrules: [a.yaml]\n"
    )
    cases = {
        ("run",): (2, "meisa-bridge: config/bridge.yaml: no such file"),
        ("run", "-c", "."): (2, "meisa-bridge: .: is a directory"),
        ("run", "-c", "bad.yaml"): (1, "bad.yaml:2:1: error MB001"),
        ("run", "-c", "secret.yaml"): (2, "secret.yaml:3:18: error MB013"),
    }
    with ThreadPoolExecutor(len(cases)) as pool:  # most of their time is Python starting
        ended = list(pool.map(lambda arguments: shell(*arguments, cwd=tmp_path), cases))
    for done, (status, line) in zip(ended, cases.values(), strict=True):
        assert done.returncode == status, done.stderr
        assert done.stdout == ""
        assert done.stderr.startswith(line) and done.stderr.count("\n") == 1


def test_a_bug_shows_its_trace_only_on_demand(tmp_path: Path) -> None:
    """A broken installation, for instance, is told in one line unless MEISA_BRIDGE_DEBUG=1."""
    code = "import sys; sys.modules['bridge.config'] = None; from bridge.cli import main; main(['schema'])"
    for debug, traced in (("", False), ("1", True)):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"PATH": os.environ["PATH"], "MEISA_BRIDGE_DEBUG": debug},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 1
        assert ("Traceback" in done.stderr) is traced


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    """So that `--help` answers at once."""
    code = (
        "import sys\nfrom bridge.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        f"print('heavy:', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path, check=True
    )
    assert done.stdout.endswith("heavy: []\n"), done.stdout[-300:]


def test_on_a_terminal_check_marks_the_column_but_never_shows_the_configuration(tmp_path: Path) -> None:
    """A line of rules at fault is shown with a caret; one of bridge.yaml may hold a secret."""
    (tmp_path / "bridge.yaml").write_text(
        "kafka: {bootstrap_servers: 127.0.0.1:9}\ntopics: {events: {format: json}}\n"
        "meisa: {api_key: {env: MEISA_API_KEY}, timout: s3cret}\nrules: [rules.yaml]\n"
    )
    (tmp_path / "rules.yaml").write_text(
        'rules:\n  - name: a\n    match: b\n    when: data.x = "y"\n    do:\n      - upsert: {email: "${data.e}"}\n'
    )
    command = [sys.executable, "-m", "bridge", "check", "--offline", "-c", "bridge.yaml"]
    ours, theirs = os.openpty()
    environ = {**os.environ, "MEISA_API_KEY": "meisa_test_x", "NO_COLOR": "1", "PYTHONPATH": str(Path.cwd())}
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=theirs, stderr=subprocess.PIPE):
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # the end of a pseudo-terminal on Linux
            while chunk := os.read(ours, 65536):
                said += chunk
    os.close(ours)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", said.decode()).replace("\r\n", "\n").splitlines()
    place = next(number for number, line in enumerate(lines) if "MB130" in line)
    assert lines[place + 1 : place + 3] == ['      when: data.x = "y"', "                   ^"]
    assert any("MB004" in line for line in lines)
    assert not any("s3cret" in line for line in lines)
    piped = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert "^" not in piped.stdout and "MB130" in piped.stdout
