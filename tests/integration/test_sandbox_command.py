"""The sandbox as a process of its own: what it says, how it ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from bridge.sandbox.options import SandboxOptions
from bridge.sandbox.server import run

RUN = """
import json, sys
from bridge.sandbox.options import SandboxOptions
from bridge.sandbox.server import run
sys.exit(run(SandboxOptions(**json.loads(sys.argv[1]))))
"""


def start(options: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", RUN, options], stderr=subprocess.PIPE, text=True)


Failed = Callable[[str], tuple[int, str]]


@pytest.fixture
def failed(capsys: pytest.CaptureFixture[str]) -> Failed:
    """The status and what is said, of a start that fails; in this process, since nothing is served."""

    def start_here(options: str) -> tuple[int, str]:
        status = run(SandboxOptions(**json.loads(options)))
        return status, capsys.readouterr().err

    return start_here


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_is_and_ends_cleanly(number: signal.Signals) -> None:
    """One line when ready, with the base URL and a key that works; a signal ends it with 0 and not a word more."""
    process = start('{"port": 0}')
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        words = line.replace(";", "").split()
        base_url = next(word for word in words if word.endswith("/api/v1"))
        key = next(word for word in words if word.startswith("meisa_test_"))
        with httpx.Client(trust_env=False, timeout=5) as client:
            assert client.get(f"{base_url}/ping/", headers={"X-API-Key": key}).status_code == 200
            # The connection is still open: an idle client must not delay the end.
            process.send_signal(number)
            _, rest = process.communicate(timeout=10)
        assert (process.returncode, rest) == (0, "")
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def test_a_busy_port_is_one_clear_line(failed: Failed) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, said = failed(f'{{"port": {port}}}')
    assert status == 1
    assert said.count("\n") == 1
    assert f"127.0.0.1:{port}" in said
    assert "--port" in said


def test_an_address_that_is_not_here_is_one_clear_line(failed: Failed) -> None:
    status, said = failed('{"port": 0, "host": "192.0.2.1"}')
    assert (status, said.count("\n")) == (1, 1)
    assert "192.0.2.1" in said


def test_wrong_options_are_one_clear_line(failed: Failed, tmp_path: Path) -> None:
    broken = tmp_path / "catalogue.json"
    broken.write_text('{"triggers": {"welcome": {"activ": true}}}')
    for options, word in [
        ('{"catalogue": "missing.json"}', "missing.json"),
        (f'{{"catalogue": "{broken}"}}', "activ"),
        ('{"algorithm": "leaky"}', "leaky"),
    ]:
        status, said = failed(options)
        assert (status, said.count("\n")) == (2, 1)
        assert word in said
