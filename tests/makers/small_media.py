"""Small films and sounds that tests write and read."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from orrery.data.media import Sound


def moving_block(frames: int, height: int, width: int, start: int = 0) -> np.ndarray:
    """A bright square that moves right by two pixels a frame; every frame differs from every other."""
    film = np.full((frames, height, width, 3), (40, 60, 90), np.uint8)
    for t in range(frames):
        x = 2 * (t + start) % (width - 8)
        film[t, height // 2 - 4 : height // 2 + 4, x : x + 8] = (230, 200, 20)
    return film


def tone(count: int, rate: int, channels: int) -> Sound:
    time = np.arange(count) / rate
    columns = [0.4 * np.sin(2 * np.pi * 440 * (c + 1) * time) for c in range(channels)]
    return Sound(samples=np.stack(columns, axis=1).astype(np.float32), rate=rate)


def encode(path: Path, container: str, codec: str, frames: np.ndarray, pixel_format: str = "yuv420p") -> None:
    with av.open(str(path), "w", format=container) as out:
        track = out.add_stream(codec, rate=Fraction(24))
        track.height, track.width, track.pix_fmt = frames.shape[1], frames.shape[2], pixel_format
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts = i
            out.mux(track.encode(frame))
        out.mux(track.encode(None))


def encode_sound(path: Path, container: str, codec: str, sound: Sound) -> None:
    layout = "mono" if sound.samples.shape[1] == 1 else "stereo"
    with av.open(str(path), "w", format=container) as out:
        track = out.add_stream(codec, rate=sound.rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound.samples.T), format="fltp", layout=layout)
        frame.sample_rate, frame.pts = sound.rate, 0
        resampler = av.AudioResampler(
            format=track.format.name, layout=layout, rate=sound.rate, frame_size=track.codec_context.frame_size
        )
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            out.mux(track.encode(piece))
        out.mux(track.encode(None))
