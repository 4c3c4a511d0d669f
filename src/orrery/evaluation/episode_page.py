"""One recorded episode as one HTML file: its cameras, everything over one axis of time, and what is asked about it.

For any LeRobot v3.0 dataset; richer where files below `extras` (see `extra_path`) hold sound, events, phases, questions
and facts, as those of the factory world do. All of it may come from strangers: text is escaped, videos and sounds are
decoded and encoded again, and a content policy lets the browser fetch nothing and run nothing but the play-head below.
Reports of measurements are in `page`.
"""

import base64
import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, UInt8
from PIL import Image

from orrery.data.lerobot import NUMBERS, Dataset, Episode, extra_path, read_table
from orrery.data.lerobot_writer import COUNTERS
from orrery.data.media import Sound, probe_video, read_sound, read_video
from orrery.data.write_media import encode_video, write_flac
from orrery.errors import DatasetError, MediaError
from orrery.evaluation.page import STYLE
from orrery.weights.atomic import write_atomic

Tell = Callable[[int, int], None]

LONGEST_SIDE = 480
"""Larger pictures are scaled down to this, in pixels."""
QUALITY, KEYFRAME_EVERY = 27, 15
PIECE_BYTES = 48 * 2**20
"""How much of a camera is in memory at once."""
MOST_LINES = 64
"""A feature of more values a frame is named, not drawn."""
FOLD_ABOVE = 3
"""More problems than these are shown on a click."""

WORDS, WHOLE, REAL = pa.string(), pa.int64(), pa.float64()
EVENTS = {
    "time_s": REAL, "stop_s": REAL, "kind": WORDS, "subjects": pa.list_(WORDS), "materials": pa.list_(WORDS),
    "cause": WORDS, "impulse_Ns": REAL,
}  # fmt: skip
PHASES = {"frame_index": WHOLE, "phase": WORDS, "subject": WORDS, "failure": WORDS}
OBJECTS = {"frame_index": WHOLE, "part": WHOLE, "x_m": REAL, "y_m": REAL, "z_m": REAL, "held": pa.bool_()}
QUESTIONS = {
    "family": WORDS, "template": WHOLE, "text": WORDS, "answer": WORDS, "choices": pa.list_(WORDS), "kind": WORDS,
    "camera": WORDS, "media": WORDS, "start_frame": WHOLE, "stop_frame": WHOLE, "sound": pa.bool_(),
}  # fmt: skip

UNITS = {
    "m": "m", "mm": "mm", "rad": "rad", "deg": "°", "s": "s", "N": "N", "Nm": "N m", "V": "V", "A": "A", "kg": "kg",
    "m_s": "m/s", "rad_s": "rad/s",
}  # fmt: skip
"""How a name ends, and what is shown for it."""

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

OWN_STYLE = """
:root { --line-a: #2563a8; --line-b: #16795a; --line-c: #7a4fa3; --mark: #c2571a; --grid: #ece9e3; --head: #d22f27; }
@media (prefers-color-scheme: dark) { :root { --line-a: #7fb4ee; --line-b: #62cfa6; --line-c: #c3a1e8;
  --mark: #f0995f; --grid: #2b2f36; --head: #ff6b61; } }
main { max-width: 80rem; }
h1 small { color: var(--soft); font-weight: 400; font-size: 1.1rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
.task { font-size: 1.2rem; max-width: none; margin: .2rem 0 .6rem; }
.line { max-width: none; }
.badge { display: inline-block; border: 1px solid currentColor; border-radius: 1rem; padding: .05rem .7rem;
  font-size: .9rem; }
.line span { margin-right: 1.4rem; } .line .plain { color: var(--soft); }
.line b { color: var(--ink); font-weight: 600; }
.films { display: flex; flex-wrap: wrap; gap: .8rem; justify-content: center; background: var(--card);
  padding: .2rem 0 .6rem; }
.films figure { margin: 0; flex: 1 1 16rem; max-width: 36rem; }
.films figcaption { overflow-wrap: anywhere; }
.films video, .beside video { image-rendering: auto; max-height: 44vh; object-fit: contain; }
@media (min-height: 44rem) { .few { position: sticky; top: 0; z-index: 1; border-bottom: 1px solid var(--line); } }
#timeline { display: block; width: 100%; min-width: 46rem; margin-top: .6rem; cursor: crosshair;
  font: 12px system-ui, sans-serif; }
#timeline text { fill: var(--ink); }
#timeline .soft { fill: var(--soft); font-size: 10.5px; }
#timeline .end { text-anchor: end; } #timeline .mid { text-anchor: middle; }
#timeline .heading { font-weight: 650; }
#timeline .on { fill: #1d2126; font-size: 11px; }
#timeline .grid { stroke: var(--grid); } #timeline .rule { stroke: var(--line); }
#timeline .zero { stroke: var(--line); stroke-dasharray: 2 3; }
#timeline .hit { fill: transparent; } #timeline g:hover > .hit { fill: var(--grid); opacity: .55; }
#timeline .trace { fill: none; stroke-width: 1.4; stroke-linejoin: round; }
#timeline .a { stroke: var(--line-a); } #timeline .b { stroke: var(--line-b); } #timeline .c { stroke: var(--line-c); }
#timeline .wave { fill: var(--line-c); } #timeline .mark { fill: var(--mark); opacity: .8; }
#timeline .tint { stroke: var(--card); }
#head { stroke: var(--head); stroke-width: 1.5; pointer-events: none; }
.tall { max-height: 30rem; overflow: auto; }
.tall th { position: sticky; top: 0; background: var(--card); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: .8rem; }
.card { border: 1px solid var(--line); border-radius: .4rem; padding: .6rem .8rem; }
.card p { margin: .2rem 0 .4rem; white-space: pre-line; overflow-wrap: anywhere; }
.card ul { margin: .2rem 0 .4rem; padding-left: 1.2rem; }
summary { cursor: pointer; color: var(--soft); font-size: .9rem; }
.beside { display: grid; grid-template-columns: minmax(12rem, 22rem) 1fr; gap: 1rem; align-items: start; }
.beside figure { margin: 0; }
@media (max-width: 48rem) { .beside { grid-template-columns: 1fr; } }
button { font: inherit; font-size: .85rem; color: var(--line-a); background: none; border: 0; padding: 0;
  cursor: pointer; text-decoration: underline dotted; }
dd { white-space: pre-wrap; } th, dt, td { overflow-wrap: anywhere; }
"""
"""What the look of reports does not have."""

SCRIPT = """
"use strict";
const films = [...document.querySelectorAll(".film")], first = films[0];
const head = document.getElementById("head"), chart = document.getElementById("timeline");
const left = +chart.dataset.left, wide = +chart.dataset.wide, seconds = +chart.dataset.seconds;
const seek = (s) => films.forEach((film) => { film.currentTime = Math.max(0, Math.min(s, film.duration || 0)); });
const draw = () => {
  const x = left + wide * Math.min(1, first.currentTime / seconds);
  head.setAttribute("transform", `translate(${x})`);
  requestAnimationFrame(draw);
};
films.forEach((film) => {
  film.onplay = () => films.forEach((other) => other.play());
  film.onpause = () => films.forEach((other) => other.pause());
  film.onseeked = film.ontimeupdate = () => films.forEach((other) => {
    if (Math.abs(other.currentTime - film.currentTime) > 0.12) other.currentTime = film.currentTime;
  });
});
chart.onclick = (e) => {
  const point = new DOMPoint(e.clientX, e.clientY).matrixTransform(chart.getScreenCTM().inverse());
  if (point.x >= left) seek((point.x - left) / wide * seconds);
};
document.querySelectorAll("[data-at]").forEach((link) => { link.onclick = () => seek(+link.dataset.at); });
if (first) draw();
"""
"""Moves the play-head with the first camera, keeps the others with it, and goes where the reader clicks."""

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; media-src data:; base-uri 'none'; form-action 'none'; "
    f"script-src 'sha256-{base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()}'"
)

Records = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Extras:
    """What lies below `extras` for one episode; None or empty where there is no such file."""

    about: Mapping[str, Any] | None = None
    sound: Sound | None = None
    events: Records = ()
    phases: Records = ()
    objects: Records = ()
    questions: Records = ()
    clip: Path | None = None


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


def write_episode_page(path: Path, dataset: Dataset, index: int, *, tell: Tell | None = None) -> None:
    """Write the page of one episode, whole or not at all.

    Args:
        tell: is told how many frames are done, and of how many.

    Raises:
        DatasetError: no such episode, or rows, a video or a file below `extras` that is damaged.
    """
    episode = dataset.episode(index)
    extras = read_extras(dataset.root, int(dataset.rows[index]["episode_index"]), episode.length)
    # Text from JSON may hold half a surrogate pair, which no file can.
    write_atomic(path, render(dataset, episode, extras, tell=tell).encode(errors="replace"))


def read_extras(root: Path, number: int, length: int) -> Extras:
    """Read the files below `extras` of the episode of that number, as long as `length` frames.

    Raises:
        DatasetError: one of them is damaged or does not hold what it should.
    """

    def table(name: str, columns: Mapping[str, pa.DataType]) -> Records:
        path = extra_path(root, name, "parquet", number)
        return read_records(path, columns) if path.exists() else ()

    about, sound, clip = (
        extra_path(root, name, suffix, number)
        for name, suffix in (("about", "json"), ("sound", "flac"), ("clip", "mp4"))
    )
    events, phases = table("events", EVENTS), table("phases", PHASES)
    for event in events:
        if not (math.isfinite(event["time_s"]) and event["time_s"] <= event["stop_s"] < math.inf):
            path = extra_path(root, "events", "parquet", number)
            raise DatasetError(
                f"{path} has an event from {event['time_s']} to {event['stop_s']} s. Record the episode again."
            )
    if phases and [row["frame_index"] for row in phases] != list(range(length)):
        path = extra_path(root, "phases", "parquet", number)
        raise DatasetError(f"{path} does not have one row for each of {length} frames. Record the episode again.")
    try:
        heard = read_sound(sound) if sound.exists() else None
    except MediaError as error:
        raise DatasetError(str(error)) from None
    return Extras(
        about=read_about(about) if about.exists() else None,
        sound=heard,
        events=events,
        phases=phases,
        objects=table("objects", OBJECTS),
        questions=table("questions", QUESTIONS),
        clip=clip if clip.exists() else None,
    )


def read_about(path: Path) -> Mapping[str, Any]:
    try:
        about = json.loads(path.read_bytes())
        json.dumps(about)  # what is nested too deeply to be shown fails here
    except (ValueError, RecursionError):
        raise DatasetError(f"{path} is not valid JSON. Record the episode again.") from None
    if not isinstance(about, dict):
        raise DatasetError(f"{path} does not hold named facts. Record the episode again.")
    return about


def read_records(path: Path, columns: Mapping[str, pa.DataType]) -> Records:
    """The rows of a parquet file, its columns as declared; only an impulse may be missing."""
    table = read_table(path, keep=list(columns))
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise DatasetError(f"{path} has no column {', '.join(missing)}. Record the episode again.")
    try:
        table = table.select(list(columns)).cast(pa.schema(columns.items()))
    except pa.ArrowException:
        types = ", ".join(f"{name} {kind}" for name, kind in columns.items())
        raise DatasetError(f"{path} has columns of other types than {types}. Record the episode again.") from None
    rows: Records = table.to_pylist()
    for row in rows:
        for name, value in row.items():
            if (value is None and name != "impulse_Ns") or (isinstance(value, list) and None in value):
                raise DatasetError(f"{path} lacks a value in {name}. Record the episode again.")
    return rows


def render(dataset: Dataset, episode: Episode, extras: Extras, *, tell: Tell | None = None) -> str:
    """The page as HTML. All text is escaped."""
    number = int(dataset.rows[episode.index]["episode_index"])
    name, seconds = dataset.root.resolve().name, episode.length / episode.fps
    facts = {
        "Robot": dataset.robot_type or "not named", "Length": f"{seconds:.2f} s", "Frames": str(episode.length),
        "Rate": f"{episode.fps:g} a second", "Cameras": str(len(episode.cameras)),
    }  # fmt: skip
    return (
        "<!doctype html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Episode {number} of {escape(name)}</title><style>{STYLE}{OWN_STYLE}</style></head>\n<body><main>\n"
        f"<h1>Episode {number} <small>of {escape(name)}</small></h1>\n"
        + "".join(f'<p class="task">{escape(text.strip(" |")) or "No task text."}</p>' for text in episode.tasks)
        + f'<p class="line">{outcome(extras.about)}'
        + "".join(f'<span class="plain">{key} <b>{escape(value)}</b></span>' for key, value in facts.items())
        + "</p>\n"
        + problem_list([*dataset.problems, *doubts(episode, extras)])
        + f"<section>{films(episode, extras.sound, tell or silent)}{timeline(dataset, episode, extras)}</section>\n"
        + event_table(extras.events, seconds)
        + questions(extras, episode.fps)
        + places(extras.objects, episode.length)
        + about_list(extras.about)
        + f"</main><script>{SCRIPT}</script></body></html>\n"
    )


def problem_list(problems: Sequence[str]) -> str:
    """What is wrong with the dataset; folded up where it is much."""
    if not problems:
        return ""
    listed = f'<ul class="warnings">{"".join(f"<li>{escape(text)}</li>" for text in problems)}</ul>\n'
    if len(problems) <= FOLD_ABOVE:
        return listed
    return f"<details><summary>{len(problems)} problems of the dataset</summary>{listed}</details>\n"


def doubts(episode: Episode, extras: Extras) -> Iterator[str]:
    """What a reader must know of how this episode's extras and times fit together."""
    seconds, frame_s = episode.length / episode.fps, 1 / episode.fps
    if np.abs(episode.times_s - np.arange(episode.length) * frame_s).max() > frame_s / 2:
        yield "The times of the rows do not follow the frame rate; rows and videos are shown at the frame rate."
    if extras.sound is not None:
        heard_s = len(extras.sound.samples) / extras.sound.rate
        if abs(heard_s - seconds) > frame_s:
            yield f"The sound lasts {heard_s:.2f} s, the episode {seconds:.2f} s."
    if any(q["media"] == "clip" for q in extras.questions) and extras.clip is None:
        yield "Some questions are about a clip that is not there."


def outcome(about: Mapping[str, Any] | None) -> str:
    """A badge: whether the task was done, and if not, why."""
    success = (about or {}).get("success")
    if about is None or not isinstance(success, bool):
        return ""
    why = about.get("failure")
    text = "Succeeded" if success else f"Failed: {why}" if why else "Failed"
    return f'<span class="badge {"good" if success else "bad"}">{escape(text)}</span>'


def films(episode: Episode, sound: Sound | None, tell: Tell) -> str:
    """Every camera as a video; the sound is in the first, or stands alone where there is none."""
    made: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for camera in episode.cameras:
            path = Path(folder) / "film.mp4"
            heard = sound if not made else None
            first = episode.frames(camera, 0, 1)[0]
            size = shown_size(*first.shape[:2])
            pictures = told(scaled(frames_of(episode, camera, first.nbytes), size), len(made), episode, tell)
            try:
                encode_video(
                    path, pictures, episode.fps, size=size, sound=heard, metadata={}, quality=QUALITY,
                    keyframe_every=KEYFRAME_EVERY,
                )  # fmt: skip
            except MediaError as error:
                raise DatasetError(f"Episode {episode.index}, camera {camera}: {error}") from None
            note = " · with sound" if heard is not None else ""
            made.append(film(path, f"{camera}{note}", "film", muted=heard is None))
        if sound is not None and not made:
            path = Path(folder) / "sound.flac"
            write_flac(path, sound)
            made.append(f'<audio class="film" controls src="{data_uri(path, "audio/flac")}"></audio>')
    # More would cover the timeline while it scrolls below them.
    style = "films few" if len(made) <= 4 else "films"
    return f'<div class="{style}">{"".join(made)}</div>' if made else ""


def frames_of(episode: Episode, camera: str, frame_bytes: int) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    piece = max(1, PIECE_BYTES // frame_bytes)
    for start in range(0, episode.length, piece):
        yield from episode.frames(camera, start, min(start + piece, episode.length))


def scaled(
    pictures: Iterable[UInt8[np.ndarray, "h w 3"]], size: tuple[int, int]
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    for picture in pictures:
        if picture.shape[:2] == size:
            yield picture
        else:
            yield np.asarray(Image.fromarray(picture).resize(size[::-1], Image.Resampling.BILINEAR))


def told(pictures: Iterable[np.ndarray], films_done: int, episode: Episode, tell: Tell) -> Iterator[np.ndarray]:
    """The pictures as they come, each one counted."""
    for count, picture in enumerate(pictures, films_done * episode.length + 1):
        yield picture
        tell(count, len(episode.cameras) * episode.length)


def shown_size(height: int, width: int) -> tuple[int, int]:
    """At most LONGEST_SIDE, and even, as video needs it."""
    scale = min(1.0, LONGEST_SIDE / max(height, width))
    return max(2, 2 * round(height * scale / 2)), max(2, 2 * round(width * scale / 2))


def silent(done: int, total: int) -> None:
    """Nobody is told."""


def film(path: Path, caption: str, style: str, *, muted: bool) -> str:
    quiet = " muted" if muted else ""
    return (
        f'<figure><video class="{style}" controls playsinline{quiet} src="{data_uri(path, "video/mp4")}"></video>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def data_uri(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


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


def numbers(dataset: Dataset) -> tuple[str, ...]:
    """Features that can be drawn as lines."""
    return tuple(n for n, f in dataset.features.items() if f["dtype"] in NUMBERS and n not in COUNTERS)


def texts(dataset: Dataset) -> tuple[str, ...]:
    return tuple(n for n, f in dataset.features.items() if f["dtype"] == "string")


def width_of(dataset: Dataset, name: str) -> int:
    return math.prod(dataset.features[name]["shape"])


def value_names(feature: Mapping[str, Any], width: int) -> tuple[str, ...]:
    """Names of a feature's values: a list, one for each group, or keys; numbers if none fit."""
    names = feature.get("names")
    if isinstance(names, dict):
        groups = [group for group in names.values() if isinstance(group, list)]
        names = [name for group in groups for name in group] if groups else list(names)
    if isinstance(names, list) and len(names) == width and all(isinstance(name, str) for name in names):
        return tuple(names)
    return tuple(str(n) for n in range(width)) if width > 1 else ("value",)


def with_unit(name: str) -> tuple[str, str]:
    """ "dx_m" is dx in metres."""
    for ending in sorted(UNITS, key=len, reverse=True):
        if name.endswith(f"_{ending}") and len(name) > len(ending) + 1:
            return name.removesuffix(f"_{ending}"), UNITS[ending]
    return name, ""


def short(text: str, letters: int) -> str:
    """As much of a text as fits; nothing rather than one or two letters of a longer one."""
    if len(text) <= letters:
        return text
    return f"{text[: letters - 1]}…" if letters > 3 else ""


def event_table(events: Records, seconds: float) -> str:
    """All events, also those that lie beyond the timeline, as where an episode begins within another one."""
    if not events:
        return ""
    beyond = sum(event["time_s"] < 0 or event["stop_s"] > seconds for event in events)
    note = (
        f'<p class="note">{beyond} reach beyond the episode; the timeline shows what lies within.</p>' if beyond else ""
    )
    rows = []
    for event in sorted(events, key=lambda event: event["time_s"]):
        lasting = event["stop_s"] - event["time_s"]
        cells = (
            event["kind"], " · ".join(event["subjects"]), " · ".join(event["materials"]), event["cause"],
            f"{lasting:.3f} s" if lasting else "",
            "" if event["impulse_Ns"] is None else f"{event['impulse_Ns']:.3g} N s",
        )  # fmt: skip
        time = link(event["time_s"], f"{event['time_s']:.3f} s")
        rows.append(f'<tr><td class="number">{time}</td>{tds(cells)}</tr>')
    heads = ths("Time", "Kind", "Subjects", "Materials", "Cause", "Lasts", "Impulse")
    return f'<section><h2>Events</h2><div class="tall"><table>{heads}{"".join(rows)}</table></div>{note}</section>\n'


def questions(extras: Extras, fps: float) -> str:
    """Those about the clip stand beside it."""
    if not extras.questions and extras.clip is None:
        return ""
    about_clip = [q for q in extras.questions if q["media"] == "clip"]
    others = [q for q in extras.questions if q["media"] != "clip"]
    blocks = [f'<div class="cards">{"".join(card(q, fps) for q in others)}</div>'] if others else []
    if extras.clip is not None:
        cards = "".join(card(q, fps) for q in about_clip)
        blocks.append(
            f'<h3>About a clip</h3><div class="beside">{clip_film(extras.clip)}<div class="cards">{cards}</div></div>'
        )
    elif about_clip:
        blocks.append(f'<h3>About a clip</h3><div class="cards">{"".join(card(q, fps) for q in about_clip)}</div>')
    return f"<section><h2>Questions</h2>{''.join(blocks)}</section>\n"


def clip_film(clip: Path) -> str:
    try:
        video = read_video(clip)
        heard = read_sound(clip) if probe_video(clip).sound else None
        size = shown_size(*video.frames.shape[1:3])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "clip.mp4"
            encode_video(
                path, scaled(video.frames, size), video.fps, size=size, sound=heard, metadata={},
                quality=QUALITY, keyframe_every=KEYFRAME_EVERY,
            )  # fmt: skip
            return film(path, "the clip" + (" · with sound" if heard is not None else ""), "clip", muted=False)
    except MediaError as error:
        raise DatasetError(str(error)) from None


def card(question: Mapping[str, Any], fps: float) -> str:
    """One question; its answer opens on a click."""
    start, stop = question["start_frame"], question["stop_frame"]
    when = f"frame {start}" if stop - start <= 1 else f"frames {start} to {stop}"
    facts = [f"template {question['template']}", question["kind"], question["media"], question["camera"]]
    facts += ["with sound"] if question["sound"] else []
    # The frames of a clip are its own.
    time = escape(when) if question["media"] == "clip" else link(start / fps, when)
    choices = "".join(f"<li>{escape(choice)}</li>" for choice in question["choices"])
    return (
        f'<div class="card"><b>{escape(question["family"])}</b>'
        f'<div class="note">{escape(" · ".join(fact for fact in facts if fact))} · {time}</div>'
        f"<p>{escape(question['text'])}</p>{f'<ul>{choices}</ul>' if choices else ''}"
        f"<details><summary>Answer</summary><p>{escape(question['answer'])}</p></details></div>"
    )


def places(objects: Records, length: int) -> str:
    """Where the parts are in the last frame."""
    last = [row for row in objects if row["frame_index"] == length - 1]
    if not last:
        return ""
    rows = "".join(
        f"<tr>{tds([str(row['part']), *(f'{row[axis]:.3f}' for axis in ('x_m', 'y_m', 'z_m')), 'held' * row['held']])}"
        "</tr>"
        for row in last
    )
    heads = ths("Part", "x (m)", "y (m)", "z (m)", "")
    return f"<section><h2>Where the parts ended</h2><table>{heads}{rows}</table></section>\n"


def about_list(about: Mapping[str, Any] | None) -> str:
    """Every fact by name; facts within facts are named by both."""
    if about is None:
        return ""
    facts: dict[str, Any] = {}
    for name, value in about.items():
        facts |= {f"{name}.{inner}": v for inner, v in value.items()} if isinstance(value, dict) else {name: value}
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(fact_text(facts[name]))}</dd>" for name in sorted(facts))
    note = '<p class="note">Numbers to six digits.</p>'
    return f"<section><h2>About</h2>{note}<dl>{listed}</dl></section>\n"


def fact_text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return "\n".join(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    rounded = json.loads(json.dumps(value), parse_float=lambda text: float(f"{float(text):.6g}"))
    return json.dumps(rounded, ensure_ascii=False, sort_keys=True)


def link(time_s: float, text: str) -> str:
    """Text that takes the cameras to a time."""
    return f'<button data-at="{time_s:.4f}">{escape(text)}</button>'


def ths(*names: str) -> str:
    return f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in names)}</tr>"


def tds(texts: Iterable[str]) -> str:
    return "".join(f"<td>{escape(text)}</td>" for text in texts)
