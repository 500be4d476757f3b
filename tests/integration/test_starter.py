"""`meisa-bridge init` and its next steps, word for word, in a shell."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bridge.sandbox.children import free_port
from tests.support.kafka import Cluster
from tests.support.service import Sandbox

ROOT = Path(__file__).parents[2]
SECONDS_MAX = 60.0


@pytest.mark.slow
def test_the_next_steps_lead_to_a_running_bridge(embedded_kafka: Cluster, tmp_path: Path) -> None:
    """Only addresses are others here, by the environment: ports 9092 and 8900 may be taken. The topics exist already,
    since the embedded broker creates none on request."""
    shim = tmp_path / "bin" / "meisa-bridge"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m bridge "$@"\n')
    shim.chmod(0o755)
    for topic in ("user-events", "meisa-bridge.dead-letters"):
        embedded_kafka.create_topic(topic, 1)
    sandbox = Sandbox()
    try:
        env = {
            "PATH": f"{shim.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "MEISA_BRIDGE__KAFKA__BOOTSTRAP_SERVERS": embedded_kafka.bootstrap_servers,
            "MEISA_BRIDGE__MEISA__BASE_URL": f"{sandbox.url}/api/v1",
            "MEISA_BRIDGE__ADMIN__LISTEN": f"127.0.0.1:{free_port()}",
        }
        made = subprocess.run(
            [shim, "init", "new"],
            cwd=tmp_path,
            env=env,
            text=True,
            capture_output=True,
            timeout=SECONDS_MAX,
            check=True,
        )
        steps = made.stdout.partition("Next:\n")[2].splitlines()
        *before, run = [step for step in steps if not step.strip().startswith("meisa-bridge sandbox")]
        assert run.strip().startswith("meisa-bridge run")
        script = "\n".join(["set -e", *before, "exec " + run.strip()])
        with subprocess.Popen(
            ["bash", "-c", script], cwd=tmp_path, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as shell:
            assert shell.stderr is not None and shell.stdout is not None
            watchdog = threading.Timer(SECONDS_MAX, shell.kill)
            watchdog.start()
            told = ""
            for line in shell.stderr:
                told += line
                if "started: events are taken in" in line:
                    break
            watchdog.cancel()
            shell.send_signal(signal.SIGTERM)
            said, rest = shell.communicate(timeout=SECONDS_MAX)
        assert shell.returncode == 0, said + told + rest
        assert "started: events are taken in" in told
        assert re.match(r"\d+ tests: \d+ passed\n", said)
        assert said.count("config/bridge.yaml: no problems\n") >= 1
    finally:
        sandbox.child.close()
