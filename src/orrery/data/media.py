"""Read pictures, videos and sounds from files. Foreign files are decoded in a confined process (`child`);
`trusted=True` decodes in this one, for files this program wrote itself or a training set that the user vouches for.
Formats, codecs and checks are in `decode`, the limits in `limits`, writing in `write_media`, sizes in `resize`.
"""

import os
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float32, UInt8

from orrery.data import child
from orrery.data.limits import LIMITS, Limits
from orrery.errors import MediaError

Source = str | os.PathLike[str] | bytes
Rate = Fraction | float | int


@dataclass(frozen=True, kw_only=True, eq=False)
class Video:
    """Frames at a constant rate."""

    frames: UInt8[np.ndarray, "T H W 3"]
    fps: Fraction


@dataclass(frozen=True, kw_only=True, eq=False)
class Sound:
    """Samples in [-1, 1], one column a channel."""

    samples: Float32[np.ndarray, "N channels"]
    rate: int


@dataclass(frozen=True, kw_only=True)
class VideoFacts:
    """What the header of a video states. `frames` is None where it does not say."""

    width: int
    height: int
    fps: Fraction
    frames: int | None
    seconds: float
    codec: str
    sound: bool
    metadata: dict[str, str]


def read_image(source: Source, *, limits: Limits = LIMITS, trusted: bool = False) -> UInt8[np.ndarray, "H W 3"]:
    """Read a still PNG, JPEG or WebP as RGB, turned as a viewer shows it.

    Raises:
        MediaError: not such a picture, damaged, animated, transparent, or over the limits.
    """
    _, pixels = _read("image", source, {}, np.uint8, limits, trusted)
    return pixels


def probe_video(source: Source, *, limits: Limits = LIMITS, trusted: bool = False) -> VideoFacts:
    """Read what a video states about itself and decode its first frame; MediaError as in `read_video`."""
    facts, _ = _read("probe_video", source, {}, np.uint8, limits, trusted)
    return VideoFacts(
        width=facts["width"],
        height=facts["height"],
        fps=Fraction(*facts["fps"]),
        frames=facts["frames"] or None,
        seconds=facts["seconds"],
        codec=facts["codec"],
        sound=facts["sound"],
        metadata=facts["metadata"],
    )


def read_video(
    source: Source,
    *,
    start: int = 0,
    stop: int | None = None,
    fps: Rate | None = None,
    limits: Limits = LIMITS,
    trusted: bool = False,
) -> Video:
    """Read frames start..stop (to the end when None) of an mp4, mov, mkv or webm with h264, hevc, av1 or vp9.

    With `fps` the video is first resampled: frame k is the one on show k/fps seconds after the first; start and stop
    then count resampled frames. Untagged colours are taken as BT.601.

    Raises:
        MediaError: not such a video, damaged, shorter than `stop`, over the limits, or a frame range that is empty.
    """
    if start < 0 or (stop is not None and stop <= start):
        raise MediaError(f"Frames {start} to {stop} of a video are empty. Give 0 <= start < stop.")
    rate = None if fps is None else as_rate(fps)
    ask = {"start": start, "stop": stop, "fps": rate and (rate.numerator, rate.denominator)}
    facts, frames = _read("video", source, ask, np.uint8, limits, trusted)
    return Video(frames=frames, fps=Fraction(*facts["fps"]))


def read_video_at(
    source: Source, times: Sequence[float], *, tolerance_s: float, limits: Limits = LIMITS, trusted: bool = False
) -> UInt8[np.ndarray, "T H W 3"]:
    """Read the frame nearest to each of the rising `times`, in seconds of the file's own clock, seeking to the first.

    Raises:
        MediaError: as `read_video`, or no frame lies within `tolerance_s` of a time.
    """
    if not len(times) or list(times) != sorted(times):
        raise MediaError(f"The {len(times)} times asked of a video must be at least one and rise.")
    ask = {"times": [float(t) for t in times], "tolerance_s": tolerance_s}
    _, frames = _read("video_at", source, ask, np.uint8, limits, trusted)
    return frames


def read_sound(source: Source, *, rate: int | None = None, limits: Limits = LIMITS, trusted: bool = False) -> Sound:
    """Read a wav, flac, mp3, aac, m4a or opus file, or the sound of a video; resampled to `rate` Hz when given.

    Raises:
        MediaError: not such a sound, damaged, empty, or over the limits.
    """
    if rate is not None and not 0 < rate <= limits.sound_rate_hz:
        raise MediaError(f"A sound cannot be read at {rate} Hz. Give 1 to {limits.sound_rate_hz}.")
    facts, samples = _read("sound", source, {"rate_hz": rate}, np.float32, limits, trusted)
    return Sound(samples=samples, rate=facts["rate"])


def as_rate(fps: Rate) -> Fraction:
    """A frame rate as a fraction whose denominator is at most 1001 (NTSC rates are n/1001).

    Raises:
        MediaError: not a number above 0 and at most 1000.
    """
    if not 0 < fps <= 1000:
        raise MediaError(f"A frame rate of {fps} per second is out of range. Give more than 0 and at most 1000.")
    return Fraction(fps).limit_denominator(1001)


def _read(
    name: str, source: Source, ask: dict[str, Any], dtype: type[np.generic], limits: Limits, trusted: bool
) -> tuple[dict[str, Any], np.ndarray]:
    label = f"The {len(source)} bytes given" if isinstance(source, bytes) else os.fspath(source)
    try:
        with _open(source, limits) as file:
            if not trusted:
                with tempfile.TemporaryFile() as out:
                    facts = child.decoder().run(name, file, ask, limits, out)
                    out.seek(0)
                    array = np.fromfile(out, dtype)
            else:
                pieces: list[np.ndarray] = []
                facts = child.CALLS[name](file, **ask, limits=limits, emit=pieces.append)
                array = np.concatenate(pieces, axis=None) if pieces else np.empty(0, dtype)
    except MediaError as error:
        raise MediaError(f"{label}: {error}") from None
    return facts, array.reshape(facts["shape"]) if "shape" in facts else array


def _open(source: Source, limits: Limits) -> BinaryIO:
    """The file, or the bytes in a nameless file: the decoding process is handed a descriptor either way."""
    if isinstance(source, bytes):
        file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
        file.write(source)
        file.seek(0)
    else:
        try:
            # Opening a pipe would wait for a writer.
            file = os.fdopen(os.open(Path(source), os.O_RDONLY | os.O_NONBLOCK), "rb")
        except FileNotFoundError:
            raise MediaError("there is no such file. Check the path.") from None
        except IsADirectoryError:
            raise MediaError("it is a folder, not a file.") from None
        except (OSError, ValueError):
            raise MediaError("the file cannot be opened. Check the path and its permissions.") from None
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or status.st_size > limits.file_bytes:
        file.close()
        if stat.S_ISREG(status.st_mode):
            raise MediaError(f"the file has {status.st_size} bytes; at most {limits.file_bytes} are read.")
        raise MediaError("it is not a regular file.")
    return file
