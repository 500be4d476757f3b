"""`meisa-bridge` as the soak runs it: the same code, smaller caches, and a count of its objects on request.

What grows up to a bound must not look like a leak, and no leak may hide behind growth. So caches that hold hundreds of
thousands of people hold SOAK_BOUND here: they are full after minutes, as they are after days elsewhere. SIGUSR2 writes
how many objects of each type there are into the file SOAK_OBJECTS, but first frees what nothing refers to.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

from bridge import model
from bridge.cli import main
from bridge.core.duplicates import FinishedIds
from bridge.core.identity import Identities
from bridge.core.known import Known
from bridge.core.lazy import LazyValues
from bridge.core.ordering import Ordering
from bridge.runtime.contact_ids import ContactIds
from bridge.runtime.duplicates import Duplicates

PYTHON = "(blocks of Python's allocator)"
MALLOC = "(KB in use of malloc)"


def lower(bound: int) -> None:
    """Each cache of people or events holds so many at most."""
    for owner, name in (
        (Identities, "entries_max"),
        (Known, "registers_max"),
        (Ordering, "links_max"),
        (LazyValues, "entries_max"),
        (Duplicates, "entries_max"),
        (FinishedIds, "entries_max"),
    ):
        defaults: dict[str, Any] = owner.__init__.__kwdefaults__  # type: ignore[misc]
        assert name in defaults, f"{owner.__name__} has no {name} any more"
        defaults[name] = bound
    ContactIds.__init__.__defaults__ = (bound,)  # type: ignore[misc]
    wide = model.email_key
    narrow = functools.lru_cache(maxsize=bound)(wide.__wrapped__)
    for module in list(sys.modules.values()):
        if getattr(module, "email_key", None) is wide:
            module.email_key = narrow  # type: ignore[attr-defined]


class _MallocInfo(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    ]


def count_objects(*_: object) -> None:
    gc.collect()
    path = Path(os.environ["SOAK_OBJECTS"])
    counts = Counter(type(each).__qualname__ for each in gc.get_objects())
    counts[PYTHON] = sys.getallocatedblocks()
    info = ctypes.CDLL(None).mallinfo2
    info.restype = _MallocInfo
    found = info()
    counts[MALLOC] = (found.uordblks + found.hblkhd) // 1024
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(counts.most_common()), encoding="utf-8")
    fresh.rename(path)


if __name__ == "__main__":
    lower(int(os.environ["SOAK_BOUND"]))
    signal.signal(signal.SIGUSR2, count_objects)
    main(prog_name="meisa-bridge")
