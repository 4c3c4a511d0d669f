"""Arithmetic that a pass takes by its shape: what a measured time is set against.

A product and the sum that it goes into are two operations. Only matrix products count, as is usual; norms, rotations
and activations are left out.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from orrery.model.mot import MoT
from orrery.packing.pack import Pack


@dataclass(frozen=True, kw_only=True)
class Operations:
    """Of one pass."""

    linear: int
    """2 x tokens x weights of the matrices that each token meets."""
    attention: int
    """4 x queries x keys x heads x head width, in every layer: scores, and the sum of values."""

    @property
    def total(self) -> int:
        """Both together."""
        return self.linear + self.attention

    def __add__(self, other: "Operations") -> "Operations":
        return Operations(linear=self.linear + other.linear, attention=self.attention + other.attention)

    def __mul__(self, times: int) -> "Operations":
        return Operations(linear=self.linear * times, attention=self.attention * times)


def of_forward(mot: MoT, pack: Pack) -> Operations:
    """One pass of the generation tower over a pack whose text has been read."""
    config = mot.config
    layers = sum(matrix.numel() for matrix in generation_matrices(mot))
    linear = 2 * sum(pack.lengths) * layers
    for segment in pack.segments:
        values = {
            "vision": config.vision_width,
            "sound": config.sound_width or 0,
            "action": (config.action_width or 0) * (3 if config.action_sums else 2) / 2,
        }[segment.kind]
        # In and out again, and the noise level of the segment through its two layers.
        linear += round(4 * segment.tokens * config.width * values) + 2 * config.width * (256 + config.width)
    pairs = sum(own * (own + text) for own, text in zip(pack.lengths, pack.text.lengths, strict=True))
    return Operations(linear=linear, attention=4 * pairs * config.heads * config.head_width * config.layers)


def of_reading(mot: MoT, tokens: int, past: int = 0, *, scores: int = 0) -> Operations:
    """The text tower over `tokens` after `past` others; each sees itself and what came before it.

    Args:
        scores: tokens of which the next-token scores are asked for.
    """
    config = mot.config
    linear = 2 * tokens * sum(matrix.numel() for matrix in text_matrices(mot))
    pairs = tokens * past + tokens * (tokens + 1) // 2
    return Operations(
        linear=linear + 2 * scores * config.vocab * config.width,
        attention=4 * pairs * config.heads * config.head_width * config.layers,
    )


def generation_matrices(mot: MoT) -> list[Tensor]:
    """Of the layers of the generation tower: what every pass has to read."""
    return [matrix for block in mot.blocks for matrix in _matrices(block.generation)]


def text_matrices(mot: MoT) -> list[Tensor]:
    """Of the layers of the text tower."""
    return [matrix for block in mot.blocks for matrix in _matrices(block.text)]


def _matrices(tower: nn.Module | Tensor) -> list[Tensor]:
    assert isinstance(tower, nn.Module)
    return [parameter for parameter in tower.parameters() if parameter.dim() == 2]
