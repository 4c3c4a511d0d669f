"""Where noise levels and noise come from, and what they do to latents."""

import pytest
import torch
from makers.samples import action, mixed, sound, vision

from orrery.flow.noise_levels import NoiseLevels
from orrery.model.config import TINY
from orrery.training.noise import Purpose, draw_noise, generator, noised
from orrery.training.recipe import ModalityNoise

# Levels so far apart that a draw tells which distribution it came from.
LEVELS = ModalityNoise(
    vision=NoiseLevels(kind="uniform", shift=1e-6),
    sound=NoiseLevels(kind="uniform", shift=1.0),
    action=NoiseLevels(kind="uniform", shift=1e6),
)


def test_generators_follow_from_their_place():
    places = [(s, purpose, place) for s in (0, 1) for purpose in Purpose for place in (0, 1, 2**40)]
    draws = {torch.randn(4, generator=generator(*place)).sum().item() for place in places}
    assert len(draws) == len(places)
    assert torch.equal(*(torch.randn(4, generator=generator(7, Purpose.NOISE, 3)) for _ in range(2)))


def test_independent_noise_has_a_level_for_each_segment_from_its_own_distribution():
    segments = (vision(TINY, 2, 4, 4), vision(TINY, 2, 4, 4), sound(TINY, 3), action(TINY, 4, 3))
    sigmas = draw_noise(segments, LEVELS, generator(0, Purpose.NOISE), independent=True).sigmas
    assert sigmas.unique().numel() == 4
    assert (sigmas[:2] < 0.01).all()
    assert 0.01 < sigmas[2] < 0.99 < sigmas[3]


@pytest.mark.parametrize("seed", range(3))
def test_shared_noise_has_the_level_of_vision(seed):
    segments = (action(TINY, 4, 3), vision(TINY, 2, 4, 4), sound(TINY, 3))
    sigmas = draw_noise(segments, LEVELS, generator(seed, Purpose.NOISE), independent=False).sigmas
    assert sigmas.unique().numel() == 1
    assert sigmas[0] < 0.01
    alone = draw_noise(segments[:1], LEVELS, generator(seed, Purpose.NOISE), independent=False).sigmas
    assert alone[0] > 0.99


def test_noise_mixes_with_what_is_generated_and_leaves_the_rest():
    for segment in (segment for sample in mixed(TINY) for segment in sample.segments):
        noise = torch.randn(segment.clean.shape)
        x = noised(segment, torch.tensor(0.25), noise)
        torch.testing.assert_close(x[segment.active], (0.75 * segment.clean + 0.25 * noise)[segment.active])
        kept = ~segment.active
        assert torch.equal(x[kept], torch.where(segment.valid, segment.clean, 0.0)[kept])


def test_text_alone_has_no_noise():
    noise = draw_noise((), LEVELS, generator(0, Purpose.NOISE), independent=False)
    assert noise.sigmas.shape == (0,)
    assert noise.values == []
