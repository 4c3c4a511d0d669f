"""Golden: the forward pass of both block families against diffusers 0.42.1, the same random weights, float32, CPU."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from makers.diffusers_model import diffusers_transformer, diffusers_velocity, same_weights
from makers.samples import action, sound, tokens, vision

from orrery.model.config import TINY
from orrery.packing.pack import pack_samples
from orrery.packing.patches import unpatchify
from orrery.packing.segment import Sample

FAMILIES = {
    "qwen": TINY,
    "nemotron": replace(
        TINY, activation="relu2", norm_scales_in_float32=True, text_qk_norm=False, text_key_norm=True, norm_eps=1e-5
    ),
}
TOLERANCE = 1e-4


@cache
def pair(family: str):
    config = FAMILIES[family]
    peer = diffusers_transformer(config)
    return peer, same_weights(peer, config)


@pytest.mark.oracle
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(
    family=st.sampled_from(sorted(FAMILIES)),
    text=st.integers(1, 12),
    frames=st.integers(2, 4),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    clean_frames=st.integers(0, 2),
    sounds=st.integers(0, 9),
    rows=st.sampled_from([0, 2, 4, 8]),
    clean_rows=st.integers(0, 2),
    domain=st.integers(0, 31),
    fps=st.sampled_from([10.0, 24.0, 30.0]),
    sigma=st.sampled_from([0.999, 0.714, 0.5, 0.057]),
    seed=st.integers(0, 1000),
)
@torch.no_grad()
def test_velocity_is_that_of_diffusers(
    family, text, frames, height, width, clean_frames, sounds, rows, clean_rows, domain, fps, sigma, seed
):
    config = FAMILIES[family]
    peer, mot = pair(family)
    segments = [
        vision(config, frames, height, width, given=tuple(range(min(clean_frames, frames - 1))), fps=fps, seed=seed)
    ]
    if sounds > 1:
        segments.append(sound(config, sounds, seed=seed))
    if rows:
        # diffusers always starts actions at frame 1.
        segments.append(
            action(config, rows, config.action_width, tuple(range(min(clean_rows, rows - 1))), domain, fps, seed)
        )
    pack = pack_samples([Sample(token_ids=tokens(text, config.vocab, seed), segments=tuple(segments))], config.clock)
    ours = mot(pack, torch.full((len(segments),), sigma)).velocity
    theirs = diffusers_velocity(peer, pack, [(height, width)], sigma)
    for segment, a, b in zip(pack.segments, ours, theirs, strict=True):
        if segment.kind == "vision":
            a = unpatchify(a, height, width, config.vision_patch)
        else:
            a = a[:, 0].T if segment.kind == "sound" else a[:, 0]
        assert b.abs().max() > 0.1
        assert (a - b).abs().max() <= TOLERANCE


@pytest.mark.oracle
@torch.no_grad()
def test_the_comparison_can_fail():
    """Controls: one key norm missing, or one frame taken for clean, is seen."""
    config = FAMILIES["nemotron"]
    peer, _ = pair("nemotron")
    broken = same_weights(peer, config)
    pack = pack_samples(
        [Sample(token_ids=tokens(5, config.vocab, 0), segments=(vision(config, 3, 4, 4),))], config.clock
    )
    theirs = diffusers_velocity(peer, pack, [(4, 4)], 0.5)[0]
    broken.blocks[0].text_key_norm.weight.mul_(1.1)
    ours = unpatchify(broken(pack, torch.tensor([0.5])).velocity[0], 4, 4, config.vision_patch)
    assert (ours - theirs).abs().max() > 10 * TOLERANCE
