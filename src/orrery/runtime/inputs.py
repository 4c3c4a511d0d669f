"""The media of a request, read and hashed, and how pictures are fitted to what the model takes."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orrery.data.media import read_image, read_sound, read_video
from orrery.data.resize import cover, onto_canvas
from orrery.errors import RequestError
from orrery.tasks.action_file import read_actions
from orrery.tasks.canvas import ActionCanvas, action_canvas
from orrery.tasks.checks import Number
from orrery.tasks.request import Picture, Request
from orrery.tasks.settings import Settings

Pixels = npt.NDArray[np.uint8]
VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".mkv", ".webm"})


@dataclass(frozen=True, kw_only=True, eq=False)
class Inputs:
    """What a request brings along."""

    frames: tuple[Pixels, ...] = ()
    """For each camera (T, H, W, 3): the frames that are shown, exactly as many as the task shows. Empty for none."""
    pins: Mapping[int, Pixels] = field(default_factory=dict)
    """Pixel frame -> (1 or 4, H, W, 3)."""
    sound: npt.NDArray[np.float32] | None = None
    sound_name: str = "sound"
    """What to call it in errors: its path, if it has one."""
    hashes: Mapping[str, str] = field(default_factory=dict)
    """What was read -> sha256 of its bytes."""


@dataclass(frozen=True, kw_only=True)
class View:
    """How pictures are fitted. `height` and `width` are of the canvas that the prompt speaks of."""

    source: tuple[int, int] | None
    """Height and width of the pictures; None where the request has none."""
    height: int
    width: int
    canvas: ActionCanvas | None = None
    """None: pictures are scaled to cover the size and cut at the centre."""

    def apply(self, frames: Pixels) -> Pixels:
        """Fit frames (T, H, W, 3)."""
        if self.canvas is not None:
            return onto_canvas(frames, self.canvas)
        return cover(frames, (self.height, self.width))

    def to_json(self) -> dict[str, Any]:
        """How pictures were fitted, for the record: what was done to them is nowhere else to be seen."""
        if self.source in (None, (self.height, self.width)):
            how = "as given"
        elif self.canvas is None:
            how = "scaled to cover the size, cut at the centre"
        else:
            how = f"scaled down to the content, {self.canvas.pad}-padded right and below; the padding is not shown"
        content = None if self.canvas is None else [self.canvas.content_height, self.canvas.content_width]
        source = None if self.source is None else list(self.source)
        return {"source": source, "size": [self.height, self.width], "content": content, "how": how}

    def latent_size(self, spatial: int) -> tuple[int, int]:
        """Height and width of the latents that are kept: padding of an action canvas is encoded, then left out."""
        if self.canvas is not None:
            return self.canvas.latent_crop(spatial)
        return self.height // spatial, self.width // spatial


def with_actions(request: Request) -> tuple[Request, dict[str, str]]:
    """The request with its actions read from their file, if they are in one, and the hash of it."""
    if not isinstance(request.actions, str | Path):
        return request, {}
    path = Path(request.actions)
    return replace(request, actions=read_actions(path)), {str(path): _file_hash(path)}


def read_inputs(request: Request, settings: Settings, sound_rate: int | None) -> Inputs:
    """Read what a generating task shows.

    Args:
        sound_rate: samples per second of the checkpoint's sound codec.

    Raises:
        MediaError: files that cannot be read within the limits.
        RequestError: another number of frames, or another rate, than the task shows.
    """
    hashes: dict[str, str] = {}
    frames: tuple[Pixels, ...] = ()
    if request.vision is not None:
        assert not isinstance(request.vision, list)
        if isinstance(request.vision, Mapping):
            sources = {f"vision[{name!r}]": request.vision[name] for name, _, _ in settings.views}
        else:
            sources = {"vision": request.vision}
        frames = tuple(
            _shown(_frames(name, source, settings, hashes), settings, _name(name, source))
            for name, source in sources.items()
        )
    pins = {index: _pin(index, picture, settings, hashes) for index, picture in request.pins.items()}
    sound = None
    if settings.sound == "given":
        assert sound_rate is not None
        sound = _sound(request, sound_rate, hashes)
    for name, values in (("actions", request.action_table()), ("state", request.state)):
        if values is not None:
            hashes[name] = hashlib.sha256(np.ascontiguousarray(values, dtype=np.float32).tobytes()).hexdigest()
    return Inputs(frames=frames, pins=pins, sound=sound, sound_name=_name("sound", request.sound), hashes=hashes)


def fit(inputs: Inputs, settings: Settings, *, multiple: int) -> tuple[View, ...]:
    """Choose how the pictures of each camera are fitted.

    Those of several cameras are scaled to cover the camera's size and cut; one picture goes on the tier's canvas for
    action tasks, else is scaled to cover the size and cut.

    Raises:
        RequestError: pictures of different sizes, or a size that the codec cannot hold.
    """
    if settings.views:
        pairs = zip(inputs.frames, settings.views, strict=True)
        return tuple(_covered(frames.shape[1:3], (height, width), multiple) for frames, (_, height, width) in pairs)
    pictures = [*inputs.frames, *inputs.pins.values()]
    sizes = {picture.shape[1:3] for picture in pictures}
    if len(sizes) > 1:
        raise RequestError(f"Pictures of one request must have one size, got {sorted(sizes)}. Resize them first.")
    source = next(iter(sizes), None)
    if settings.tier is not None:
        assert source is not None, "action tasks always show a picture"
        canvas = action_canvas(source, settings.tier)
        return (View(source=source, height=canvas.height, width=canvas.width, canvas=canvas),)
    return (_covered(source, settings.size or source or (0, 0), multiple),)


def _covered(source: tuple[int, int] | None, size: tuple[int, int], multiple: int) -> View:
    height, width = size
    if height % multiple or width % multiple or not height:
        raise RequestError(
            f"Height and width must be multiples of {multiple}, got {height} x {width}. Give such a size."
        )
    return View(source=source, height=height, width=width)


def read_looks(
    vision: Picture | list[Picture], fps: Number | None, hashes: dict[str, str]
) -> list[tuple[Pixels, float | None]]:
    """Pictures of a question: frames (T, H, W, 3), and the rate of those that are videos.

    Args:
        fps: of arrays of several frames; a file has its own.
    """
    looks: list[tuple[Pixels, float | None]] = []
    for index, item in enumerate(vision if isinstance(vision, list) else [vision]):
        if isinstance(item, np.ndarray):
            moves = item.ndim == 4 and len(item) != 1
            if moves and fps is None:
                raise RequestError(
                    f"vision[{index}] is an array of {len(item)} frames, and an array has no rate to tell their times "
                    "by. Give fps with it, or a video file, or single pictures."
                )
            _remember(f"vision[{index}]", item, hashes)
            looks.append((item.reshape(-1, *item.shape[-3:]), float(fps) if moves and fps is not None else None))
        elif Path(item).suffix.lower() in VIDEO_SUFFIXES:
            video = read_video(item)
            looks.append((video.frames, float(video.fps)))
            hashes[str(item)] = _file_hash(Path(item))
        else:
            looks.append((read_image(item)[None], None))
            hashes[str(item)] = _file_hash(Path(item))
    return looks


def _frames(name: str, source: Picture, settings: Settings, hashes: dict[str, str]) -> Pixels:
    if isinstance(source, np.ndarray):
        _remember(name, source, hashes)
        return source[None] if source.ndim == 3 else source
    path = Path(source)
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        frames = read_image(path)[None]
        hashes[str(path)] = _file_hash(path)
        return frames
    video = read_video(path)
    hashes[str(path)] = _file_hash(path)
    if settings.fps is not None and abs(float(video.fps) - float(settings.fps)) > 0.01 and settings.given_frames != 1:
        raise RequestError(
            f"{path} has {float(video.fps):g} frames a second, the request means {float(settings.fps):g}. "
            f"Resample the video, or give fps {float(video.fps):g}."
        )
    return video.frames


def _shown(frames: Pixels, settings: Settings, name: str) -> Pixels:
    """Exactly the frames that the task shows."""
    wanted = settings.given_frames
    assert wanted is not None
    if settings.clip_from is not None:
        if len(frames) < wanted:
            raise RequestError(f"{name} has {len(frames)} frames, and {wanted} are to be shown. Lower clip_frames.")
        return frames[:wanted] if settings.clip_from == "first" else frames[-wanted:]
    if len(frames) != wanted:
        raise RequestError(
            f"Task {settings.task!r} is shown {wanted} frame{'s' if wanted > 1 else ''}, {name} has {len(frames)}. "
            f"Give exactly {wanted}{', or frames to match' if wanted > 1 else ''}."
        )
    return frames


def _name(field: str, source: object) -> str:
    return str(source) if isinstance(source, str | Path) else field


def _pin(index: int, picture: Picture, settings: Settings, hashes: dict[str, str]) -> Pixels:
    frames = _frames(f"pins[{index}]", picture, settings, hashes)
    needed = 1 if index == 0 else 4
    if len(frames) == 1:
        return np.repeat(frames, needed, axis=0)
    if len(frames) != needed:
        raise RequestError(f"Pin {index} holds {needed} frame(s), got {len(frames)}. Give one picture or {needed}.")
    return frames


def _sound(request: Request, rate: int, hashes: dict[str, str]) -> npt.NDArray[np.float32]:
    if isinstance(request.sound, np.ndarray):
        if request.sound_rate != rate:
            raise RequestError(f"sound_rate must be {rate} for this checkpoint, got {request.sound_rate}. Resample it.")
        _remember("sound", request.sound, hashes)
        return request.sound.astype(np.float32)
    assert request.sound is not None
    samples = read_sound(request.sound, rate=rate).samples
    hashes[str(request.sound)] = _file_hash(Path(request.sound))
    return samples


def _file_hash(path: Path) -> str:
    """Of a file that was read already: reading refuses pipes and files over the limits, at which this would wait."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RequestError(f"{path} cannot be read ({error.strerror}). Give the path of an existing file.") from None


def _remember(name: str, array: npt.NDArray[Any], hashes: dict[str, str]) -> None:
    hashes[name] = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
