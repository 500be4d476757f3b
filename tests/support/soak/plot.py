"""A run as an SVG: memory, handles, threads, calls and what waits over time, cycles and phases behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final
from xml.sax.saxutils import escape

from tests.support.soak.phases import CYCLE, QUIET
from tests.support.soak.run import Report
from tests.support.soak.watch import Sample

WIDTH, HEIGHT, LEFT, GAP, TOP = 900, 110, 70, 40, 50
INK, LINE, SHADE, RULE = "#333", "#2b6cb0", "#eef2f7", "#bbb"

Value = Callable[[Sample], float]
PANELS: Final[Sequence[tuple[str, Value]]] = (
    ("memory (RSS), MB", lambda sample: sample.held.rss_kb / 1024),
    ("open file handles", lambda sample: sample.handles),
    ("threads", lambda sample: sample.held.threads),
    ("events that wait for their calls", lambda sample: sample.pending),
    ("calls made, thousands", lambda sample: sample.calls / 1000),
)


def svg(report: Report) -> str:
    """The whole picture."""
    plan = report.plan
    seconds = plan.cycles * plan.cycle_seconds
    height = TOP + len(PANELS) * (HEIGHT + GAP)
    title = f"{seconds / 60:g} minutes in {plan.cycles} equal cycles; grey: the quiet phases"
    parts = [f'<text x="{LEFT}" y="22" font-size="14">{escape(title)}</text>']
    for number, (name, value) in enumerate(PANELS):
        parts += _panel(name, report.samples, value, TOP + number * (HEIGHT + GAP), seconds, plan.cycles)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 20} {height}" font-family="sans-serif" '
        f'font-size="11" fill="{INK}"><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _panel(name: str, samples: Sequence[Sample], value: Value, y: int, seconds: float, cycles: int) -> list[str]:
    top = max([value(sample) for sample in samples], default=0.0) * 1.1 or 1.0
    span = WIDTH / cycles
    quiet = next(phase.share for phase in CYCLE if phase.name == QUIET)
    made = [
        f'<rect x="{LEFT + (number + 1 - quiet) * span:.1f}" y="{y}" width="{quiet * span:.1f}" height="{HEIGHT}" '
        f'fill="{SHADE}"/>'
        for number in range(cycles)
    ]
    points = " ".join(
        f"{LEFT + sample.at / seconds * WIDTH:.1f},{y + HEIGHT - value(sample) / top * HEIGHT:.1f}"
        for sample in samples
    )
    made += [
        f'<text x="{LEFT}" y="{y - 6}">{escape(name)}</text>',
        f'<path d="M{LEFT} {y}V{y + HEIGHT}H{LEFT + WIDTH}" fill="none" stroke="{INK}"/>',
        f'<text x="{LEFT - 6}" y="{y + 8}" text-anchor="end">{top:.3g}</text>',
        f'<text x="{LEFT - 6}" y="{y + HEIGHT}" text-anchor="end">0</text>',
        f'<polyline points="{points}" fill="none" stroke="{LINE}" stroke-width="1.5"/>',
    ]
    for number in range(cycles + 1):
        x = LEFT + number * span
        made.append(f'<path d="M{x:.1f} {y}V{y + HEIGHT}" stroke="{RULE}" stroke-dasharray="2"/>')
        label = f"{number * seconds / cycles / 60:.3g} min"
        made.append(f'<text x="{x:.1f}" y="{y + HEIGHT + 13}" text-anchor="middle">{label}</text>')
    return made
