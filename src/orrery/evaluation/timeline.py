"""The timeline of an episode as SVG: phases, sound, events and every number a frame, in rows over one axis of time.

All text is escaped. `episode_page` styles it and moves its play-head.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Any

import numpy as np
from jaxtyping import Float

from orrery.data.lerobot import Dataset, Episode
from orrery.data.media import Sound
from orrery.evaluation.episode_facts import Extras, Records, numbers, texts, value_names, width_of, with_unit

MOST_LINES = 64
"""A feature of more values a frame is named, not drawn."""

# The timeline, in units of its picture; letters of its text are about LETTER wide.
WIDE, LEFT, RIGHT, LETTER = 1180, 220, 1168, 6.3
PLOT = RIGHT - LEFT
BAND, LINE, WAVE, HEADING, LANE, TICKS = 22, 36, 40, 26, 17, 24
LANES = 4
"""Rows of the timeline for one kind of event."""
TINTS = (
    "#cfe3f7", "#fbe0c3", "#d5edd2", "#f3d3d8", "#e3d9f2", "#fbf0bd", "#cdeceb", "#ead9c8", "#f5d3ea", "#dfe5c4",
    "#d4d9e6", "#f0ddd0",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Row:
    """A strip of the timeline: text on the left and a drawing, in units of the picture, y from 0 to `height`."""

    label: str
    note: tuple[str, ...] = ()
    """Small text to the right of the label: one line, or one at the top and one at the bottom."""
    title: str = ""
    """Shown when the pointer rests on the row."""
    height: int
    drawing: str = ""
    style: str = ""


def timeline(dataset: Dataset, episode: Episode, extras: Extras) -> str:
    """Everything that has a time, in rows over one axis."""
    seconds = episode.length / episode.fps
    rows = [*phase_rows(extras.phases, seconds), *sound_rows(extras.sound, seconds)]
    rows += [*event_rows(extras.events, seconds), *value_rows(dataset, episode)]
    ends = np.cumsum([TICKS, *(row.height for row in rows)]).tolist()
    height = ends[-1] + 4
    drawn = "".join(draw_row(row, top) for row, top in zip(rows, ends, strict=False))
    skipped = [
        f"{name} ({'text' if name in texts(dataset) else f'{width_of(dataset, name)} values a frame'})"
        for name in (*texts(dataset), *numbers(dataset))
        if name in texts(dataset) or width_of(dataset, name) > MOST_LINES
    ]
    note = f'<p class="note">Not drawn: {escape(", ".join(skipped))}.</p>' if skipped else ""
    return (
        f'<div class="scroll"><svg id="timeline" viewBox="0 0 {WIDE} {height}" role="img" aria-label="Timeline" '
        f'data-left="{LEFT}" data-wide="{PLOT}" data-seconds="{seconds:.6f}">{axis(seconds, height)}{drawn}'
        f'<line id="head" y1="{TICKS - 6}" y2="{height}" transform="translate({LEFT})"/></svg></div>{note}'
    )


def draw_row(row: Row, top: int) -> str:
    middle = row.height / 2
    heights = (middle + 4,) if len(row.note) == 1 else (11, row.height - 4)
    room = 32 - max(len(text) for text in row.note) if row.note else 100  # nothing is drawn beside a heading
    notes = "".join(
        f'<text class="soft end" x="{LEFT - 8}" y="{y:g}">{escape(text)}</text>'
        for text, y in zip(row.note, heights, strict=False)
    )
    return (
        f'<g transform="translate(0 {top})"><title>{escape(row.title or row.label)}</title>'
        f'<rect class="hit" width="{WIDE}" height="{row.height}"/>'
        f'<text class="{row.style}" x="4" y="{middle + 4:g}">{escape(short(row.label, room))}</text>'
        f"{notes}{row.drawing}</g>"
    )


def axis(seconds: float, height: int) -> str:
    """Times along the top and faint lines below them."""
    lines = []
    step = tick_step(seconds)
    for count in range(math.floor(seconds / step + 1e-6) + 1):
        x = at(count * step, seconds)
        lines.append(
            f'<line class="grid" x1="{x}" x2="{x}" y1="{TICKS - 6}" y2="{height}"/>'
            f'<text class="soft mid" x="{x}" y="12">{count * step:g}{" s" if not count else ""}</text>'
        )
    return "".join(lines)


def tick_step(seconds: float) -> float:
    """A round number of seconds of which at most twelve fit."""
    least = seconds / 12
    ten = 10.0 ** math.floor(math.log10(least))
    return next(step for step in (ten, 2 * ten, 5 * ten, 10 * ten) if step >= least * (1 - 1e-9))


def at(time_s: float, seconds: float) -> str:
    """Where a time lies in the picture; the nearest end for one outside."""
    return f"{LEFT + PLOT * min(max(time_s / seconds, 0.0), 1.0):.1f}".removesuffix(".0")


def phase_rows(phases: Records, seconds: float) -> Iterator[Row]:
    """What was being done, and why the task was not done yet, as coloured bands."""
    if not phases:
        return
    names = list(dict.fromkeys(row["phase"] for row in phases))
    bands = {
        "Phase": [(row["phase"], row["subject"], TINTS[names.index(row["phase"]) % len(TINTS)]) for row in phases],
        "Task": [(row["failure"] or "done", "", TINTS[3 if row["failure"] else 2]) for row in phases],
    }
    for label, moments in bands.items():
        drawing, start, step = [], 0, seconds / len(phases)
        for (word, subject, tint), run in groupby(moments):
            stop = start + len(list(run))
            x, end = float(at(start * step, seconds)), float(at(stop * step, seconds))
            text = f"{word} {subject}".strip()
            room = int((end - x - 6) / LETTER)
            inside = text if len(text) <= room else short(word, room)
            drawing.append(
                f"<g><title>{escape(f'{text}, {start * step:.2f} to {stop * step:.2f} s')}</title>"
                f'<rect class="tint" x="{x:g}" y="1" width="{end - x:.1f}" height="{BAND - 3}" rx="2" fill="{tint}"/>'
                f'<text class="on" x="{x + 4:g}" y="{BAND / 2 + 3.5:g}">{escape(inside)}</text></g>'
            )
            start = stop
        title = {"Phase": "What was being done", "Task": "Why the task is not done at this moment"}[label]
        yield Row(label=label, title=title, height=BAND, drawing="".join(drawing), style="heading")


def sound_rows(sound: Sound | None, seconds: float) -> Iterator[Row]:
    """The highest and lowest sample of every step across, each channel on its own; one scale for all."""
    if sound is None:
        return
    channels = sound.samples.shape[1]
    peak = float(np.abs(sound.samples).max())
    names = {1: ("",), 2: (" left", " right")}.get(channels, tuple(f" {n}" for n in range(channels)))
    columns = int(min(PLOT, len(sound.samples)))
    edges = np.linspace(0, len(sound.samples), columns + 1).astype(int)[:-1]
    times = np.linspace(0, len(sound.samples) / sound.rate, columns)
    within = times <= seconds
    for name, samples in zip(names, sound.samples.T, strict=True):
        scale = (WAVE / 2 - 2) / (peak or 1.0)
        upper = WAVE / 2 - np.maximum.reduceat(samples, edges)[within] * scale
        lower = WAVE / 2 - np.minimum.reduceat(samples, edges)[within] * scale
        across = [at(float(t), seconds) for t in times[within]]
        # Half a unit more on both sides, so that silence is seen as a line.
        there = [f"{x} {y - 0.5:.1f}" for x, y in zip(across, upper, strict=True)]
        back = [f"{x} {y + 0.5:.1f}" for x, y in zip(across, lower, strict=True)]
        yield Row(
            label=f"Sound{name}",
            note=(f"peak {peak:.3g}",),
            title=f"Sound{name}: {sound.rate} Hz, {channels} channels, peak {peak:.3g} of 1",
            height=WAVE,
            drawing=f'<path class="wave" d="M{"L".join(there + back[::-1])}Z"/>',
            style="heading",
        )


def event_rows(events: Records, seconds: float) -> Iterator[Row]:
    """Rows for each kind, in order of appearance: as many as keep events from hiding each other, up to LANES."""
    if not events:
        return
    yield Row(label="Events", height=HEADING, style="heading")
    events = sorted(events, key=lambda event: event["time_s"])
    for kind in dict.fromkeys(event["kind"] for event in events):
        same = [event for event in events if event["kind"] == kind]
        within = [event for event in same if event["time_s"] <= seconds and event["stop_s"] >= 0]
        for number, lane in enumerate(lanes(within)):
            first = number == 0
            yield Row(
                label=kind if first else "", note=(f"{len(same)}×",) if first else (), title=kind,
                height=LANE, drawing=event_marks(lane, seconds),
            )  # fmt: skip


def lanes(events: Records) -> list[list[Mapping[str, Any]]]:
    """Events in order of time, each where the one before has ended; beyond LANES, where it ends first."""
    found: list[list[Mapping[str, Any]]] = [[]]
    for event in events:
        free = [lane for lane in found if not lane or lane[-1]["stop_s"] <= event["time_s"]]
        if free:
            free[0].append(event)
        elif len(found) < LANES:
            found.append([event])
        else:
            min(found, key=lambda lane: lane[-1]["stop_s"]).append(event)
    return found


def event_marks(events: Records, seconds: float) -> str:
    """A tick or bar for each event of a lane, and beside it whom it is about, as far as there is room."""
    drawing = []
    nexts = [float(at(event["time_s"], seconds)) for event in events[1:]] + [float(RIGHT)]
    for event, until in zip(events, nexts, strict=True):
        x, end = float(at(event["time_s"], seconds)), float(at(event["stop_s"], seconds))
        wide = max(end - x, 2.0)
        inside = short(" · ".join(event["subjects"]), int((until - x - wide - 6) / (LETTER - 0.6)))
        drawing.append(
            f"<g><title>{escape(event_text(event))}</title>"
            f'<rect class="mark" x="{x:g}" y="2" width="{wide:.1f}" height="{LANE - 4}" rx="1"/>'
            f'<text class="soft" x="{x + wide + 3:g}" y="{LANE / 2 + 4:g}">{escape(inside)}</text></g>'
        )
    return "".join(drawing)


def event_text(event: Mapping[str, Any]) -> str:
    lasting = f" to {event['stop_s']:.3f}" if event["stop_s"] > event["time_s"] else ""
    parts = [f"{event['time_s']:.3f}{lasting} s: {event['kind']}", " · ".join(event["subjects"])]
    parts += [" · ".join(event["materials"]), event["cause"]]
    parts += [] if event["impulse_Ns"] is None else [f"{event['impulse_Ns']:.3g} N s"]
    return ", ".join(part for part in parts if part)


def value_rows(dataset: Dataset, episode: Episode) -> Iterator[Row]:
    """A line for each value of each feature: actions, then states, then the rest."""
    order = sorted(
        numbers(dataset), key=lambda name: ("action" not in name, not name.startswith("action"), "state" not in name)
    )
    for name in order:
        if width_of(dataset, name) > MOST_LINES or name not in episode.columns:
            continue
        values = episode.columns[name].reshape(episode.length, -1).astype(np.float64)
        style = "a" if "action" in name else "b" if "state" in name else "c"
        yield Row(label=name, height=HEADING, style="heading")
        for label, line in zip(value_names(dataset.features[name], values.shape[1]), values.T, strict=True):
            low, high = float(line.min()), float(line.max())
            word, unit = with_unit(label)
            range_text = f"{low:.4g} to {high:.4g} {unit}".strip() if low < high else f"always {low:.4g} {unit}".strip()
            yield Row(
                label=f"{word} ({unit})" if unit else word,
                note=(f"{high:.3g}", f"{low:.3g}") if low < high else (f"{low:.3g}",),
                title=f"{name}, {label}: {range_text}; starts at {line[0]:.4g}, ends at {line[-1]:.4g}",
                height=LINE,
                drawing=trace(line, low, high, style),
            )


def trace(line: Float[np.ndarray, " T"], low: float, high: float, style: str) -> str:
    """Value i at the middle of frame i; the lowest and highest of every step across where there are more than fit."""
    count = len(line)
    times = (np.arange(count) + 0.5) / count
    if count > 2 * PLOT:
        edges = np.linspace(0, count, PLOT + 1).astype(int)[:-1]
        line = np.stack([np.minimum.reduceat(line, edges), np.maximum.reduceat(line, edges)], axis=1).reshape(-1)
        times = np.repeat(times[edges], 2)
    down = (high - line) / (high - low) if low < high else np.full(len(line), 0.5)
    ys = 5 + down * (LINE - 10)
    points = " ".join(f"{LEFT + PLOT * t:.1f},{y:.1f}" for t, y in zip(times, ys, strict=True))
    zero = ""
    if low < 0 < high:
        y = f"{5 + high / (high - low) * (LINE - 10):.1f}"
        zero = f'<line class="zero" x1="{LEFT}" x2="{RIGHT}" y1="{y}" y2="{y}"/>'
    rule = f'<line class="rule" x1="{LEFT}" x2="{RIGHT}" y1="{LINE}" y2="{LINE}"/>'
    return f'{rule}{zero}<polyline class="trace {style}" points="{points}"/>'


def short(text: str, letters: int) -> str:
    """As much of a text as fits; nothing rather than one or two letters of a longer one."""
    if len(text) <= letters:
        return text
    return f"{text[: letters - 1]}…" if letters > 3 else ""
