"""The encoders that turn patches of pictures into features in the place of visual tokens, for reasoning only.

Pixels become patches in `tokenizers.eyes`, in merge order: the merge x merge patches that end up in one feature stand
next to each other. Where the features go in the prompt is the caller's business. Any number of pictures of any size
share a call; no frame sees another. Generation does not use these encoders: it sees latents.

Parameters are named for what they are; `weights.layouts` maps the published names to them.
Sources: Qwen3-VL (arXiv:2511.21631) for the encoder with taps, SigLIP 2 (arXiv:2502.14786) for the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from orrery.errors import RequestError
from orrery.model.vision_config import VisionEncoderConfig

Grid: TypeAlias = tuple[int, int, int]
"""One picture: temporal patches (1 for a still), and its rows and columns of patches before merging."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VisionFeatures:
    """What the model is shown of M visual tokens, in the order of the pictures, each row by row."""

    features: Float[Tensor, "M D"]
    taps: tuple[Float[Tensor, "M D"], ...]
    """Tap k is added to the hidden states of the visual tokens after the model's block k."""


class QwenVision(nn.Module):
    """The encoder of Nano and Super: learned and rotary positions, taps between the blocks."""

    def __init__(self, config: VisionEncoderConfig) -> None:
        super().__init__()
        assert config.kind == "qwen", config.kind
        self.config = config
        self.patch = nn.Linear(config.patch_values, config.width)
        self.positions = nn.Embedding(config.position_grid**2, config.width)
        self.blocks = nn.ModuleList(QwenBlock(config) for _ in range(config.depth))
        self.merger = Merger(config, norm_width=config.width)
        self.taps = nn.ModuleList(Merger(config, norm_width=config.width * config.merge**2) for _ in config.taps)
        nn.init.normal_(self.positions.weight, std=0.02)

    def forward(self, patches: Float[Tensor, "N V"], grids: Sequence[Grid]) -> VisionFeatures:
        """See N patches of V values as M = N / merge² features of the model's width.

        Args:
            patches: every picture's patches in merge order, normalised pixel values ordered (c, t, y, x).
            grids: one for each picture, as it lies in `patches`; rows and columns are multiples of merge.

        Raises:
            RequestError: the grids do not describe these patches.
        """
        check_grids(patches, grids, self.config)
        table = resampled_grid(self.positions.weight, grids, self.config.merge, align_corners=True, antialias=False)
        x = self.patch(patches.to(self.patch.weight.dtype))
        x = x + table.to(x.dtype)
        angles = rotary_angles(grids, self.config, x.device)
        tapped: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            x = block(x, grids, angles)
            if index in self.config.taps:
                tapped.append(self.taps[len(tapped)](x))
        return VisionFeatures(features=self.merger(x), taps=tuple(tapped))


class EdgeVision(nn.Module):
    """The encoder of Edge with its projector: learned positions only, no taps."""

    def __init__(self, config: VisionEncoderConfig) -> None:
        super().__init__()
        assert config.kind == "edge", config.kind
        self.config = config
        self.patch = nn.Linear(config.patch_values, config.width)
        self.positions = nn.Embedding(config.position_grid**2, config.width)
        self.blocks = nn.ModuleList(EdgeBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.projector = Merger(config, norm_width=config.width)
        nn.init.normal_(self.positions.weight, std=0.02)

    def forward(self, patches: Float[Tensor, "N V"], grids: Sequence[Grid]) -> VisionFeatures:
        """See N patches of V values as M = N / merge² features of the model's width.

        Args:
            patches: every picture's patches in merge order, normalised pixel values ordered (y, x, c).
            grids: one for each picture, as it lies in `patches`; rows and columns are multiples of merge.

        Raises:
            RequestError: the grids do not describe these patches.
        """
        check_grids(patches, grids, self.config)
        table = resampled_grid(self.positions.weight, grids, self.config.merge, align_corners=False, antialias=True)
        x = self.patch(patches.to(self.patch.weight.dtype))
        x = x + table.to(x.dtype)
        for block in self.blocks:
            x = block(x, grids)
        return VisionFeatures(features=self.projector(self.norm(x)), taps=())


def vision_encoder(config: VisionEncoderConfig) -> QwenVision | EdgeVision:
    """The encoder that `config` describes, with fresh weights."""
    return QwenVision(config) if config.kind == "qwen" else EdgeVision(config)


class QwenBlock(nn.Module):
    """Pre-norm attention and MLP; query, key and value come from one projection and are turned by the position."""

    def __init__(self, config: VisionEncoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm1 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.norm2 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.up = nn.Linear(config.width, config.mlp_width)
        self.down = nn.Linear(config.mlp_width, config.width)

    def forward(
        self, x: Float[Tensor, "N D"], grids: Sequence[Grid], angles: Float[Tensor, "N half"]
    ) -> Float[Tensor, "N D"]:
        q, k, v = rearrange(self.qkv(self.norm1(x)), "n (three h e) -> three n h e", three=3, h=self.heads)
        x = x + self.out(attend(rotate(q, angles), rotate(k, angles), v, grids))
        x = x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))
        return x


class EdgeBlock(nn.Module):
    """Pre-norm attention and MLP; positions enter once, before the first block."""

    def __init__(self, config: VisionEncoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm1 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.norm2 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.q = nn.Linear(config.width, config.width)
        self.k = nn.Linear(config.width, config.width)
        self.v = nn.Linear(config.width, config.width)
        self.out = nn.Linear(config.width, config.width)
        self.up = nn.Linear(config.width, config.mlp_width)
        self.down = nn.Linear(config.mlp_width, config.width)

    def forward(self, x: Float[Tensor, "N D"], grids: Sequence[Grid]) -> Float[Tensor, "N D"]:
        normed = self.norm1(x)
        q, k, v = (rearrange(project(normed), "n (h e) -> n h e", h=self.heads) for project in (self.q, self.k, self.v))
        x = x + self.out(attend(q, k, v, grids))
        x = x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))
        return x


class Merger(nn.Module):
    """merge x merge neighbouring patches become one feature. Its GELU is the exact one, unlike that of the blocks."""

    def __init__(self, config: VisionEncoderConfig, *, norm_width: int) -> None:
        super().__init__()
        self.together = config.merge**2
        self.norm_width = norm_width
        self.norm = nn.LayerNorm(norm_width, eps=config.norm_eps)
        self.up = nn.Linear(config.width * self.together, config.merged_width)
        self.down = nn.Linear(config.merged_width, config.out_width)

    def forward(self, x: Float[Tensor, "N V"]) -> Float[Tensor, "M D"]:
        merged = rearrange(x, "(m together) v -> m (together v)", together=self.together)
        # The norm covers one patch in the last merger and the projector, but all of them at once in the taps.
        normed = self.norm(rearrange(merged, "m (parts w) -> m parts w", w=self.norm_width))
        features: Tensor = self.down(F.gelu(self.up(rearrange(normed, "m parts w -> m (parts w)"))))
        return features


def attend(
    q: Float[Tensor, "N h e"], k: Float[Tensor, "N h e"], v: Float[Tensor, "N h e"], grids: Sequence[Grid]
) -> Float[Tensor, "N D"]:
    """Full attention within each temporal patch of each picture, and nowhere else; heads side by side."""
    if len(set(grids)) == 1:
        # Pictures alike need no cutting: one batched call.
        frames = len(grids) * grids[0][0]
        query, key, value = (rearrange(x, "(t p) h e -> t h p e", t=frames) for x in (q, k, v))
        return rearrange(F.scaled_dot_product_attention(query, key, value), "t h p e -> (t p) (h e)")
    outputs = []
    start = 0
    for frames, rows, cols in grids:
        stop = start + frames * rows * cols
        query, key, value = (rearrange(x[start:stop], "(t p) h e -> t h p e", t=frames) for x in (q, k, v))
        outputs.append(rearrange(F.scaled_dot_product_attention(query, key, value), "t h p e -> (t p) (h e)"))
        start = stop
    return torch.cat(outputs)


def rotary_angles(grids: Sequence[Grid], config: VisionEncoderConfig, device: torch.device) -> Float[Tensor, "N half"]:
    """Half a head of angles for each patch, float32: first those of its row, then those of its column."""
    if len(set(grids)) == 1 < len(grids):
        return rotary_angles(grids[:1], config, device).repeat(len(grids), 1)
    quarter = config.width // config.heads // 4
    exponents = torch.arange(quarter, dtype=torch.float32, device=device) / quarter
    frequencies = 1.0 / config.rope_theta**exponents
    places = []
    for frames, rows, cols in grids:
        grid = torch.cartesian_prod(torch.arange(rows, device=device), torch.arange(cols, device=device))
        places.append(merge_order(rearrange(grid, "(y x) place -> y x place", y=rows), frames, config.merge))
    return rearrange(torch.cat(places)[:, :, None] * frequencies, "n place f -> n (place f)")


def rotate(x: Float[Tensor, "N h e"], angles: Float[Tensor, "N half"]) -> Float[Tensor, "N h e"]:
    """Turn the pairs (i, i + e/2) of each head by the patch's angles. In float32 whatever the type of `x`."""
    first, second = rearrange(x.float(), "n h (two half) -> two n h half", two=2)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


def resampled_grid(
    table: Float[Tensor, "G D"], grids: Sequence[Grid], merge: int, *, align_corners: bool, antialias: bool
) -> Float[Tensor, "N D"]:
    """The learned square grid of positions, bilinearly resampled to every picture, float32, in merge order."""
    if len(set(grids)) == 1 < len(grids):
        once = resampled_grid(table, grids[:1], merge, align_corners=align_corners, antialias=antialias)
        return once.repeat(len(grids), 1)
    side = round(table.shape[0] ** 0.5)
    square = rearrange(table.float(), "(y x) d -> 1 d y x", y=side)
    parts = []
    for frames, rows, cols in grids:
        resampled = F.interpolate(
            square, (rows, cols), mode="bilinear", align_corners=align_corners, antialias=antialias
        )
        parts.append(merge_order(rearrange(resampled, "1 d y x -> y x d"), frames, merge))
    return torch.cat(parts)


def merge_order(grid: Shaped[Tensor, "rows cols v"], frames: int, merge: int) -> Shaped[Tensor, "n v"]:
    """List a picture's (rows, cols, values) block by block and row by row within a block, once for every frame."""
    return repeat(grid, "(Y y) (X x) v -> (t Y X y x) v", t=frames, y=merge, x=merge)


def check_grids(patches: Float[Tensor, "N V"], grids: Sequence[Grid], config: VisionEncoderConfig) -> None:
    """Raise a RequestError unless `grids` describe `patches`."""
    if patches.shape[1] != config.patch_values:
        raise RequestError(f"A patch has {patches.shape[1]} values and this encoder takes {config.patch_values}.")
    for frames, rows, cols in grids:
        if min(frames, rows, cols) < 1 or rows % config.merge or cols % config.merge:
            raise RequestError(
                f"Grid {(frames, rows, cols)} must have rows and columns in multiples of {config.merge}."
            )
    expected = sum(frames * rows * cols for frames, rows, cols in grids)
    if not grids or patches.shape[0] != expected:
        raise RequestError(f"The grids {list(grids)} describe {expected} patches, got {patches.shape[0]}.")
