"""Read captioned video clips from a JSONL list, one video a line. Decoding is in `media`, order in `order`.

A line is an object with `uuid`, `duration` (seconds), `width`, `height`, `vision_path` (relative to the list unless
absolute) and `t2w_windows`, each with `start_frame`, `end_frame` (the first frame after the window),
`temporal_interval` (every how many frames one is taken) and `caption_json`, or `caption` where that is absent.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from orrery.errors import DatasetError

# The released recipes drop longer videos and shorter windows.
LONGEST_S = 61.0
FEWEST_FRAMES = 61
CLIP_KEYS = ("uuid", "duration", "width", "height", "vision_path", "t2w_windows")
WINDOW_KEYS = ("start_frame", "end_frame", "temporal_interval", "caption_json", "caption")
MAX_LINE_BYTES = 4 * 2**20


@dataclass(frozen=True, kw_only=True)
class Window:
    """Frames start, start + interval, ... before stop, with their caption. `structured`: the caption is JSON text."""

    start: int
    stop: int
    interval: int
    caption: str
    structured: bool

    @property
    def frames(self) -> int:
        return len(range(self.start, self.stop, self.interval))


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One video and its captioned windows."""

    uuid: str
    path: Path
    seconds: float
    width: int
    height: int
    windows: tuple[Window, ...]


@dataclass(frozen=True, kw_only=True)
class ClipList:
    """Clips in file order, and one line for every clip or window that was left out."""

    clips: tuple[Clip, ...]
    dropped: tuple[str, ...]


def read_clips(
    path: str | os.PathLike[str], *, longest_s: float = LONGEST_S, fewest_frames: int = FEWEST_FRAMES
) -> ClipList:
    """Read a clip list. Videos over `longest_s` and windows that take fewer than `fewest_frames` frames are dropped.

    Keys that are not known are left alone, for lists carry more than is needed; one that nearly is a known key is
    refused. The videos themselves are not opened.

    Raises:
        DatasetError: naming the line, for what is not such a list, and when nothing is left.
    """
    path = Path(path)
    clips, dropped, seen = [], [], dict[str, int]()
    for number, line in lines(path):
        where = f"{path}, line {number}"
        entry = parse(line, where)
        clip = read_clip(entry, path.parent, where)
        if clip.uuid in seen:
            raise DatasetError(
                f"{where}: uuid {clip.uuid!r} is that of line {seen[clip.uuid]}. Give each clip its own."
            )
        seen[clip.uuid] = number
        if clip.seconds > longest_s:
            dropped.append(f"Line {number}: the video lasts {clip.seconds:g} s, over {longest_s:g} s.")
            continue
        kept = tuple(w for w in clip.windows if w.frames >= fewest_frames)
        dropped += [
            f"Line {number}: window {w.start} to {w.stop} takes {w.frames} frames, under {fewest_frames}."
            for w in clip.windows
            if w.frames < fewest_frames
        ]
        if kept:
            clips.append(replace(clip, windows=kept))
    if not clips:
        raise DatasetError(f"{path} has no clip to read; {len(dropped)} were dropped. {' '.join(dropped[:3])}".rstrip())
    return ClipList(clips=tuple(clips), dropped=tuple(dropped))


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, bytes) of every line that is not blank."""
    try:
        with path.open("rb") as file:
            for number in range(1, 2**31):
                line = file.readline(MAX_LINE_BYTES + 1)
                if not line:
                    return
                if len(line) > MAX_LINE_BYTES:
                    raise DatasetError(f"{path}, line {number} is longer than {MAX_LINE_BYTES} bytes. Split the clip.")
                if line.strip():
                    yield number, line
    except OSError:
        raise DatasetError(f"{path} cannot be read as a clip list. Check the path.") from None


def parse(line: bytes, where: str) -> dict[str, Any]:
    """One JSON object: UTF-8, no key twice, no NaN or infinity."""

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in found]
        if len(set(keys)) != len(keys):
            raise DatasetError(f"{where}: {max(keys, key=keys.count)!r} is given twice.")
        return dict(found)

    def constant(name: str) -> float:
        raise DatasetError(f"{where}: {name} is not a number that JSON knows.")

    try:
        entry = json.loads(line.decode("utf-8"), object_pairs_hook=pairs, parse_constant=constant)
    except DatasetError:
        raise
    except (ValueError, RecursionError):
        raise DatasetError(f"{where} is not valid JSON in UTF-8. One object a line is needed.") from None
    if not isinstance(entry, dict):
        raise DatasetError(f"{where} is a {type(entry).__name__}, not an object with the keys {', '.join(CLIP_KEYS)}.")
    return entry


def read_clip(entry: Mapping[str, Any], folder: Path, where: str) -> Clip:
    no_near_misses(entry, CLIP_KEYS, where)
    name = text(entry, "vision_path", where)
    windows = entry.get("t2w_windows")
    if not isinstance(windows, list) or not windows:
        raise DatasetError(f"{where}: t2w_windows must be a list of at least one window, got {str(windows)[:80]}.")
    return Clip(
        uuid=text(entry, "uuid", where),
        path=folder / name,
        seconds=number(entry, "duration", where),
        width=whole(entry, "width", 1, where),
        height=whole(entry, "height", 1, where),
        windows=tuple(read_window(w, f"{where}, window {i}") for i, w in enumerate(windows)),
    )


def read_window(entry: object, where: str) -> Window:
    if not isinstance(entry, dict):
        raise DatasetError(f"{where} is a {type(entry).__name__}, not an object with {', '.join(WINDOW_KEYS)}.")
    no_near_misses(entry, WINDOW_KEYS, where)
    start, stop = whole(entry, "start_frame", 0, where), whole(entry, "end_frame", 1, where)
    if stop <= start:
        raise DatasetError(f"{where}: end_frame {stop} must be greater than start_frame {start}.")
    structured = entry.get("caption_json")
    if isinstance(structured, dict) and structured:
        # Key order is part of the prompt, and the tokenizer sees the letters themselves, not their escapes.
        caption = json.dumps(structured, ensure_ascii=False)
    elif structured is None:
        caption = text(entry, "caption", where)
    else:
        caption = text(entry, "caption_json", where)
        parse(caption.encode("utf-8", "replace"), f"{where}, caption_json")
    return Window(
        start=start,
        stop=stop,
        interval=whole(entry, "temporal_interval", 1, where),
        caption=caption,
        structured=structured is not None,
    )


def no_near_misses(entry: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in entry:
        near = [] if key in known else get_close_matches(key, [k for k in known if k not in entry], n=1, cutoff=0.8)
        if near:
            raise DatasetError(f"{where}: {key!r} is not a key. Did you mean {near[0]!r}?")


def text(entry: Mapping[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise DatasetError(f"{where}: {key} must be text with something in it, got {str(value)[:80]!r}.")
    return value


def number(entry: Mapping[str, Any], key: str, where: str) -> float:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise DatasetError(f"{where}: {key} must be a number above 0, got {str(value)[:80]}.")
    return float(value)


def whole(entry: Mapping[str, Any], key: str, least: int, where: str) -> int:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**31:
        raise DatasetError(f"{where}: {key} must be a whole number of at least {least}, got {str(value)[:80]}.")
    return value
