"""A line chart as SVG: a few lines of one value a step over one axis. All text is escaped; `page` styles it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from orrery.tasks.checks import Number

WIDE, HIGH, LEFT, RIGHT, TOP, BOTTOM = 480, 200, 52, 470, 12, 168
"""Units of the picture; the plot lies between the last four."""
KINDS = 4
"""Line styles; a chart of more lines could not be read."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """Values at steps 0, 1, ...; None leaves a gap."""

    label: str
    values: Sequence[Number | None]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Lines that are compared, the most important one first."""

    caption: str
    lines: tuple[Line, ...]
    across: str
    """What the steps are."""
    up: str
    """What the values are, with their unit."""


def draw(chart: Chart) -> str:
    """The chart as a figure with its legend and caption; nothing is drawn of values that are not finite."""
    assert 1 <= len(chart.lines) <= KINDS, len(chart.lines)
    steps = max(len(line.values) for line in chart.lines)
    finite = [value for line in chart.lines for value in line.values if value is not None and math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    lines = "".join(_drawn(line, kind, steps, low, high) for kind, line in reversed(list(enumerate(chart.lines))))
    axes = "".join(
        f'<line class="axis" x1="{LEFT}" x2="{RIGHT}" y1="{y}" y2="{y}"/>'
        f'<text class="end" x="{LEFT - 6}" y="{y + 4}">{escape(f"{value:.3g}")}</text>'
        for y, value in ((TOP, high), (BOTTOM, low))
    )
    legend = "".join(
        f'<span><svg viewBox="0 0 24 8" width="24" height="8"><path class="line k{kind}" d="M0 4L24 4"/></svg> '
        f"{escape(line.label)}</span>"
        for kind, line in enumerate(chart.lines)
    )
    return (
        f'<figure class="chart"><svg viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{escape(chart.caption)}">'
        f'{axes}<text x="{LEFT}" y="{HIGH - 14}">0</text><text class="end" x="{RIGHT}" y="{HIGH - 14}">{steps - 1}'
        f'</text><text class="mid" x="{(LEFT + RIGHT) // 2}" y="{HIGH - 14}">{escape(chart.across)}</text>'
        f'<text class="mid" transform="translate(14 {(TOP + BOTTOM) // 2}) rotate(-90)">{escape(chart.up)}</text>'
        f'{lines}</svg><div class="legend">{legend}</div><figcaption>{escape(chart.caption)}</figcaption></figure>'
    )


def _drawn(line: Line, kind: int, steps: int, low: float, high: float) -> str:
    points = [
        None
        if value is None or not math.isfinite(value)
        else f"{LEFT + (RIGHT - LEFT) * step / max(1, steps - 1):.1f} "
        f"{BOTTOM - (BOTTOM - TOP) * (value - low) / (high - low):.1f}"
        for step, value in enumerate(line.values)
    ]
    path = "".join(f"M{'L'.join(run)}" for run in _runs(points))
    return f'<path class="line k{kind}" d="{path}"/>' if path else ""


def _runs(points: Sequence[str | None]) -> Iterator[list[str]]:
    """Neighbouring points without a gap between them."""
    for there, run in groupby(points, key=lambda point: point is not None):
        if there:
            yield [point for point in run if point is not None]
