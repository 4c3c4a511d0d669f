"""What one sample is made of: a run of text tokens and the segments that are observed or generated beside it.

A segment holds latents, never pixels; how they came about is the codecs' business, and where they stand in the packed
sequence is `packing.pack`'s.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Kind = Literal["vision", "sound", "action"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Segment:
    """One modality's run of frames: T latent frames of P = rows x cols tokens of C values each."""

    kind: Kind
    clean: Float[Tensor, "T P C"]
    """Data at the given frames. Elsewhere the target in training, and of no account in sampling."""
    given: Bool[Tensor, " T"]
    """Frames that are observed. They enter the model clean, and are never generated or scored."""
    valid: Bool[Tensor, "P C"]
    """Values that exist: False on the padding of odd latent sizes and of action columns the robot does not have."""
    rows: int = 1
    cols: int = 1
    fps: float | None = None
    """Pixel frames per second for vision, rows per second for actions, latents per second for sound. None: no clock."""
    start: int = 0
    """Frame at which row 0 stands. 1 for actions: row j leads into pixel frame j + 1."""
    domain: int = 0
    """Row of the action projections; see `tasks.embodiment`."""
    shares_origin: bool = False
    """A further vision item that starts at the same time as the first one instead of after it."""
    camera: int = 0
    """Which of a model's cameras a vision item shows; of account only where the model has a `camera_embed`."""

    def __post_init__(self) -> None:
        if self.rows * self.cols != self.clean.shape[1]:
            raise ValueError(
                f"{self.rows} x {self.cols} tokens a frame do not match {self.clean.shape[1]} in the latents."
            )

    @property
    def tokens(self) -> int:
        """Length in the packed sequence, T x P."""
        return self.clean.shape[0] * self.clean.shape[1]

    @cached_property
    def active(self) -> Bool[Tensor, "T P C"]:
        """Values that are generated and scored: they exist and their frame is not given."""
        return ~self.given[:, None, None] & self.valid

    def noise(self, rng: torch.Generator) -> Float[Tensor, "T P C"]:
        """Standard normal where values are generated, the clean latents where they are given, 0 where none exist.

        Drawn on the CPU, so that a seed means the same on every device.
        """
        drawn = torch.randn(self.clean.shape, generator=rng).to(self.clean.device)
        return self.pinned(drawn)

    def pinned(self, latents: Float[Tensor, "T P C"]) -> Float[Tensor, "T P C"]:
        """`latents` with the given frames put back exactly and 0 where no value exists."""
        return torch.where(self.active, latents, torch.where(self.valid, self.clean, 0.0))


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """One request, or one training example: text first, then its segments."""

    token_ids: Int[Tensor, " n"]
    segments: tuple[Segment, ...] = ()
    positions: Float[Tensor, "3 n"] | None = None
    """Text positions where pictures stand in the text; None counts 0, 1, 2, ..."""
    visual: Bool[Tensor, " n"] | None = None
    """Tokens whose embedding a vision encoder supplies."""
