"""Processes of this package beside the caller's: what the demo and the tests start, watch and end."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import IO, Any

import httpx

from bridge.errors import StartFailed

START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 40.0
LINES_KEPT = 200
PORTS = range(20_000, 32_000)
"""Below those that a system gives outgoing connections: such a one may be taken before its server listens."""
SHOWN = 5


class Child:
    """A `meisa-bridge` command in a process of its own, which ends when this one does, however that happens; the end of
    what it says is kept for the case that it fails."""

    def __init__(self, name: str, arguments: list[str], environ: Mapping[str, str] | None = None) -> None:
        self._name = name
        self._said: deque[str] = deque(maxlen=LINES_KEPT)
        self._changed = threading.Condition()
        self._process = subprocess.Popen(  # noqa: S603 - our own command by our own interpreter
            [sys.executable, "-m", "bridge.sandbox.tied", *arguments],
            env={**os.environ, **(environ or {})},
            stdin=subprocess.PIPE,  # never written to: its end tells the process that this one is gone
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            # Ctrl-C is for the demo, which then ends its children itself, in order.
            start_new_session=True,
        )
        assert self._process.stderr is not None
        threading.Thread(target=self._listen, args=(self._process.stderr,), daemon=True).start()

    def _listen(self, stream: IO[str]) -> None:
        for line in stream:
            with self._changed:
                self._said.append(line.rstrip())
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """Waits for a line of its standard error. Raises StartFailed."""
        deadline = time.monotonic() + START_SECONDS_MAX
        with self._changed:
            while True:
                for line in self._said:
                    if match := pattern.search(line):
                        return match
                self.check()
                if not self._changed.wait(min(0.5, max(0.0, deadline - time.monotonic()))) and (
                    time.monotonic() >= deadline
                ):
                    raise StartFailed(f"{self._name} did not start within {START_SECONDS_MAX:g} s{self._tail()}")

    def check(self) -> None:
        """Raises StartFailed where the process has ended."""
        status = self._process.poll()
        if status is not None:
            raise StartFailed(f"{self._name} ended with status {status}{self._tail()}")

    def end(self) -> None:
        """SIGTERM, and waits; raises StartFailed where it does not end well."""
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            raise StartFailed(f"{self._name} did not stop{self._tail()}") from None
        if status != 0:
            raise StartFailed(f"{self._name} ended with status {status}{self._tail()}")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def said(self) -> list[str]:
        """The last lines of its standard error."""
        with self._changed:
            return list(self._said)

    def crash(self) -> None:
        """kill -9, as a machine's end would be; returns once it is dead."""
        self._process.kill()
        self._process.wait()

    def wait_end(self, seconds: float = STOP_SECONDS_MAX) -> int:
        """Waits for it to end by itself; returns its exit status."""
        return self._process.wait(seconds)

    def close(self) -> None:
        """Ends it if it still runs, however that goes."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for pipe in (self._process.stdin, self._process.stderr):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]

    def _tail(self) -> str:
        return "".join(f"\n  | {line}" for line in list(self._said)[-SHOWN:])


def free_port() -> int:
    """A port of loopback that nothing listened on a moment ago."""
    for port in random.SystemRandom().sample(PORTS, 1_000):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise StartFailed("no free port of a thousand that were tried: what fills this machine's ports must end first")


def read_ledger(sandbox_url: str) -> Iterator[dict[str, Any]]:
    """All entries of a sandbox's ledger, in order of arrival."""
    since = 0
    with httpx.Client(timeout=30) as client:
        while True:
            page = client.get(f"{sandbox_url}/_sandbox/ledger", params={"since": since, "limit": 5000}).json()
            yield from page["entries"]
            if not page["entries"] or page["next"] == since:
                return
            since = page["next"]
