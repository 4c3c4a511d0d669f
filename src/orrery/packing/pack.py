"""Many samples in one sequence, without padding: the text of all samples end to end, and their segments end to end.

Samples do not see each other; the lengths kept here are what attention is cut by. The order of samples, and of the
segments within one, is the order they were given in.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from math import ceil

import torch
from jaxtyping import Float, Int
from torch import Tensor

from orrery.flow.samplers import Latents
from orrery.packing.positions import Clock, segment_positions, text_positions
from orrery.packing.segment import Sample, Segment


@dataclass(frozen=True, kw_only=True, eq=False)
class TextPack:
    """The text of several samples end to end, L tokens in all."""

    token_ids: Int[Tensor, " L"]
    positions: Float[Tensor, "3 L"]
    visual: Int[Tensor, " M"]
    """Where the tokens stand whose embedding a vision encoder supplies."""
    lengths: tuple[int, ...]

    def select(self, samples: Sequence[int]) -> "TextPack":
        """The text of some of the samples, in the order asked for."""
        spans, visual, end = spans_of(self.lengths, samples), [], 0
        for span in spans:
            visual.append(self.visual[(self.visual >= span.start) & (self.visual < span.stop)] - span.start + end)
            end += span.stop - span.start
        return TextPack(
            token_ids=torch.cat([self.token_ids[span] for span in spans]),
            positions=torch.cat([self.positions[:, span] for span in spans], dim=1),
            visual=torch.cat(visual),
            lengths=tuple(self.lengths[sample] for sample in samples),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Pack:
    """B samples in one sequence: their text, and S segments with L generation tokens."""

    text: TextPack
    segments: tuple[Segment, ...]
    owners: tuple[int, ...]
    """The sample that each segment belongs to."""
    positions: Float[Tensor, "3 L"]
    lengths: tuple[int, ...]
    """Generation tokens of each sample; 0 for one that only reads and writes text."""
    latents: Latents
    """What the model sees now, one (T, P, C) for each segment."""

    def with_latents(self, latents: Latents) -> "Pack":
        """The same pack with other latents, in the order of `segments`."""
        return replace(self, latents=latents)

    def of(self, sample: int) -> slice:
        """Where the segments of a sample stand among `segments`."""
        first = self.owners.index(sample) if sample in self.owners else 0
        return slice(first, first + self.owners.count(sample))

    def select(self, samples: Sequence[int]) -> "Pack":
        """Some of the samples, in the order asked for."""
        places = [self.of(sample) for sample in samples]
        return Pack(
            text=self.text.select(samples),
            segments=tuple(segment for place in places for segment in self.segments[place]),
            owners=tuple(index for index, place in enumerate(places) for _ in self.segments[place]),
            positions=torch.cat([self.positions[:, span] for span in spans_of(self.lengths, samples)], dim=1),
            lengths=tuple(self.lengths[sample] for sample in samples),
            latents=[latents for place in places for latents in self.latents[place]],
        )


def spans_of(lengths: Sequence[int], samples: Sequence[int]) -> list[slice]:
    """Where some of the samples stand among all of them laid end to end."""
    ends = [0, *accumulate(lengths)]
    return [slice(ends[sample], ends[sample + 1]) for sample in samples]


def pack_text(samples: Sequence[Sample]) -> TextPack:
    """Put the text of the samples end to end."""
    positions = [text_positions(s.token_ids.numel()) if s.positions is None else s.positions for s in samples]
    visual = [torch.zeros_like(s.token_ids, dtype=torch.bool) if s.visual is None else s.visual for s in samples]
    device = samples[0].token_ids.device
    return TextPack(
        token_ids=torch.cat([sample.token_ids for sample in samples]),
        positions=torch.cat([p.to(device) for p in positions], dim=1),
        visual=torch.cat(visual).nonzero().squeeze(1),
        lengths=tuple(sample.token_ids.numel() for sample in samples),
    )


def pack_samples(samples: Sequence[Sample], clock: Clock) -> Pack:
    """Lay samples end to end.

    The first vision item, the sound and the actions of a sample start together, `clock.margin` after its text. A
    further vision item starts after the one before it, unless it shares the origin.
    """
    if not samples:
        raise ValueError("There is nothing to pack: the list of samples is empty.")
    positions = []
    for sample in samples:
        text_end = sample.token_ids.numel() if sample.positions is None else int(sample.positions.max().item()) + 1
        origin = next_item = float(text_end + clock.margin)
        for segment in sample.segments:
            starts = next_item if segment.kind == "vision" and not segment.shares_origin else origin
            place = segment_positions(segment, starts, clock)
            positions.append(place)
            if segment.kind == "vision":
                next_item = float(ceil(place.max().item()) + 1)
    segments = tuple(segment for sample in samples for segment in sample.segments)
    device = samples[0].token_ids.device
    return Pack(
        text=pack_text(samples),
        segments=segments,
        owners=tuple(index for index, sample in enumerate(samples) for _ in sample.segments),
        positions=torch.cat(positions, dim=1).to(device) if positions else torch.zeros(3, 0, device=device),
        lengths=tuple(sum(segment.tokens for segment in sample.segments) for sample in samples),
        latents=[segment.clean for segment in segments],
    )
