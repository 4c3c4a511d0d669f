"""A report as one HTML file: videos side by side, and every number in one row with the baseline that it has to beat.

The file needs nothing else, now or later: styles are inline, videos and pictures are data URIs, there is no script, and
a content policy in it forbids the browser to fetch anything. What is measured is in `metrics`; this only shows it.
"""

import base64
import math
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8

from orrery.data.media import Sound
from orrery.data.write_media import write_png, write_video
from orrery.evaluation.chart import Chart, draw
from orrery.tasks.checks import Number
from orrery.weights.atomic import write_atomic

GAP_PX = 4
"""Between the clips of a strip, in pixels of the clips."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; media-src data:; img-src data:"

STYLE = """
:root { color-scheme: light dark; --ink: #1d2126; --soft: #5d6673; --paper: #fbfaf8; --card: #ffffff; --line: #dcd9d3;
  --good: #1b7f4b; --bad: #b3382c; --warn: #fff3d6; --warn-ink: #6b4a00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e6e1; --soft: #a0a7b1; --paper: #16181c; --card: #1f2227;
  --line: #363b43; --good: #5fce93; --bad: #ff8a7a; --warn: #3d3115; --warn-ink: #ffdf94; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.3rem; margin: 0 0 .4rem; }
p { margin: .4rem 0 .9rem; max-width: 46rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1.3rem 1.4rem;
  margin: 1.4rem 0; }
.warnings { background: var(--warn); color: var(--warn-ink); border-radius: .6rem; padding: .7rem 1.4rem;
  list-style: none; margin: 1.2rem 0; }
.warnings li { margin: .3rem 0; font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; margin: .6rem 0 1rem; }
th, td { text-align: left; padding: .4rem .8rem .4rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; font-size: .85rem; }
td.number { white-space: nowrap; }
.good { color: var(--good); font-weight: 700; }
.bad { color: var(--bad); font-weight: 700; }
.note, figcaption, dt { color: var(--soft); font-size: .88rem; }
figure { margin: 1rem 0 1.4rem; }
.labels { display: grid; font-size: .85rem; font-weight: 600; text-align: center; }
video { display: block; width: 100%; image-rendering: pixelated; border-radius: .3rem; background: #000; }
img { display: block; width: min(100%, 26rem); image-rendering: pixelated; border-radius: .3rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); gap: 0 1.2rem; }
.chart svg { width: 100%; } .chart text { font-size: 11px; fill: var(--soft); }
.chart .end { text-anchor: end; } .chart .mid { text-anchor: middle; }
.axis { stroke: var(--line); } .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.k0 { stroke: var(--good); } .k1 { stroke: var(--ink); stroke-width: 1.5; } .k2 { stroke: var(--soft); }
.k3 { stroke: var(--bad); } .k2, .k3 { stroke-dasharray: 5 4; stroke-width: 1.5; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1rem; font-size: .82rem; }
.legend svg { width: 24px; vertical-align: middle; }
code { font: .86rem/1.5 ui-monospace, monospace; overflow-wrap: anywhere; }
pre { margin: 0; white-space: pre-wrap; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; margin: 0; }
dd { margin: 0; overflow-wrap: anywhere; }
"""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One number and what it has to beat. None is a number that does not exist, as when no pixel moved."""

    name: str
    value: Number | None
    unit: str
    baseline_name: str
    """"" where there is nothing to beat."""
    baseline: Number | None
    better: Literal["higher", "lower"]
    interval: tuple[Number, Number] | None = None
    """Of `value`, at 95 %."""
    note: str = ""

    @property
    def verdict(self) -> Literal["better", "not better", "no clear difference"] | None:
        """Against the baseline: not clear while it lies within the interval. None where a number does not exist."""
        if self.value is None or self.baseline is None:
            return None
        if self.interval is not None and self.interval[0] <= self.baseline <= self.interval[1]:
            return "no clear difference"
        wins = self.value > self.baseline if self.better == "higher" else self.value < self.baseline
        return "better" if wins else "not better"

    def to_json(self) -> dict[str, Any]:
        """Plain values; JSON has no infinity, so one becomes the text "infinite"."""
        return {
            "name": self.name,
            "value": _json_number(self.value),
            "unit": self.unit,
            "interval_95": None if self.interval is None else [_json_number(end) for end in self.interval],
            "baseline": {"name": self.baseline_name, "value": _json_number(self.baseline)},
            "better": self.better,
            "verdict": self.verdict,
            "note": self.note,
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Strip:
    """Clips of one size and length that play side by side, as one video so that they cannot drift apart."""

    caption: str
    clips: tuple[tuple[str, UInt8[np.ndarray, "T H W 3"]], ...]
    """(label, frames)."""
    fps: Number
    sound: Sound | None = None
    """Heard when the reader unmutes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Still:
    """One picture."""

    caption: str
    picture: UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Words in rows, as questions and their answers are."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Section:
    """One comparison."""

    title: str
    text: str
    measures: tuple[Measure, ...] = ()
    stills: tuple[Still, ...] = ()
    tables: tuple[Table, ...] = ()
    strips: tuple[Strip, ...] = ()
    charts: tuple[Chart, ...] = ()
    command: str = ""
    """What makes these numbers again."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Page:
    """A whole report."""

    title: str
    summary: str
    warnings: tuple[str, ...]
    """What a reader must know before any number."""
    facts: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]


def write_page(path: Path, page: Page) -> None:
    """Write the report, whole or not at all.

    Raises:
        MediaError: clips that cannot be written as a video, such as of odd height.
    """
    write_atomic(path, render(page).encode())


def render(page: Page) -> str:
    """The report as HTML. All text is escaped."""
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in page.facts)
    return (
        "<!doctype html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(page.title)}</title><style>{STYLE}</style></head>\n<body><main>\n"
        f"<h1>{escape(page.title)}</h1><p>{escape(page.summary)}</p>\n"
        f'<ul class="warnings">{_each("li", page.warnings)}</ul>\n'
        + "".join(_section(section) for section in page.sections)
        + f"<section><h2>How this came about</h2><dl>{facts}</dl></section>\n</main></body></html>\n"
    )


def shown(value: Number | None, unit: str) -> str:
    """A number for a reader, four digits of it."""
    if value is None:
        return "does not exist"
    if math.isinf(value):
        return "infinite (exact)" if value > 0 else "minus infinite"
    return f"{value:.4g} {unit}".strip()


def side_by_side(clips: Sequence[UInt8[np.ndarray, "T H W 3"]]) -> UInt8[np.ndarray, "T H Wide 3"]:
    """Clips of one size and length next to each other, grey between them."""
    frames, height, _, _ = clips[0].shape
    gap = np.full((frames, height, GAP_PX, 3), 128, dtype=np.uint8)
    pieces = [piece for clip in clips for piece in (gap, clip)][1:]
    return np.concatenate(pieces, axis=2)


def _section(section: Section) -> str:
    table = ""
    if section.measures:
        head = "<tr><th>Measure</th><th>Model</th><th>95 % interval</th><th>Baseline</th><th></th></tr>"
        rows = "".join(_row(measure) for measure in section.measures)
        table = f'<div class="scroll"><table>{head}{rows}</table></div>'
    command = ""
    if section.command:
        command = f'<p class="note">Made again by</p><pre><code>{escape(section.command)}</code></pre>'
    media = "".join(
        [
            *(_still(still) for still in section.stills),
            *(_table(words) for words in section.tables),
            *(_strip(strip) for strip in section.strips),
        ]
    )
    charts = f'<div class="charts">{"".join(map(draw, section.charts))}</div>' if section.charts else ""
    return (
        f"<section><h2>{escape(section.title)}</h2><p>{escape(section.text)}</p>{table}{media}{charts}{command}"
        "</section>\n"
    )


def _row(measure: Measure) -> str:
    interval = "" if measure.interval is None else " to ".join(shown(end, "") for end in measure.interval)
    style = {"better": "good", "not better": "bad"}.get(measure.verdict or "", "note")
    verdict = f'<span class="{style}">{measure.verdict or ""}</span>'
    note = f'<div class="note">{escape(measure.note)}</div>' if measure.note else ""
    baseline = ""
    if measure.baseline_name:
        baseline = f'<span class="number">{escape(shown(measure.baseline, measure.unit))}</span>'
        baseline += f'<div class="note">{escape(measure.baseline_name)}</div>'
    return (
        f"<tr><td>{escape(measure.name)}{note}</td>"
        f'<td class="number"><b>{escape(shown(measure.value, measure.unit))}</b></td>'
        f'<td class="number">{escape(interval)}</td>'
        f"<td>{baseline}</td>"
        f"<td>{verdict}</td></tr>"
    )


def _strip(strip: Strip) -> str:
    labels = "".join(f"<span>{escape(label)}</span>" for label, _ in strip.clips)
    controls = " controls" if strip.sound is not None else ""
    return (
        f'<figure><div class="labels" style="grid-template-columns: repeat({len(strip.clips)}, 1fr)">{labels}</div>'
        f'<video autoplay muted loop playsinline{controls} src="{_video_uri(strip)}"></video>'
        f"<figcaption>{escape(strip.caption)}</figcaption></figure>"
    )


def _still(still: Still) -> str:
    return (
        f'<figure><img alt="{escape(still.caption)}" src="{_picture_uri(still.picture)}">'
        f"<figcaption>{escape(still.caption)}</figcaption></figure>"
    )


def _table(words: Table) -> str:
    rows = "".join(f"<tr>{_each('td', row)}</tr>" for row in words.rows)
    return f'<div class="scroll"><table><tr>{_each("th", words.head)}</tr>{rows}</table></div>'


def _picture_uri(picture: UInt8[np.ndarray, "H W 3"]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "still.png"
        write_png(path, picture)
        return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _video_uri(strip: Strip) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "strip.mp4"
        write_video(path, side_by_side([frames for _, frames in strip.clips]), strip.fps, sound=strip.sound)
        return "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()


def _each(tag: str, texts: Iterable[str]) -> str:
    return "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)


def _json_number(value: Number | None) -> Number | str | None:
    if value is None or math.isfinite(value):
        return value
    return "infinite" if value > 0 else "minus infinite"
