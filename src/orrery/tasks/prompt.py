"""The text that goes to the model: captions with their metadata, as sentences or as JSON, and the fixed sentences.

Released weights were trained on these words, so each is kept byte for byte ("give prompt" included). Tokens and
chat templates belong to `orrery.tokenizers.text`.
"""

import json
import math
from typing import Literal

from orrery.errors import TaskError
from orrery.tasks.checks import Number, nearest, shown

SYSTEM_IMAGE = "You are a helpful assistant who will generate images from a give prompt."
SYSTEM_VIDEO = "You are a helpful assistant who will generate videos from a give prompt."

VIEWPOINTS = {
    "ego_view": "This video is captured from a first-person perspective looking at the scene.",
    "third_person_view": (
        "This video is captured from a third-person perspective looking towards the agent from the front."
    ),
    "wrist_view": "This video is captured from a wrist-mounted camera.",
    "concat_view": "This video contains concatenated views from multiple camera perspectives.",
    "top_down_2d_view": "This video is captured from a top-down view of a flat 2D scene.",
    "video_game_view": "This video is captured from an in-game camera perspective in a virtual environment.",
}

AUDIO_SEPARATOR = " Audio description: "

NegativeMetadata = Literal["none", "same", "inverse"]
"""What a negative prompt is told about length and size: nothing, the same as the prompt, or that it is not so."""


def plain(caption: str, *, frames: int, fps: Number, height: int, width: int) -> str:
    """The caption, then a sentence on duration (videos only), then one on resolution."""
    return _with_sentences(caption, _sentences(frames, fps, height, width, "is"))


def negative(caption: str, mode: NegativeMetadata, *, frames: int, fps: Number, height: int, width: int) -> str:
    """The negative prompt with its metadata: "same" appends the positive sentences, "inverse" their denials.

    Sentences are appended as text even where the negative prompt is JSON, as in training.
    """
    if mode == "none":
        return caption
    return _with_sentences(caption, _sentences(frames, fps, height, width, "is" if mode == "same" else "is not"))


def structured(caption: str, *, frames: int, fps: Number, height: int, width: int, aspect: str) -> str | None:
    """A JSON caption with its metadata set; None when the caption is not a JSON object.

    Keys that are there keep their place, new ones go last: duration, fps, resolution, aspect_ratio. Pictures lose
    duration and fps. `aspect` is written as it is, such as "16,9".
    """
    try:
        caption_object = json.loads(caption)
    except (json.JSONDecodeError, RecursionError):
        return None
    if not isinstance(caption_object, dict):
        return None
    if frames == 1:
        caption_object.pop("duration", None)
        caption_object.pop("fps", None)
    else:
        caption_object["duration"] = f"{int(frames / fps)}s"
        caption_object["fps"] = float(fps)
    caption_object["resolution"] = {"H": height, "W": width}
    caption_object["aspect_ratio"] = aspect
    return json.dumps(caption_object)


def action_json(
    caption: str,
    *,
    viewpoint: str | None,
    view_description: str,
    frames: int,
    fps: Number,
    height: int,
    width: int,
    aspect: str,
    idle: tuple[int, int] | None = None,
) -> str:
    """The JSON object that action tasks are prompted with; an empty caption stays empty.

    Args:
        caption: what the robot is to do; a full stop is added unless it ends with . ! or ?
        viewpoint: key of VIEWPOINTS; None leaves the framing out.
        view_description: sentence on where each camera is in a composed picture, or "".
        frames: chunk + 1.
        height, width: of the padded canvas, pixels.
        idle: (idle frames, frames), where a recording says so; never for inverse dynamics.
    """
    if not caption.strip():
        return ""
    seconds = frames / fps
    # Python's round goes half to even and the duration is truncated: 33 frames at 15 fps are "0:02" and "2s".
    minutes, rest = divmod(round(seconds), 60)
    action: dict[str, object] = {"time": f"0:00-{minutes}:{rest:02d}", "description": _ended(caption)}
    if idle is not None:
        action["idle_frame"] = f"{idle[0]} out of {idle[1]}."
    framing = {} if viewpoint is None else {"framing": " ".join(filter(None, (_view(viewpoint), view_description)))}
    return json.dumps(
        {
            "cinematography": framing,
            "actions": [action],
            "duration": f"{int(seconds)}s",
            "fps": fps,
            "resolution": {"H": height, "W": width},
            "aspect_ratio": aspect,
        }
    )


def action_plain(
    caption: str,
    *,
    viewpoint: str | None,
    view_description: str,
    frames: int,
    fps: Number,
    height: int,
    width: int,
) -> str:
    """The same as sentences: caption, viewpoint, camera places, duration, resolution."""
    view = () if viewpoint is None else (_view(viewpoint),)
    told = " ".join(part for part in (_ended(caption) if caption.strip() else "", *view, view_description) if part)
    return plain(told, frames=frames, fps=fps, height=height, width=width)


def with_audio(caption: str, audio_caption: str) -> str:
    """A plain caption with what is to be heard."""
    return f"{caption}{AUDIO_SEPARATOR}{audio_caption}"


def _view(viewpoint: str) -> str:
    if viewpoint not in VIEWPOINTS:
        raise TaskError(f"There is no viewpoint {shown(viewpoint)}. {nearest(viewpoint, VIEWPOINTS)}")
    return VIEWPOINTS[viewpoint]


def _ended(caption: str) -> str:
    caption = caption.strip()
    return caption if caption.endswith((".", "!", "?")) else f"{caption}."


def _sentences(frames: int, fps: Number, height: int, width: int, verb: Literal["is", "is not"]) -> list[str]:
    medium = "video" if frames > 1 else "image"
    resolution = f"This {medium} {verb} of {height}x{width} resolution."
    if frames == 1:
        return [resolution]
    assert 0 < fps < math.inf
    return [f"The video {verb} {frames / fps:.1f} seconds long and {verb} of {fps:.0f} FPS.", resolution]


def _with_sentences(caption: str, sentences: list[str]) -> str:
    joined = caption.strip()
    for sentence in sentences:
        base = joined.rstrip(".")
        joined = f"{base}. {sentence}" if base else sentence
    return joined
