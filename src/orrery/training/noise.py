"""What is random in training: generators by place, noise levels, noise, and the latents that the model sees.

No generator lives on from one step to the next: each is seeded by what it is for and where it stands, so the random
state of a run is its step, and a sample's noise does not depend on its neighbours.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from orrery.flow.samplers import Latents
from orrery.packing.segment import Segment
from orrery.training.recipe import ModalityNoise


class Purpose(IntEnum):
    """What a generator is for; the numbers are part of what a seed means."""

    WEIGHTS = 0
    ORDER = 1
    TASK = 2
    DATA = 3
    NOISE = 4


def generator(seed: int, purpose: Purpose, place: int = 0) -> torch.Generator:
    """A fresh CPU generator; equal arguments give equal draws, different ones independent draws."""
    (state,) = np.random.SeedSequence((seed, purpose, place)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Noise:
    """Noise of one sample's segments."""

    sigmas: Float[Tensor, " S"]
    values: Latents
    """Standard normal, one (T, P, C) a segment; of account only where the segment is active."""


def draw_noise(
    segments: tuple[Segment, ...], levels: ModalityNoise, rng: torch.Generator, *, independent: bool
) -> Noise:
    """Draw noise levels and noise for one sample.

    Args:
        segments: of one sample, S in all.
        levels: what each modality draws from.
        rng: a CPU generator, so that a seed means the same on every device.
        independent: one level for each segment, from the levels of its modality. Otherwise one for the sample, from
            the levels of vision where there is any and of its first segment where there is none.
    """
    if not independent and segments:
        kinds = [segment.kind for segment in segments]
        leader = "vision" if "vision" in kinds else kinds[0]
        sigmas = levels.of(leader).draw(1, rng).expand(len(segments))
    else:
        drawn = [levels.of(segment.kind).draw(1, rng) for segment in segments]
        sigmas = torch.cat(drawn) if drawn else torch.zeros(0)
    return Noise(sigmas=sigmas, values=[torch.randn(segment.clean.shape, generator=rng) for segment in segments])


def noised(segment: Segment, sigma: Float[Tensor, ""], noise: Float[Tensor, "T P C"]) -> Float[Tensor, "T P C"]:
    """(1 - sigma) clean + sigma noise where values are generated, clean where they are given, 0 where none exist."""
    return segment.pinned((1 - sigma) * segment.clean + sigma * noise)
