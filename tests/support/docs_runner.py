"""Follows a page of docs/ as a reader would: files are written, commands run in one shell, what they print is compared.

A fenced block of `console` holds commands behind `$ ` and what they print. A block of another language right after a
line that names a file in backticks and ends with a colon is that file. In what is expected, `…` stands for any text of
a line, and a line of `…` alone for any lines; times are not compared.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS_MAX = 60.0
"""For one command, on a machine that does much else."""
AGAIN = ("curl -s http", "grep ", "meisa-bridge dlq list", "meisa-bridge status")
"""What only looks is asked again until it says what is expected: a reader may have to wait a moment, too."""

_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?Z?")
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"`([\w./-]+)`(?:, [^`\n]*)?:\s*\Z")


@dataclass(frozen=True)
class File:
    path: str
    text: str


@dataclass(frozen=True)
class Command:
    line: str
    prints: str


def steps(page: str) -> list[File | Command]:
    """What a reader does, in order."""
    found: list[File | Command] = []
    for block in _BLOCK.finditer(page):
        language, text = block[1], block[2]
        if language == "console":
            found += _commands(text)
        elif named := _FILE.search(page[: block.start()]):
            found.append(File(named[1], text))
    return found


def _commands(text: str) -> list[Command]:
    first, *others = re.split(r"^\$ ", text, flags=re.MULTILINE)
    assert not first.strip(), f"a console block begins with $: {first!r}"
    return [Command(*(each.split("\n", 1))) for each in others]


def fits(expected: str, printed: str) -> bool:
    """Whether a command printed what the page says."""
    pattern = ""
    for line in _TIME.sub("…", expected).strip().splitlines():
        pattern += r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*?") + r" *\n"
    text = _TIME.sub("…", printed).strip()
    return re.fullmatch(pattern, f"{text}\n" if text else "") is not None


class Shell:
    """One bash in a folder, with `meisa-bridge` on its path. It and all that it started end with `close`."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        tools = folder / ".tools"
        tools.mkdir()
        shim = tools / "meisa-bridge"
        shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m bridge "$@"\n')
        shim.chmod(0o755)
        path = f"{tools}:{os.environ['PATH']}"
        self._bash = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            cwd=folder,
            env={"PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(folder), "LANG": "C.UTF-8", **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._number = 0

    def run(self, line: str) -> tuple[int, str]:
        """Exit status, and all that it printed."""
        assert self._bash.stdin is not None and self._bash.stdout is not None
        self._number += 1
        mark = f"--done-{self._number}--"
        self._bash.stdin.write(f"{{ {line}\n}} </dev/null\nprintf '\\n%s %s\\n' {mark} $?\n".encode())
        self._bash.stdin.flush()
        said = b""
        deadline = time.monotonic() + SECONDS_MAX
        with selectors.DefaultSelector() as selector:
            selector.register(self._bash.stdout, selectors.EVENT_READ)
            while not (done := re.search(rb"\n" + mark.encode() + rb" (\d+)\n", said)):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise AssertionError(f"{line} has not ended after {SECONDS_MAX:g} s: {said.decode()}")
                more = os.read(self._bash.stdout.fileno(), 65_536)
                assert more, f"the shell ended at {line}: {said.decode()}"
                said += more
        return int(done[1]), said[: done.start()].decode("utf-8", "replace")

    def close(self) -> None:
        """Its whole session: what a failing page left in the background too."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.communicate()


def follow(page: str, folder: Path, replaced: dict[str, str], environ: dict[str, str]) -> None:
    """Does all that the page says. `replaced` are texts of the page that are others here, such as ports.

    Raises AssertionError at the first command that fails, or prints what the page does not say.
    """
    here = folder
    shell = Shell(folder, environ)
    try:
        for step in steps(page):
            if isinstance(step, File):
                (here / step.path).parent.mkdir(parents=True, exist_ok=True)
                (here / step.path).write_text(step.text, encoding="utf-8")
                continue
            line = step.line
            for old, new in replaced.items():
                line = line.replace(old, new)
            deadline = time.monotonic() + SECONDS_MAX
            while True:
                status, printed = shell.run(line)
                for old, new in replaced.items():
                    printed = printed.replace(new, old)
                if fits(step.prints, printed) and status == 0:
                    break
                again = step.line.startswith(AGAIN) and time.monotonic() < deadline
                assert again, f"$ {step.line}\n{printed}\nends with {status}; the page says:\n{step.prints}"
                time.sleep(0.1)
            if step.line.startswith("cd "):
                here /= step.line.removeprefix("cd ")
    finally:
        shell.close()
