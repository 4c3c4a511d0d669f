"""Write videos, pictures and sounds: always whole or not at all, and the same bytes for the same input on one machine.

The mark that content is synthetic is an entry of `metadata` that the caller passes; it is stored where other programs
find it again: as MP4 keys, PNG text, FLAC tags, and JSON in a WAV comment.
"""

import json
import os
import struct
from collections.abc import Iterable, Mapping
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from jaxtyping import UInt8
from PIL import Image, PngImagePlugin

from orrery.data.media import Rate, Sound, as_rate
from orrery.errors import MediaError
from orrery.weights.atomic import replacing

SOUND_RATE_HZ = 48_000
SOUND_BITS_PER_S = 256_000
# The encoder's output depends on its thread count, which would otherwise follow the machine's cores.
ENCODER_THREADS = 2
# H.273 code points: BT.709 matrix, primaries and transfer; limited range.
BT709, LIMITED_RANGE = 1, 1


def write_video(
    path: str | os.PathLike[str],
    frames: UInt8[np.ndarray, "T H W 3"],
    fps: Rate,
    *,
    sound: Sound | None = None,
    metadata: Mapping[str, str] | None = None,
    quality: int = 18,
    keyframe_every: int = 250,
) -> None:
    """Write an MP4 that starts playing while it loads: H.264 (yuv420p, BT.709) and AAC at 48 kHz.

    Args:
        fps: frames a second; the file states it exactly as a fraction of denominator at most 1001.
        sound: one or two channels; resampled to 48 kHz when it has another rate.
        quality: x264 rate factor, 0 (lossless but for the colour conversion) to 51; 18 looks the same as the input.
        keyframe_every: longest run of frames that a reader has to decode to reach one of them.

    Raises:
        MediaError: no frames, an odd height or width (4:2:0 colour cannot hold it and nothing is cropped or padded
            here), or a rate, quality or sound out of range.
    """
    _, height, width, _ = frames.shape
    encode_video(
        Path(path), frames, fps, size=(height, width), sound=sound, metadata=metadata or {}, quality=quality,
        keyframe_every=keyframe_every,
    )  # fmt: skip


def encode_video(
    path: Path,
    frames: Iterable[UInt8[np.ndarray, "H W 3"]],
    fps: Rate,
    *,
    size: tuple[int, int],
    sound: Sound | None,
    metadata: Mapping[str, str],
    quality: int,
    keyframe_every: int,
) -> int:
    """As `write_video`, from frames that come one at a time, each of `size` (H, W). Returns how many were written."""
    height, width = size
    if height % 2 or width % 2 or not 0 < height <= 8192 or not 0 < width <= 8192:
        raise MediaError(
            f"{path}: a video of {width}x{height} cannot be written; H.264 needs even sides from 2 to 8192. "
            "Crop or pad the frames first."
        )
    if not 0 <= quality <= 51 or keyframe_every < 1:
        raise MediaError(f"{path}: quality {quality} must be 0 to 51 and keyframe_every {keyframe_every} at least 1.")
    rate = as_rate(fps)
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise MediaError(f"{path}: a video of no frames cannot be written. Give at least one.")
    if sound is not None:
        check_sound(path, sound, channels=2)
    count = 0
    # "use_metadata_tags" keeps every key; without it the format drops all that it has no name for.
    movflags = {"movflags": "+faststart+use_metadata_tags"}
    with replacing(path) as aside, av.open(str(aside), "w", format="mp4", options=movflags) as out:
        out.metadata.update(metadata)
        video = video_track(out, rate, width, height, quality, keyframe_every)
        sounding = None if sound is None else sound_track(out, sound)
        for count, pixels in enumerate(chain([first], frames), 1):
            if pixels.shape != (height, width, 3) or pixels.dtype != np.uint8:
                raise MediaError(f"{path}: frame {count - 1} is {pixels.dtype} {pixels.shape}, not uint8 {size}.")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame = frame.reformat(
                format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG", threads=1,
                dst_color_trc=BT709, dst_color_primaries=BT709,
            )  # fmt: skip
            frame.pts, frame.time_base = count - 1, 1 / rate
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if sound is not None:
            encode_sound(out, sounding, sound)
    return count


def video_track(out: Any, rate: Fraction, width: int, height: int, quality: int, keyframe_every: int) -> Any:
    track = out.add_stream("libx264", rate=rate)
    track.width, track.height, track.pix_fmt, track.time_base = width, height, "yuv420p", 1 / rate
    track.codec_context.color_range, track.codec_context.colorspace = LIMITED_RANGE, BT709
    track.codec_context.color_primaries, track.codec_context.color_trc = BT709, BT709
    track.codec_context.thread_count = ENCODER_THREADS
    # x264's macroblock tree reads memory it never wrote: on small pictures one file in five came out different.
    track.options = {"crf": str(quality), "preset": "medium", "g": str(keyframe_every), "mbtree": "0"}
    return track


def sound_track(out: Any, sound: Sound) -> Any:
    layout = "mono" if sound.samples.shape[1] == 1 else "stereo"
    track = out.add_stream("aac", rate=SOUND_RATE_HZ, layout=layout)
    track.bit_rate = SOUND_BITS_PER_S
    return track


def encode_sound(out: Any, track: Any, sound: Sound) -> None:
    """Resample to the track's rate, encode and mux. The muxer interleaves by time, so this may follow the pictures."""
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound.samples.T), format="fltp", layout=track.layout.name)
    frame.sample_rate, frame.pts = sound.rate, 0
    resampler = av.AudioResampler(
        format="fltp", layout=track.layout.name, rate=SOUND_RATE_HZ, frame_size=track.codec_context.frame_size
    )
    for piece in [*resampler.resample(frame), *resampler.resample(None)]:
        out.mux(track.encode(piece))
    out.mux(track.encode(None))


def check_sound(path: Path, sound: Sound, channels: int) -> None:
    count, width = sound.samples.shape
    if not count or not 1 <= width <= channels or not 0 < sound.rate <= 192_000:
        raise MediaError(
            f"{path}: a sound of {count} samples, {width} channels at {sound.rate} Hz cannot be written; "
            f"give 1 to {channels} channels at up to 192000 Hz."
        )
    if not np.isfinite(sound.samples).all():
        raise MediaError(f"{path}: the sound holds NaN or infinity. Nothing was written.")


def write_png(
    path: str | os.PathLike[str], pixels: UInt8[np.ndarray, "H W 3"], *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a PNG, exact, with `metadata` as text chunks."""
    text = PngImagePlugin.PngInfo()
    for key, value in (metadata or {}).items():
        text.add_itxt(key, value)
    with replacing(Path(path)) as aside:
        Image.fromarray(pixels).save(aside, format="PNG", pnginfo=text)


def write_wav(path: str | os.PathLike[str], sound: Sound, *, metadata: Mapping[str, str] | None = None) -> None:
    """Write a WAV of 32-bit floats, so that samples come back bit for bit; `metadata` as JSON in its comment (ICMT).

    Raises:
        MediaError: no samples, more than 8 channels, a rate out of range, NaN or infinity.
    """
    check_sound(Path(path), sound, channels=8)
    count, channels = sound.samples.shape
    comment = json.dumps(dict(metadata or {}), ensure_ascii=False).encode() + b"\0"
    # Format 3 is IEEE float; RIFF chunks are padded to even length.
    layout = struct.pack("<HHIIHHH", 3, channels, sound.rate, sound.rate * channels * 4, channels * 4, 32, 0)
    chunks = chunk(b"fmt ", layout) + chunk(b"fact", struct.pack("<I", count))
    chunks += chunk(b"LIST", b"INFO" + chunk(b"ICMT", comment)) if metadata else b""
    chunks += chunk(b"data", sound.samples.astype("<f4").tobytes())
    with replacing(Path(path)) as aside:
        aside.write_bytes(chunk(b"RIFF", b"WAVE" + chunks))


def write_flac(path: str | os.PathLike[str], sound: Sound, *, metadata: Mapping[str, str] | None = None) -> None:
    """Write a FLAC of 16 bits a sample, with `metadata` as its tags.

    A sample comes back as the nearest multiple of 2^-15, which is within half a step; +1.0 has none above
    1 - 2^-15 and comes back as that.

    Raises:
        MediaError: no samples, more than 2 channels, a rate out of range, NaN, infinity, or a sample outside [-1, 1].
    """
    path = Path(path)
    check_sound(path, sound, channels=2)
    if sound.rate > 65_535 and sound.rate % 10:
        raise MediaError(f"{path}: FLAC cannot state a rate of {sound.rate} Hz. Resample to a multiple of 10 Hz.")
    if (peak := float(np.abs(sound.samples).max())) > 1:
        raise MediaError(f"{path}: the sound reaches {peak:.6g}, outside [-1, 1]. Scale it down; nothing was written.")
    layout = "mono" if sound.samples.shape[1] == 1 else "stereo"
    numbers = np.minimum(np.rint(sound.samples.astype(np.float64) * 2**15), 2**15 - 1).astype(np.int16)
    with replacing(path) as aside, av.open(str(aside), "w", format="flac") as out:
        out.metadata.update(metadata or {})
        track = out.add_stream("flac", rate=sound.rate, layout=layout)
        track.codec_context.format, track.codec_context.thread_count = "s16", 1
        track.codec_context.open()
        size = track.codec_context.frame_size
        for start in range(0, len(numbers), size):
            # Packed samples: the channels of one moment lie side by side.
            packed = np.ascontiguousarray(numbers[start : start + size]).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = sound.rate, start, Fraction(1, sound.rate)
            out.mux(track.encode(frame))
        out.mux(track.encode(None))


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
