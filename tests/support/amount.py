"""How much is tried: everyday runs take a part of the examples and scenarios, CI and THOROUGH=1 take all of them.

What may be left out is chance's share, further examples of one property or further seeds of one scenario; and tests
marked `slow` (tests/conftest.py), which take seconds and whose subject has a quicker test that runs every day.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from hypothesis import settings

from tests.support.needs import is_set

T = TypeVar("T")

PART = 8
"""One of so many is tried every day."""


THOROUGH = is_set("CI") or is_set("THOROUGH")


def examples(count: int, everyday: int | None = None) -> int:
    """For `@settings(max_examples=…)`, where a property needs another number than Hypothesis's default.

    `everyday` is for properties of which one example takes long.
    """
    return count if THOROUGH else everyday or max(5, count // PART)


def some(of: Sequence[T]) -> Sequence[T]:
    """The scenarios to try."""
    return of if THOROUGH else of[::PART]


def use_profile() -> None:
    """Hypothesis's settings of this run. No deadlines: other tests, and other work, use the same machine."""
    settings.register_profile("all", settings.default, deadline=None)
    settings.register_profile("everyday", settings.get_profile("all"), max_examples=examples(100))
    settings.load_profile("all" if THOROUGH else "everyday")
