"""What a process holds, read from /proc: memory, file handles by kind, threads."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

KINDS = ("socket", "pipe", "anon_inode", "file")


class Held(NamedTuple):
    """By one process at one moment."""

    pss_kb: int
    """Its own memory, and its part of what it shares with others."""
    rss_kb: int
    handles: Mapping[str, int]
    """Open file descriptors by kind (KINDS)."""
    threads: int


class Sample(NamedTuple):
    """A moment of a run."""

    at: float
    """Seconds since the measured bridge had started."""
    cycle: int
    phase: str
    held: Held
    state_bytes: int
    """Of the state's file and its log."""
    calls: int
    """Received by Meisa so far."""
    pending: int
    """Events that wait for their calls in the measured bridge."""

    @property
    def handles(self) -> int:
        return sum(self.held.handles.values())


def held(pid: int) -> Held:
    """Raises OSError where there is no such process."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    sizes = {name: int(size) for name, size in re.findall(r"^(\w+):\s+(\d+) kB", rollup, re.MULTILINE)}
    handles: Counter[str] = Counter()
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(handle.readlink())
        except OSError:
            continue  # closed meanwhile
        kind, colon, _ = target.partition(":")
        handles[kind if colon and kind in KINDS else "file"] += 1
    return Held(sizes["Pss"], sizes["Rss"], dict(handles), len([*Path(f"/proc/{pid}/task").iterdir()]))
