"""A `meisa-bridge` command that does not outlive its parent: `python -m bridge.sandbox.tied run -c …`.

The parent holds the other end of this process's standard input. When that closes, because the parent ended in whatever
way (a closed terminal and `kill -9` included), the command gets a SIGTERM and ends as it always does: it drains first.
"""

from __future__ import annotations

import os
import runpy
import signal
import threading


def _follow(parent: int) -> None:
    while os.read(parent, 1024):
        pass  # nothing is ever said; only the end counts
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    # The command itself gets an empty standard input.
    parent = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    threading.Thread(target=_follow, args=(parent,), name="parent", daemon=True).start()
    runpy.run_module("bridge", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
