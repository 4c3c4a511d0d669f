"""The largest media that are read. Header values and running counts are held against these; decoding is in `decode`."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one file may cost to read. Every value is a default that a caller may replace.

    `memory_bytes`, `cpu_s` and `wall_s` bound the process that decodes; the rest is checked from the header before
    anything is decoded, and again while decoding, because a header may lie.
    """

    file_bytes: int = 512 * 2**20
    decoded_bytes: int = 2 * 2**30
    """Pixels or samples handed back for one file."""
    image_side: int = 8192
    image_pixels: int = 32_000_000
    video_side: int = 4096
    video_frames: int = 18_000
    """Frames decoded, those that are only skipped over included."""
    video_s: float = 600.0
    sound_s: float = 600.0
    sound_rate_hz: int = 192_000
    sound_channels: int = 8
    memory_bytes: int = 3 * 2**30
    cpu_s: int = 120
    wall_s: int = 120


LIMITS = Limits()
