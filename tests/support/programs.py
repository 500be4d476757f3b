"""Programs that tests use and that come as Go sources: built once, kept in the cache."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.support.needs import require_or_skip

BUILD_SECONDS_MAX = 600.0


def go_program(source: Path, what: str, package: str = ".") -> Path:
    """`package` of the Go module in the folder `source`, built the first time. Skips where that cannot be.

    The module's go.sum holds the hashes of all that is fetched. `what` is for the skip's line.
    """
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        require_or_skip(f"{what} needs Go 1.24 (https://go.dev/dl, or Debian: apt-get install golang-go)")
    cache = Path(os.environ.get("MEISA_BRIDGE_CACHE", Path.home() / ".cache" / "meisa-bridge")).expanduser()
    files = [path for name in ("main.go", "go.mod", "go.sum") if (path := source / name).exists()]
    version = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
    program = cache / f"{source.name}-{version}" / source.name
    program.parent.mkdir(parents=True, exist_ok=True)
    with (program.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two runs at once, one builds and the other waits
        if program.exists():
            return program
        fresh = program.with_suffix(".new")
        command = [go, "build", "-buildvcs=false", "-o", str(fresh), package]
        done = subprocess.run(
            command, cwd=source, capture_output=True, text=True, timeout=BUILD_SECONDS_MAX, check=False
        )
        if done.returncode:
            require_or_skip(f"{what} cannot be built: {done.stderr.strip()[-300:]}")
        fresh.rename(program)
    return program
