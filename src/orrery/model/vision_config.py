"""The shapes of the vision encoders through which the model sees pictures when it reasons, as rows of data."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from orrery.errors import CheckpointError
from orrery.weights.documents import exact_fields


@dataclass(frozen=True, kw_only=True)
class VisionEncoderConfig:
    """Everything that decides the shape and the arithmetic of a vision encoder."""

    kind: Literal["qwen", "edge"]
    """qwen: rotary positions, fused qkv, DeepStack taps. edge: SigLIP2-like, one final norm, no taps."""
    width: int
    depth: int
    heads: int
    mlp_width: int
    out_width: int
    """Width of the model that reads the features."""
    merged_width: int
    """Hidden width of the network that turns merge x merge neighbouring patches into one feature."""
    position_grid: int
    """Side of the learned square grid of positions, resampled to each picture's own grid."""
    channels: int = 3
    patch: int = 16
    temporal_patch: int = 1
    """Pixel frames in one patch."""
    merge: int = 2
    norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    taps: tuple[int, ...] = ()
    """Blocks after which features are tapped for the first layers of the model (DeepStack)."""

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise CheckpointError(f"A vision width of {self.width} cannot be split over {self.heads} heads evenly.")
        if self.kind == "qwen" and (self.width // self.heads) % 4:
            raise CheckpointError(f"Rotary rows and columns need head widths in fours, got {self.width // self.heads}.")
        if self.kind == "edge" and self.taps:
            raise CheckpointError(f"The edge vision encoder has no taps, got {self.taps}.")
        if list(self.taps) != sorted(set(self.taps)) or any(not 0 <= tap < self.depth for tap in self.taps):
            raise CheckpointError(f"taps must rise and lie within the {self.depth} blocks, got {self.taps}.")

    @property
    def patch_values(self) -> int:
        """Numbers in one patch, channels x frames x rows x columns."""
        return math.prod((self.channels, self.temporal_patch, self.patch, self.patch))

    def to_json(self) -> dict[str, Any]:
        """Plain values, all of them, for a saved configuration."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "VisionEncoderConfig":
        """Inverse of `to_json`; a missing or unknown key is an error."""
        values = exact_fields(cls, document, "Vision encoder configuration")
        return cls(**{**values, "taps": tuple(values["taps"])})


NANO_VISION = VisionEncoderConfig(
    kind="qwen",
    width=1152,
    depth=27,
    heads=16,
    mlp_width=4304,
    out_width=4096,
    merged_width=4608,
    position_grid=48,
    temporal_patch=2,
    taps=(8, 16, 24),
)
SUPER_VISION = replace(NANO_VISION, out_width=5120)
EDGE_VISION = VisionEncoderConfig(
    kind="edge",
    width=1152,
    depth=27,
    heads=16,
    mlp_width=4304,
    out_width=2048,
    merged_width=11520,
    position_grid=16,
)
PICO_VISION = VisionEncoderConfig(
    kind="qwen",
    width=192,
    depth=4,
    heads=6,
    mlp_width=768,
    out_width=512,
    merged_width=768,
    position_grid=16,
    patch=8,
    temporal_patch=2,
)
"""Ours: 3 M parameters, trained with the model from nothing."""
TINY_QWEN_VISION = VisionEncoderConfig(
    kind="qwen",
    width=24,
    depth=3,
    heads=2,
    mlp_width=40,
    out_width=64,
    merged_width=96,
    position_grid=5,
    temporal_patch=2,
    taps=(0, 1),
)
"""For tests: as wide at its end as the tiny model, with a tap for each of its two layers."""
TINY_EDGE_VISION = VisionEncoderConfig(
    kind="edge",
    width=24,
    depth=2,
    heads=2,
    mlp_width=40,
    out_width=64,
    merged_width=80,
    position_grid=4,
)
