from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.samples import action, mixed, sound, tokens, vision

from orrery.model.config import TINY
from orrery.packing.apart import taken_apart
from orrery.packing.pack import pack_samples
from orrery.packing.patches import patchify, unpatchify, valid_values
from orrery.packing.positions import Clock
from orrery.packing.segment import Sample


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 7), st.integers(1, 7), st.integers(1, 3))
def test_patches_put_back_together_are_the_latent(channels, frames, height, width, patch):
    latent = torch.randn(channels, frames, height, width)
    cut = patchify(latent, patch)
    assert torch.equal(unpatchify(cut, height, width, patch), latent)
    valid = valid_values(channels, height, width, patch)
    assert valid.sum() == channels * height * width
    assert (cut[:, ~valid] == 0).all()


def test_values_of_a_patch_are_ordered_row_column_channel():
    latent = torch.arange(2 * 2 * 2.0).reshape(2, 1, 2, 2)  # channel-major: value = 4 c + 2 y + x
    assert patchify(latent, 2)[0, 0].tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


def one(*segments, text=5, clock=TINY.clock):
    return pack_samples([Sample(token_ids=tokens(text, TINY.vocab, seed=0), segments=segments)], clock)


@pytest.mark.parametrize(("fps", "spacing"), [(24, 1.0), (10, 2.4), (30, 0.8), (5, 4.8)])
def test_latent_frames_stand_apart_by_their_rate(fps, spacing):
    pack = one(vision(TINY, 4, 2, 2, fps=fps))
    assert torch.allclose(pack.positions[0].diff(), torch.tensor(spacing), atol=2e-3)
    assert pack.positions[0, 0] == 5 + 15000


@pytest.mark.parametrize(("fps", "counts_as"), [(29.97, 30.0), (23.976, 24.0), (12.5, 12.5)])
def test_rates_count_as_in_the_released_training(fps, counts_as):
    assert torch.equal(
        one(vision(TINY, 4, 2, 2, fps=fps)).positions, one(vision(TINY, 4, 2, 2, fps=counts_as)).positions
    )


@pytest.mark.parametrize("fps", [5.0, 15.0, 24.0])
def test_action_row_stands_where_the_frame_it_leads_to_does(fps):
    pack = one(vision(TINY, 3, 2, 2, fps=fps), action(TINY, 8, 10, fps=fps))
    frames, rows = pack.positions[0, :3], pack.positions[0, 3:]
    assert torch.equal(frames[1:], rows[[3, 7]])  # rows 3 and 7 lead into pixel frames 4 and 8
    assert (pack.positions[1:, 3:] == 0).all()


def test_sound_counts_its_own_latents():
    pack = one(vision(TINY, 2, 2, 2), sound(TINY, 6))
    assert torch.allclose(pack.positions[0, 2:], 15005 + 0.96 * torch.arange(6), atol=2e-3)


def test_spatial_positions_restart_and_run_row_by_row():
    pack = one(vision(TINY, 2, 4, 6))
    assert pack.positions[1].tolist() == [0, 0, 0, 1, 1, 1] * 2
    assert pack.positions[2].tolist() == [0, 1, 2] * 4


def test_further_vision_items_follow_or_share_the_origin():
    first, second = vision(TINY, 3, 2, 2, fps=10), vision(TINY, 1, 2, 2)
    after = one(first, second).positions[0]
    assert after[3] == 15010 + 1  # ceil(15005 + 2 x 2.4) + 1
    shared = one(first, replace(second, shares_origin=True), sound(TINY, 1)).positions[0]
    assert shared[3] == shared[4] == 15005


def test_without_modulation_frames_are_one_apart():
    pack = one(vision(TINY, 3, 2, 2, fps=10), clock=Clock(fps_modulation=False))
    assert pack.positions[0].tolist() == [15005, 15006, 15007]


def test_a_pack_is_its_samples_end_to_end():
    samples = mixed(TINY)
    pack = pack_samples(samples, TINY.clock)
    singles = [pack_samples([sample], TINY.clock) for sample in samples]
    assert torch.equal(pack.positions, torch.cat([single.positions for single in singles], dim=1))
    assert torch.equal(pack.text.token_ids, torch.cat([sample.token_ids for sample in samples]))
    for index, sample in enumerate(samples):
        assert pack.segments[pack.of(index)] == sample.segments
    assert sum(pack.lengths) == pack.positions.shape[1]


def test_some_samples_of_a_pack_are_the_pack_of_some_samples():
    samples = [replace(sample, visual=sample.token_ids % 2 == index % 2) for index, sample in enumerate(mixed(TINY))]
    samples[3] = replace(samples[3], segments=())  # it only reads
    chosen = [6, 3, 0, 7, 2]
    found = pack_samples(samples, TINY.clock).select(chosen)
    expected = pack_samples([samples[index] for index in chosen], TINY.clock)
    tensors: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    assert taken_apart(found, tensors[0]) == taken_apart(expected, tensors[1])
    assert all(torch.equal(a, b) for a, b in zip(*tensors, strict=True))


def test_noise_keeps_what_is_given_and_what_does_not_exist():
    for segment in mixed(TINY)[7].segments:
        drawn = segment.noise(torch.Generator().manual_seed(0))
        assert torch.equal(drawn[segment.given], (segment.clean * segment.valid)[segment.given])
        assert (drawn[:, ~segment.valid] == 0).all()
        assert (drawn != segment.clean)[segment.active].all()


def test_nothing_to_pack_is_said():
    with pytest.raises(ValueError, match="empty"):
        pack_samples([], TINY.clock)
