"""What is known of a recorded episode beside rows and videos: the files below `extras`, and what values are called.

The factory world records sound, events, phases, questions and facts there (see `extra_path`). Files may come from
strangers: what does not hold what it should is refused. How they are shown is in `timeline` and `episode_page`.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from orrery.data.lerobot import NUMBERS, Dataset, Episode, extra_path, read_table
from orrery.data.lerobot_writer import COUNTERS
from orrery.data.media import Sound, read_sound
from orrery.errors import DatasetError, MediaError

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
