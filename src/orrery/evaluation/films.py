"""The cameras, the clip and the sound of an episode as elements of a page, decoded and encoded again."""

import base64
import tempfile
from collections.abc import Callable, Iterable, Iterator
from html import escape
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from orrery.data.lerobot import Episode
from orrery.data.media import Sound, probe_video, read_sound, read_video
from orrery.data.write_media import encode_video, write_flac
from orrery.errors import DatasetError, MediaError

Tell = Callable[[int, int], None]

LONGEST_SIDE = 480
"""Larger pictures are scaled down to this, in pixels."""
QUALITY, KEYFRAME_EVERY = 27, 15
PIECE_BYTES = 48 * 2**20
"""How much of a camera is in memory at once."""


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


def film(path: Path, caption: str, style: str, *, muted: bool) -> str:
    quiet = " muted" if muted else ""
    return (
        f'<figure><video class="{style}" controls playsinline{quiet} src="{data_uri(path, "video/mp4")}"></video>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def data_uri(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
