"""Rotary positions: three axes (time, row, column) for every token, in float32.

All streams of a sample share one clock, in units of latent frames at the base rate: pixel frame p of a clip stands at
origin + p / fps x base_fps / 4. Row j of the actions, which leads into pixel frame j + 1, stands where that frame does.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from orrery.packing.segment import Segment


@dataclass(frozen=True, kw_only=True)
class Clock:
    """How time becomes positions; part of a checkpoint's configuration."""

    base_fps: float = 24.0
    temporal_compression: int = 4
    margin: int = 15000
    """Positions between the text and the first generated item."""
    fps_modulation: bool = True
    """False: latent frames stand 1 apart, whatever their rate."""
    reset_spatial: bool = True
    """False: rows and columns count from the origin too."""
    one_pace: bool = False
    """Sound counts as pictures and actions do; in the released models it goes four times as fast."""


def text_positions(tokens: int, device: torch.device | None = None) -> Float[Tensor, "3 tokens"]:
    """0, 1, 2, ... on all three axes."""
    return torch.arange(tokens, dtype=torch.float32, device=device).expand(3, -1)


def segment_positions(segment: Segment, origin: float, clock: Clock) -> Float[Tensor, "3 L"]:
    """Positions of every token of a segment, frame by frame, row by row.

    The order of operations is the released one, because at positions of 15,000 the last bit of a float32 is visible in
    the phase: ((frame + start) / (fps / stream compression)) x (base_fps / base compression) + origin.

    Sound counts its own latents (24 positions a second, vision has 6) unless the clock has `one_pace`: the released
    weights were trained so.
    """
    frames, rows, cols = segment.clean.shape[0], segment.rows, segment.cols
    index = torch.arange(frames, dtype=torch.float32)
    if segment.fps is None or not clock.fps_modulation:
        time = index + segment.start + origin
    else:
        stream = clock.temporal_compression if segment.kind == "vision" else 1
        base = 1 if segment.kind == "sound" and not clock.one_pace else clock.temporal_compression
        # Released models were trained with rates rounded to bfloat16: 29.97 counts as 30, 23.976 as 24.
        fps = torch.tensor(segment.fps).bfloat16().item()
        time = (index + segment.start) / (fps / stream) * (clock.base_fps / base) + origin
    spatial = 0.0 if clock.reset_spatial else float(int(origin))
    row = torch.arange(rows, dtype=torch.float32) + spatial
    col = torch.arange(cols, dtype=torch.float32) + spatial
    grid = torch.meshgrid(time, row, col, indexing="ij")
    return torch.stack(grid).reshape(3, frames * rows * cols)
