"""One recorded episode as one HTML file: its cameras, everything over one axis of time, and what is asked about it.

For any LeRobot v3.0 dataset; richer where files below `extras` (see `episode_facts`) hold sound, events, phases,
questions and facts, as those of the factory world do. All of it may come from strangers: text is escaped, videos and
sounds are decoded and encoded again (`films`), and a content policy lets the browser fetch nothing and run nothing but
the play-head below. Reports of measurements are in `page`.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from orrery.data.lerobot import Dataset, Episode
from orrery.evaluation.episode_facts import Extras, Records, doubts, read_extras
from orrery.evaluation.films import Tell, clip_film, films
from orrery.evaluation.page import STYLE
from orrery.evaluation.timeline import timeline
from orrery.weights.atomic import write_atomic

FOLD_ABOVE = 3
"""More problems than these are shown on a click."""

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


def silent(done: int, total: int) -> None:
    """Nobody is told."""


def problem_list(problems: Sequence[str]) -> str:
    """What is wrong with the dataset; folded up where it is much."""
    if not problems:
        return ""
    listed = f'<ul class="warnings">{"".join(f"<li>{escape(text)}</li>" for text in problems)}</ul>\n'
    if len(problems) <= FOLD_ABOVE:
        return listed
    return f"<details><summary>{len(problems)} problems of the dataset</summary>{listed}</details>\n"


def outcome(about: Mapping[str, Any] | None) -> str:
    """A badge: whether the task was done, and if not, why."""
    success = (about or {}).get("success")
    if about is None or not isinstance(success, bool):
        return ""
    why = about.get("failure")
    text = "Succeeded" if success else f"Failed: {why}" if why else "Failed"
    return f'<span class="badge {"good" if success else "bad"}">{escape(text)}</span>'


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
