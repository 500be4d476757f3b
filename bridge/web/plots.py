"""Lines over the last hour as SVG, made here: no script, no library, and the same with and without JavaScript.

A plot is a picture of a table that stands beside it, so its label says what it shows and not each point. What is drawn
is stretched to the width there is; words stand around it as HTML, so that they keep their size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from bridge.observe.history import SPAN_SECONDS, Moment
from bridge.web.html import text

WIDTH, HEIGHT = 360.0, 100.0
Point = tuple[float, float | None]
"""Seconds ago, and a height from 0 to 1; None where there is nothing to draw."""

DELAY_TICKS = ((0.1, "0.1 s"), (1.0, "1 s"), (60.0, "1 min"), (3_600.0, "1 h"), (86_400.0, "1 d"))
"""At equal distances; between two of them the scale is logarithmic."""


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    style: str
    """A class of dashboard.css: a colour and a dash pattern."""
    points: Sequence[Point]


def plot(title: str, lines: Sequence[Line], ticks: Sequence[str]) -> str:
    """`ticks` are the labels of the height's scale, from the bottom to the top, at equal distances."""
    grid = "".join(
        f'<path class="grid" d="M0 {_y(place / (len(ticks) - 1))}H{WIDTH:g}"/>' for place in range(len(ticks))
    )
    drawn = "".join(f'<path class="line {line.style}" d="{_path(line.points)}"/>' for line in lines)
    scale = "".join(f"<span>{text(tick)}</span>" for tick in reversed(ticks))
    legend = "".join(
        f'<li><svg class="key" viewBox="0 0 24 8" aria-hidden="true"><path class="line {line.style}" d="M0 4H24"/>'
        f"</svg>{text(line.name)}</li>"
        for line in lines
    )
    return (
        f'<figure><figcaption>{text(title)}</figcaption><div class="plot"><div class="scale" aria-hidden="true">{scale}'
        f'</div><svg role="img" aria-label="{text(title)}" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" '
        f'preserveAspectRatio="none">{grid}{drawn}</svg></div>'
        f'<div class="hour" aria-hidden="true"><span>1 h ago</span><span>now</span></div>'
        f'<ul class="legend">{legend}</ul></figure>'
    )


def delays(moments: Sequence[Moment], lanes: Sequence[str]) -> Mapping[str, Sequence[Point]]:
    """Lane → how long deliveries took on average, between each two moments."""
    now = moments[-1].at_wall_seconds
    found: dict[str, list[Point]] = {lane: [] for lane in lanes}
    for before, after in pairwise(moments):
        for lane in lanes:
            count, seconds = _less(after.delays.get(lane, (0, 0.0)), before.delays.get(lane, (0, 0.0)))
            height = delay_height(seconds / count) if count > 0 else None
            found[lane].append((now - after.at_wall_seconds, height))
    return found


def delay_height(seconds: float) -> float:
    """Where a delay stands on the scale of DELAY_TICKS, from 0 to 1."""
    bounds = [bound for bound, _ in DELAY_TICKS]
    if seconds <= bounds[0]:
        return 0.0
    for place, (low, high) in enumerate(pairwise(bounds)):
        if seconds <= high:
            return (place + math.log(seconds / low) / math.log(high / low)) / (len(bounds) - 1)
    return 1.0


def rates(moments: Sequence[Moment]) -> tuple[Sequence[Point], Sequence[Point], float]:
    """Records taken in and calls made per minute between each two moments, as heights; and what the top stands for."""
    now = moments[-1].at_wall_seconds
    found: list[tuple[float, float, float]] = []
    for before, after in pairwise(moments):
        minutes = (after.at_wall_seconds - before.at_wall_seconds) / 60
        found.append(
            (
                now - after.at_wall_seconds,
                max(0, after.consumed - before.consumed) / minutes,
                max(0, after.calls - before.calls) / minutes,
            )
        )
    top = _round_up(max((max(taken, called) for _, taken, called in found), default=0.0))
    return [(ago, taken / top) for ago, taken, _ in found], [(ago, called / top) for ago, _, called in found], top


def uses(moments: Sequence[Moment], key: str, window: str) -> Sequence[Point]:
    """How much of a window was used at each moment."""
    now = moments[-1].at_wall_seconds
    found = [(now - each.at_wall_seconds, each.quota.get((key, window))) for each in moments]
    return [(ago, None if use is None or not use[1] else min(1.0, use[0] / use[1])) for ago, use in found]


def _less(one: tuple[int, float], other: tuple[int, float]) -> tuple[int, float]:
    return one[0] - other[0], one[1] - other[1]


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, 20 …: a scale that does not jump with every sample."""
    size = 10.0 ** math.floor(math.log10(value)) if value > 1 else 1.0
    return next(size * step for step in (1, 2, 5, 10) if size * step >= value)


def _path(points: Sequence[Point]) -> str:
    """Lines between neighbours that are there; one alone is a dot, by its round ends."""
    steps = []
    before: float | None = None
    for place, (ago, height) in enumerate(points):
        if height is not None:
            alone = before is None and (place + 1 == len(points) or points[place + 1][1] is None)
            move = "M" if before is None else "L"
            steps.append(f"{move}{_x(ago)} {_y(height)}" + ("h0" if alone else ""))
        before = height
    return "".join(steps)


def _x(ago: float) -> str:
    return f"{WIDTH * (1 - min(1.0, max(0.0, ago / SPAN_SECONDS))):.4g}"


def _y(height: float) -> str:
    return f"{HEIGHT * (1 - height):.3g}"
