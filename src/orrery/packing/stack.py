"""Samples of one shape, stacked instead of laid end to end: what training makes large batches of.

A stack says the same as the pack of its samples, and the model answers the same (`Stack.unstack`); only every modality
is one tensor, so that a step is a few large operations instead of many small ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from orrery.packing.pack import Pack, TextPack, pack_samples
from orrery.packing.positions import Clock, text_positions
from orrery.packing.segment import Kind, Sample, Segment


@dataclass(frozen=True, kw_only=True, eq=False)
class Track:
    """One segment of each of B samples; fields as in `Segment`."""

    kind: Kind
    clean: Float[Tensor, "B T P C"]
    given: Bool[Tensor, "B T"]
    valid: Bool[Tensor, "P C"]
    rows: int = 1
    cols: int = 1
    fps: float | None = None
    start: int = 0
    domain: int = 0
    shares_origin: bool = False
    camera: int = 0

    @property
    def active(self) -> Bool[Tensor, "B T P C"]:
        """Values that are generated and scored."""
        return ~self.given[:, :, None, None] & self.valid

    def pinned(self, latents: Float[Tensor, "B T P C"]) -> Float[Tensor, "B T P C"]:
        """`latents` with the given frames put back exactly and 0 where no value exists."""
        return torch.where(self.active, latents, torch.where(self.valid, self.clean, 0.0))

    def segment(self, sample: int) -> Segment:
        """The segment of one sample."""
        return Segment(
            kind=self.kind,
            clean=self.clean[sample],
            given=self.given[sample],
            valid=self.valid,
            rows=self.rows,
            cols=self.cols,
            fps=self.fps,
            start=self.start,
            domain=self.domain,
            shares_origin=self.shares_origin,
            camera=self.camera,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Stack:
    """B samples alike: n text tokens and S tracks each, L generation tokens each."""

    token_ids: Int[Tensor, "B n"]
    tracks: tuple[Track, ...]
    positions: Float[Tensor, "3 L"]
    """Of one sample; all have the same."""
    latents: tuple[Float[Tensor, "B _ _ _"], ...]
    """What the model sees now, one for each track."""

    @property
    def text(self) -> TextPack:
        """The text of all samples, end to end."""
        count, length = self.token_ids.shape
        return TextPack(
            token_ids=self.token_ids.reshape(-1),
            positions=repeat(text_positions(length, self.token_ids.device), "three n -> three (b n)", b=count),
            visual=torch.zeros(0, dtype=torch.long, device=self.token_ids.device),
            lengths=(length,) * count,
        )

    def with_latents(self, latents: Sequence[Float[Tensor, "B _ _ _"]]) -> "Stack":
        """The same stack with other latents, in the order of `tracks`."""
        return replace(self, latents=tuple(latents))

    def unstack(self, clock: Clock) -> Pack:
        """The same samples as a pack; its segments are those of the first sample, then of the second, and so on."""
        samples = [
            Sample(token_ids=ids, segments=tuple(track.segment(index) for track in self.tracks))
            for index, ids in enumerate(self.token_ids)
        ]
        pack = pack_samples(samples, clock)
        return pack.with_latents([latents[index] for index in range(len(samples)) for latents in self.latents])


def stack_tracks(token_ids: Int[Tensor, "B n"], tracks: Sequence[Track], clock: Clock) -> Stack:
    """Stack tracks under their text; positions are those that `pack_samples` gives to one of the samples."""
    counts = {len(token_ids), *(len(track.clean) for track in tracks)}
    if len(counts) != 1:
        raise ValueError(f"Text and tracks of a stack must have one number of samples, got {sorted(counts)}.")
    shapes = tuple(
        (track.kind, track.clean.shape[1], track.clean.shape[2], track.rows, track.cols, track.fps, track.start,
         track.shares_origin)
        for track in tracks
    )  # fmt: skip
    return Stack(
        token_ids=token_ids,
        tracks=tuple(tracks),
        positions=_positions(token_ids.shape[1], shapes, clock, token_ids.device),
        latents=tuple(track.clean for track in tracks),
    )


# Kept: they are the same in every step, and working them out takes the CPU as long as a small stack the GPU.
@cache
def _positions(
    text: int,
    shapes: tuple[tuple[Kind, int, int, int, int, float | None, int, bool], ...],
    clock: Clock,
    device: torch.device,
) -> Float[Tensor, "3 L"]:
    segments = tuple(
        Segment(
            kind=kind,
            clean=torch.zeros(frames, tokens, 1),
            given=torch.zeros(frames, dtype=torch.bool),
            valid=torch.ones(tokens, 1, dtype=torch.bool),
            rows=rows,
            cols=cols,
            fps=fps,
            start=start,
            shares_origin=shares_origin,
        )
        for kind, frames, tokens, rows, cols, fps, start, shares_origin in shapes
    )
    alone = Sample(token_ids=torch.zeros(text, dtype=torch.long), segments=segments)
    return pack_samples([alone], clock).positions.to(device)
